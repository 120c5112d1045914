"""A table of pairs divided among processes that know nothing of each other, and their tables put together again."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import click

from hetmorph.cli.messages import FileVerb
from hetmorph.cli.options import FILE, dry_run
from hetmorph.cohort.shards import WHOLE, Shard


class ShardType(click.ParamType):
    """`I/N`, from 1/N to N/N."""

    name = "I/N"

    def convert(self, value, param, ctx):
        try:
            return value if isinstance(value, Shard) else Shard.of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=FileVerb, epilog="\b\nExample:\n  hetmorph merge --out results")
@click.option("--out", required=True, type=FILE, help="Folder of hetmorph register --pairs --shard.")
@dry_run
def merge(out: Path, dry_run: bool) -> int:
    """Put the tables of all shards of a cohort together: cases.csv of cases-1-of-N.csv to cases-N-of-N.csv.

    Nothing is computed; direction, frame and units are those of register. It may be called again whenever a shard was.
    """
    tables = _complete(out)
    rows = [row for table in tables for row in _rows(table)]
    failed = sum(bool(row.get("failed")) for row in rows)
    if not dry_run:
        _write(out / WHOLE.table, rows)
    done = "would write" if dry_run else "wrote"
    click.echo(f"{done} {out / WHOLE.table}: {len(rows)} cases of {len(tables)} shards, {failed} failed")
    return 1 if failed else 0


def _write(path: Path, rows: list[dict]) -> None:
    """Write a table of cases, in the order of their names."""
    from hetmorph.evaluation import write_cases

    write_cases(path, sorted(rows, key=lambda row: row["case_id"]))


def _complete(out: Path) -> list[Path]:
    """The tables of all shards of one division."""
    found = {path: re.fullmatch(r"cases-(\d+)-of-(\d+)\.csv", path.name) for path in out.glob("cases-*-of-*.csv")}
    parts = {path: (int(match[1]), int(match[2])) for path, match in found.items() if match}
    counts = sorted({count for _, count in parts.values()})
    if len(counts) != 1:
        seen = f"those of {' and of '.join(map(str, counts))} shards" if counts else "none"
        raise ValueError(
            f"{out}: expected the tables of one division, cases-1-of-N.csv to cases-N-of-N.csv, found {seen}"
        )
    missing = [number for number in range(1, counts[0] + 1) if (number, counts[0]) not in parts.values()]
    if missing:
        raise ValueError(f"{out}: expected a table of each shard, found none of {Shard(missing[0], counts[0]).table}")
    return sorted(parts, key=lambda path: parts[path])


def _rows(table: Path) -> list[dict]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
