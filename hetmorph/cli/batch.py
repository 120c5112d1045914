"""A table of pairs, one case after the other; what fails is listed at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

from hetmorph.cli.messages import line_of
from hetmorph.cli.models import described, find_model
from hetmorph.cli.register_job import Job, Settings
from hetmorph.data.csv_pairs import read_table
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
) -> int:
    """Register every pair of a table.

    Args:
        table: CSV, see `pairs_of`.
        out: folder; every case has one of its own in it, whose `registration.json` is written last.
        outputs: names of the results within it; none: moved.nii.gz and transform.nii.gz. Where a row names labels,
            they are moved too.
        settings: what decides the results of all pairs beside the images.
        command: the words of the command line.
        resume: leave out what is done with the same settings from the same files.
        dry_run: check every case instead.

    Returns:
        Exit status: 1 if a case failed, else 0.

    Raises:
        ValueError: the table or the settings are wrong, or results are there and not to be resumed.
    """
    settings.check()
    outputs = outputs or DEFAULT
    if wrong := [str(path) for path in outputs.values() if path.name != str(path)]:
        raise ValueError(f"with --pairs, results are file names inside the folder of the case, received {wrong[0]}")
    jobs = {case: _job(row, out / case, outputs) for case, row in pairs_of(table).items()}
    there = [case for case in jobs if (out / case / _DONE).exists()]
    if there and not resume:
        raise ValueError(
            f"{out} holds results of {len(there)} of these cases; go on with --resume, or choose another --out"
        )
    decides = _decides(settings, outputs)
    done = {case for case, job in jobs.items() if _is_done(job, out / case, decides)}
    predictor, failures = settings.predictor(), {}
    click.echo(described(find_model(settings.model)))
    pending = {case: job for case, job in jobs.items() if case not in done}
    for case, job in tqdm(pending.items(), unit="case", disable=True if dry_run else None):
        try:
            job.check(settings)
            if dry_run:
                click.echo("\n".join([f"{case}:", *(f"  {line}" for line in job.preview(settings, predictor))]))
                continue
            result = job.run(settings, predictor, command)
            if result.affine is not None:
                tqdm.write(f"{case}: {result.affine}")
            tqdm.write(f"{case}: {result.outcomes[0].line}; {result.seconds:.1f} s")
            for doubt in result.doubts:
                click.echo(f"warning: {case}: {doubt}", err=True)
            entries = decides | {"inputs": _inputs(job)}
            write_text(out / case / _DONE, json.dumps(entries, indent=2) + "\n")
        except Exception as error:
            line = line_of(error)
            if line is None:
                raise
            failures[case] = line
    skipped = f", {len(done)} were done before" if done else ""
    what = "could be registered" if dry_run else "registered"
    click.echo(f"{len(pending) - len(failures)} of {len(jobs)} pairs {what}{skipped}, {len(failures)} failed")
    for case, line in failures.items():
        click.echo(f"failed: {case}: {line}", err=True)
    return 1 if failures else 0


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


def _decides(settings: Settings, outputs: dict[str, Path]) -> dict:
    """What must be the same for results to be those asked for."""
    model = find_model(settings.model)
    stored = {"sha256": sha256_of(model)} if Path(model).exists() else {}
    return {
        "settings": asdict(settings) | {"model": stored.get("sha256", model)},
        "outputs": {name: str(path) for name, path in sorted(outputs.items())},
    }


def _inputs(job: Job) -> dict:
    """Files by option, with size and time of change: another image is another case."""

    def about(path: Path) -> list:
        stat = path.stat()
        return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    return {option: about(path) for option, path in job.inputs.items()}


def _is_done(job: Job, folder: Path, decides: dict) -> bool:
    marker = folder / _DONE
    if not marker.is_file() or not all(path.exists() for path in [*job.outputs.values(), *job.inputs.values()]):
        return False
    try:
        return json.loads(marker.read_text()) == decides | {"inputs": _inputs(job)}
    except ValueError:
        return False
