"""A table of pairs, each case done once, in turn or by workers; what fails is listed at the end."""

from __future__ import annotations

import functools
import json
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from tqdm import tqdm

from hetmorph.cli.messages import line_of
from hetmorph.cli.models import described, find_model
from hetmorph.cli.outcome import verdict_status
from hetmorph.cli.register_job import Job, Settings
from hetmorph.cohort import WHOLE, Entries, InTurn, Journal, Shard, Work, Workers, stops_all
from hetmorph.data.csv_pairs import LABEL_COLUMNS, read_table
from hetmorph.evaluation import write_cases
from hetmorph.io.atomic import clear_parts, write_text
from hetmorph.io.sidecar import sha256_of

COLUMNS = ("moving", "fixed", *LABEL_COLUMNS, "mask", "case")
DEFAULT = {"moved": Path("moved.nii.gz"), "transform": Path("transform.nii.gz")}
_LABELS = Path("labels.nii.gz")
_DONE = "registration.json"


def run(
    table: Path,
    out: Path,
    outputs: dict[str, Path],
    settings: Settings,
    command: Sequence[str],
    resume: bool,
    dry_run: bool,
    fail_on: str = "never",
    shard: Shard = WHOLE,
    engine: InTurn | Workers | None = None,
) -> int:
    """Register every pair of a table, or of one shard of it.

    Args:
        table: CSV, see `pairs_of`.
        out: folder; every case has one of its own in it, whose `registration.json` is written last. `cases.csv` in
            `out` has the verdict and the scores of every case.
        outputs: names of the results within it; none: moved.nii.gz and transform.nii.gz. Where a row names labels,
            they are moved too.
        settings, command, resume, dry_run, fail_on, engine: as `Cohort.run`.
        shard: the cases that are to be done here; other processes may do the others in the same folder.

    Returns:
        Exit status, as `Cohort.run`.

    Raises:
        ValueError: the table or the settings are wrong, or results are there and not to be resumed.
    """
    settings.check()
    outputs = outputs or DEFAULT
    if wrong := [str(path) for path in outputs.values() if path.name != str(path)]:
        raise ValueError(f"with --pairs, results are file names inside the folder of the case, received {wrong[0]}")
    rows, broken = pairs_of(table)
    if settings.dice_weight and not any(row.keys() >= set(LABEL_COLUMNS) for row in rows.values()):
        raise ValueError(f"--dice-weight needs {' and '.join(LABEL_COLUMNS)}, of which no row of {table} has both")
    jobs = Jobs({case: rows[case] for case in shard.cases(rows)}, table.parent, out, outputs)
    cohort = Cohort(jobs, out / shard.table, {case: broken[case] for case in shard.cases(broken)})
    if not resume and out.exists() and (there := cohort.begun()):
        raise ValueError(f"{out} holds results of {there} of these cases; go on with --resume, or choose another --out")
    return cohort.run(settings, command, dry_run, fail_on, engine)


class Jobs(Mapping):
    """Job and record of each row of a table, made when they are asked for: a table may have a million.

    Args:
        rows: cells by column, by the name of the case.
        base: folder that the paths start from.
        out: folder of the folders of the cases.
        outputs: names of the results within these.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, str]], base: Path, out: Path, outputs: Mapping[str, Path]):
        self._rows, self._base, self._out, self._outputs = rows, base, out, outputs

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, case: str) -> tuple[Job, Path]:
        row = {name: self._base / cell for name, cell in self._rows[case].items()}
        labels, wanted = row.get("moving_labels"), dict(self._outputs)
        moved_labels = wanted.pop("labels_out", _LABELS)
        if labels is not None:
            wanted["labels_out"] = moved_labels
        paths = {name: self._out / case / path for name, path in wanted.items()}
        # Of the fixed image alone there is nothing to score, and nothing else asks for them.
        target = None if labels is None else row.get("fixed_labels")
        job = Job(row["moving"], row["fixed"], labels, row.get("mask"), paths, labels_fixed=target)
        return job, self._out / case / _DONE


class Registering(Work):
    """The registration of a case: its results, and the record that is written after them.

    Args:
        settings: what decides the results beside the images.
        command: the words of the command line.
    """

    def __init__(self, settings: Settings, command: Sequence[str]):
        self.settings, self.command = settings, command

    @functools.cached_property
    def predictor(self):
        """The model, loaded once a process."""
        return self.settings.predictor()

    @functools.cached_property
    def decides(self) -> dict:
        """What must be the same, beside files, for results to be those asked for."""
        model = find_model(self.settings.model)
        stored = sha256_of(model) if Path(model).exists() else model
        return {"settings": asdict(self.settings) | {"model": stored}}

    def done(self, job: Job, record: Path) -> bool:
        """Whether all results are there, made with the same settings from the same files.

        Args:
            job: what to do.
            record: the file that is written last.
        """
        if not record.is_file() or not all(path.exists() for path in [*job.outputs.values(), *job.inputs.values()]):
            return False
        try:
            told, wanted = json.loads(record.read_text()), self._wanted(job)
            return {name: told.get(name) for name in wanted} == wanted
        except (ValueError, AttributeError):
            return False

    def _wanted(self, job: Job) -> dict:
        return self.decides | _names(job) | {"inputs": _inputs(job)}

    def __call__(self, case: str, row: tuple[Job, Path]) -> dict:
        job, record = row
        if self.done(job, record):
            return {"row": {"case_id": case, "failed": ""} | _verdict_of(record), "before": True}
        predictor = self.predictor  # what is wrong with it is wrong with every case
        try:
            job.check(self.settings)
            _forget(job, record)
            judged = _registered(case, job, self.settings, predictor, self.command)
            write_text(record, json.dumps(self._wanted(job) | {"verdict": judged}, indent=2) + "\n")
        except Exception as error:
            if stops_all(error):
                raise
            return self.failed(case, row, line_of(error) or _unexpected(error))
        return {"row": {"case_id": case, "failed": ""} | judged}

    def failed(self, case: str, row: tuple[Job, Path], reason: str) -> dict:
        return {"row": {"case_id": case, "failed": reason}}


@dataclass(frozen=True)
class Cohort:
    """Registrations each of which is done once.

    Attributes:
        jobs: what to do, and the file that is written last and by which it is known to be done, by the name of the
            case.
        table: file with the verdict and the scores of every case.
        broken: what is wrong with rows that say nothing to do, by the name of the case.
    """

    jobs: Mapping[str, tuple[Job, Path]]
    table: Path
    broken: Mapping[str, str] = field(default_factory=dict)

    def begun(self) -> int:
        """Number of the cases that have a record."""
        return sum(record.exists() for _, record in self.jobs.values())

    def run(
        self,
        settings: Settings,
        command: Sequence[str],
        dry_run: bool,
        fail_on: str = "never",
        engine: InTurn | Workers | None = None,
    ) -> int:
        """Register every case that is not done with the same settings from the same files; list what fails.

        Args:
            settings: what decides the results beside the images.
            command: the words of the command line.
            dry_run: check every case instead.
            fail_on: the mildest verdict that counts as a failure, "review" or "reject"; or "never".
            engine: who does them; None is one after the other, here.

        Returns:
            Exit status: 1 if a case failed, else `outcome.FAILED_VERDICT` if a verdict is as bad as `fail_on`, else 0.
        """
        click.echo(described(find_model(settings.model)))
        if dry_run:
            return self._previewed(settings)
        with Journal(self.table.with_suffix(".partial.jsonl")) as journal:
            before = self._done(Registering(settings, command), engine or InTurn(), journal)
            status = self._told(Entries(journal, sorted([*self.jobs, *self.broken])), before, fail_on)
            journal.remove()
            return status

    def _done(self, work: Registering, engine: InTurn | Workers, journal: Journal) -> int:
        """Do all cases; number of those that were done before. What comes is in the journal at once."""
        for case, reason in self.broken.items():
            journal.add(case, work.failed(case, None, reason)["row"])
        before, over = 0, 0
        tasks = self.jobs.items()  # a mapping may make each as it is asked for
        try:
            for case, result in tqdm(engine.each(work, tasks, _size), total=len(tasks), unit="case", disable=None):
                journal.add(case, result["row"])
                before, over = before + bool(result.get("before")), over + 1
        except OSError as error:
            stopped = f"stopped after {over} of {len(tasks)} pairs: {error}"
            text = f"{stopped}; what is done is kept, and hetmorph register goes on with --resume"
            raise type(error)(text) from error
        return before

    def _told(self, rows: Sequence[dict], before: int, fail_on: str) -> int:
        """Say how it went, which cases are not to be trusted, and write the table."""
        failed = sum(bool(row["failed"]) for row in rows)
        click.echo(self._counted("registered", before, failed))
        for flag in ("review", "reject"):
            for row in rows:
                if row.get("verdict") == flag:
                    click.echo(f"{flag}: {row['case_id']}: {row['reason']}", err=True)
        for row in rows:
            if row["failed"]:
                click.echo(f"failed: {row['case_id']}: {row['failed']}", err=True)
        write_cases(self.table, rows)
        click.echo(f"wrote {self.table}")
        return 1 if failed else verdict_status({row["verdict"] for row in rows if row.get("verdict")}, fail_on)

    def _previewed(self, settings: Settings) -> int:
        """Check every case that is not done, say what would be done, write nothing."""
        work, failures, before = Registering(settings, ()), dict(self.broken), 0
        for case, (job, record) in self.jobs.items():
            if work.done(job, record):
                before += 1
                continue
            predictor = work.predictor
            try:
                job.check(settings)
                click.echo("\n".join([f"{case}:", *(f"  {line}" for line in job.preview(settings, predictor))]))
            except Exception as error:
                failures[case] = line_of(error) or _unexpected(error)
        click.echo(self._counted("could be registered", before, len(failures)))
        for case, line in failures.items():
            click.echo(f"failed: {case}: {line}", err=True)
        return 1 if failures else 0

    def _counted(self, what: str, before: int, failed: int) -> str:
        whole = len(self.jobs) + len(self.broken)
        skipped = f", {before} were done before" if before else ""
        return f"{whole - failed - before} of {whole} pairs {what}{skipped}, {failed} failed"


def pairs_of(table: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Cells of `COLUMNS` by the case of each row, and what is wrong with others; cases without a name are numbered.

    A row that is broken is called by its line.

    Args:
        table: CSV.

    Raises:
        ValueError: as `read_table` of the table as a whole.
    """
    cases, wrong = {}, {}
    rows = read_table(table, COLUMNS, wrong)
    broken = {f"line-{line:04d}": reason for line, reason in wrong.items()}
    numbers = {line: number for number, line in enumerate(sorted([*wrong, *(line for line, _ in rows)]), start=1)}
    for line, cells in rows:
        case = cells.get("case") or f"pair-{numbers[line]:04d}"
        if not re.fullmatch(r"\w[\w.+-]*", case):
            broken[f"line-{line:04d}"] = f"{table}, line {line}: the case {case!r} cannot be the name of a folder"
        elif case in cases:
            broken[f"line-{line:04d}"] = f"{table}, line {line}: there is a case {case} already"
        else:
            cases[case] = {name: cells[name] for name in COLUMNS[:-1] if cells.get(name)}
    return cases, broken


def _registered(case: str, job: Job, settings: Settings, predictor, command: Sequence[str]) -> dict:
    """Do a job, say how it went; its verdict and scores."""
    result = job.run(settings, predictor, command)
    if result.affine is not None:
        tqdm.write(f"{case}: {result.affine}")
    outcome = result.outcomes[0]
    said = [outcome.line, *outcome.mean_dice(), *result.notes, result.verdict.flag, f"{result.seconds:.1f} s"]
    tqdm.write(f"{case}: {'; '.join(said)}")
    for doubt in result.doubts:
        click.echo(f"warning: {case}: {doubt}", err=True)
    return {"verdict": result.verdict.flag, "reason": result.verdict.reason, **outcome.scores()}


def _size(task: tuple[str, tuple[Job, Path]]) -> float:
    """Bytes of the images of a case, as far as they are there."""
    _, (job, _) = task
    return sum(path.stat().st_size for path in (job.moving, job.fixed) if path.exists())


def _forget(job: Job, record: Path) -> None:
    """What is made anew is not done until it is: no record of earlier results, no rest of a killed process."""
    record.unlink(missing_ok=True)
    if {path.parent for path in job.outputs.values()} == {record.parent}:
        clear_parts(record.parent)


def _names(job: Job) -> dict:
    return {"outputs": {name: path.name for name, path in sorted(job.outputs.items())}}


def _inputs(job: Job) -> dict:
    """Files by option, with size and time of change: another image is another case."""

    def about(path: Path) -> list:
        stat = path.stat()
        return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    return {option: about(path) for option, path in job.inputs.items()}


def _verdict_of(record: Path) -> dict:
    """Verdict and scores of a case that is done; empty where it was done before there were any."""
    return json.loads(record.read_text()).get("verdict", {})


def _unexpected(error: Exception) -> str:
    """An error that nobody thought of: one case of a cohort does not end it, but the place has to be told."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
