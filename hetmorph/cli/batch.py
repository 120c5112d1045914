"""A table of pairs, one case after the other; what fails is listed at the end."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from tqdm import tqdm

from hetmorph.cli.messages import line_of
from hetmorph.cli.models import described, find_model
from hetmorph.cli.outcome import verdict_status
from hetmorph.cli.register_job import Job, Settings
from hetmorph.cli.shards import WHOLE, Shard
from hetmorph.data.csv_pairs import read_table
from hetmorph.evaluation import write_cases
from hetmorph.io.atomic import write_text
from hetmorph.io.sidecar import sha256_of

COLUMNS = ("moving", "fixed", "moving_labels", "mask", "case")
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
) -> int:
    """Register every pair of a table, or of one shard of it.

    Args:
        table: CSV, see `pairs_of`.
        out: folder; every case has one of its own in it, whose `registration.json` is written last. `cases.csv` in
            `out` has the verdict and the scores of every case.
        outputs: names of the results within it; none: moved.nii.gz and transform.nii.gz. Where a row names labels,
            they are moved too.
        settings, command, resume, dry_run, fail_on: as `Cohort.run`.
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
    rows = pairs_of(table)
    jobs = {case: _job(rows[case], out / case, outputs) for case in shard.cases(rows)}
    cohort = Cohort(jobs, {case: out / case / _DONE for case in jobs}, out / shard.table)
    if (there := cohort.begun()) and not resume:
        raise ValueError(f"{out} holds results of {there} of these cases; go on with --resume, or choose another --out")
    return cohort.run(settings, command, dry_run, fail_on)


@dataclass(frozen=True)
class Cohort:
    """Registrations one after the other, each of which is done once.

    Attributes:
        jobs: what to do, by the name of the case.
        records: file of each case that is written last: by it a case is known to be done.
        table: file with the verdict and the scores of every case.
    """

    jobs: Mapping[str, Job]
    records: Mapping[str, Path]
    table: Path

    def begun(self) -> int:
        """Number of the cases that have a record."""
        return sum(record.exists() for record in self.records.values())

    def run(self, settings: Settings, command: Sequence[str], dry_run: bool, fail_on: str = "never") -> int:
        """Register every case that is not done with the same settings from the same files; list what fails.

        Args:
            settings: what decides the results beside the images.
            command: the words of the command line.
            dry_run: check every case instead.
            fail_on: the mildest verdict that counts as a failure, "review" or "reject"; or "never".

        Returns:
            Exit status: 1 if a case failed, else `outcome.FAILED_VERDICT` if a verdict is as bad as `fail_on`, else 0.
        """
        shared = _decides(settings)
        decides = {case: shared | _names(job) for case, job in self.jobs.items()}
        done = {case for case, job in self.jobs.items() if _is_done(job, self.records[case], decides[case])}
        predictor, failures = settings.predictor(), {}
        judged = {case: _verdict_of(self.records[case]) for case in self.jobs if case in done}
        click.echo(described(find_model(settings.model)))
        pending = {case: job for case, job in self.jobs.items() if case not in done}
        for case, job in tqdm(pending.items(), unit="case", disable=True if dry_run else None):
            try:
                job.check(settings)
                if dry_run:
                    click.echo("\n".join([f"{case}:", *(f"  {line}" for line in job.preview(settings, predictor))]))
                    continue
                judged[case] = _registered(case, job, settings, predictor, command)
                entries = decides[case] | {"inputs": _inputs(job), "verdict": judged[case]}
                write_text(self.records[case], json.dumps(entries, indent=2) + "\n")
            except Exception as error:
                line = line_of(error)
                if line is None:
                    raise
                failures[case] = line
        what = "could be registered" if dry_run else "registered"
        skipped = f", {len(done)} were done before" if done else ""
        count = f"{len(pending) - len(failures)} of {len(self.jobs)} pairs"
        click.echo(f"{count} {what}{skipped}, {len(failures)} failed")
        self._list(judged, failures, dry_run)
        return 1 if failures else verdict_status([one["verdict"] for one in judged.values() if one], fail_on)

    def _list(self, judged: Mapping[str, dict], failures: Mapping[str, str], dry_run: bool) -> None:
        """Say which cases are not to be trusted, and write the table."""
        for flag in ("review", "reject"):
            for case in [case for case in self.jobs if judged.get(case, {}).get("verdict") == flag]:
                click.echo(f"{flag}: {case}: {judged[case]['reason']}", err=True)
        for case, line in failures.items():
            click.echo(f"failed: {case}: {line}", err=True)
        if not dry_run:
            rows = [{"case_id": case, "failed": failures.get(case, ""), **judged.get(case, {})} for case in self.jobs]
            write_cases(self.table, rows)
            click.echo(f"wrote {self.table}")


def _registered(case: str, job: Job, settings: Settings, predictor, command: Sequence[str]) -> dict:
    """Do a job, say how it went; its verdict and scores."""
    result = job.run(settings, predictor, command)
    if result.affine is not None:
        tqdm.write(f"{case}: {result.affine}")
    tqdm.write(f"{case}: {result.outcomes[0].line}; {result.verdict.flag}; {result.seconds:.1f} s")
    for doubt in result.doubts:
        click.echo(f"warning: {case}: {doubt}", err=True)
    return {
        "verdict": result.verdict.flag,
        "reason": result.verdict.reason,
        **result.outcomes[0].checks.scores(),
    }


def pairs_of(table: Path) -> dict[str, dict[str, Path]]:
    """Paths of `COLUMNS` by the case of each row, relative to the table; cases without a name are numbered.

    Raises:
        ValueError: as `read_table`, a name that no folder can have, or two cases of one name.
    """
    cases = {}
    for number, (line, cells) in enumerate(read_table(table, COLUMNS), start=1):
        case = cells.get("case") or f"pair-{number:04d}"
        if not re.fullmatch(r"\w[\w.+-]*", case):
            raise ValueError(f"{table}, line {line}: the case {case!r} cannot be the name of a folder")
        if case in cases:
            raise ValueError(f"{table}, line {line}: there is a case {case} already")
        cases[case] = {name: table.parent / cells[name] for name in COLUMNS[:-1] if cells.get(name)}
    return cases


def _job(row: dict[str, Path], folder: Path, outputs: dict[str, Path]) -> Job:
    labels, wanted = row.get("moving_labels"), dict(outputs)
    moved_labels = wanted.pop("labels_out", _LABELS)
    if labels is not None:
        wanted["labels_out"] = moved_labels
    paths = {name: folder / path for name, path in wanted.items()}
    return Job(row["moving"], row["fixed"], labels, row.get("mask"), paths)


def _decides(settings: Settings) -> dict:
    """What must be the same, beside files, for results to be those asked for."""
    model = find_model(settings.model)
    stored = sha256_of(model) if Path(model).exists() else model
    return {"settings": asdict(settings) | {"model": stored}}


def _names(job: Job) -> dict:
    return {"outputs": {name: path.name for name, path in sorted(job.outputs.items())}}


def _inputs(job: Job) -> dict:
    """Files by option, with size and time of change: another image is another case."""

    def about(path: Path) -> list:
        stat = path.stat()
        return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    return {option: about(path) for option, path in job.inputs.items()}


def _is_done(job: Job, record: Path, decides: dict) -> bool:
    if not record.is_file() or not all(path.exists() for path in [*job.outputs.values(), *job.inputs.values()]):
        return False
    try:
        told = json.loads(record.read_text())
        return {name: told.get(name) for name in (*decides, "inputs")} == decides | {"inputs": _inputs(job)}
    except (ValueError, AttributeError):
        return False


def _verdict_of(record: Path) -> dict:
    """Verdict and scores of a case that is done; empty where it was done before there were any."""
    return json.loads(record.read_text()).get("verdict", {})
