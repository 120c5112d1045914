"""`hetmorph bids`: the sessions of each participant of a BIDS data set, registered to the first."""

from pathlib import Path

import click

from hetmorph.cli.messages import Verb
from hetmorph.cli.options import FILE, affine_options, dry_run, fail_on, model_options

_RESULTS = ("moved", "transform", "inverse", "jacobian")
_RECORDS = "hetmorph"


@click.command(
    cls=Verb,
    epilog="\b\nExample:\n  hetmorph bids study derivatives/hetmorph participant --participant-label 01 --suffix T1w",
)
@click.argument("data_set", metavar="INPUT", type=FILE)
@click.argument("output", metavar="OUTPUT", type=FILE)
@click.argument("level", metavar="participant", type=click.Choice(("participant",)))
@click.option(
    "--participant-label",
    "--participant_label",
    "participants",
    multiple=True,
    metavar="LABELS",
    help="Only these participants, with or without sub-: several in quotes, or the option repeated.",
)
@click.option(
    "--suffix", default="T1w", show_default=True, help="What the images are of: the last word of their names."
)
@click.option("--datatype", default="anat", show_default=True, help="Folder of a session that they lie in.")
@click.option("--skull-stripped", is_flag=True, help="The images show no skull, which BIDS wants to know of results.")
@affine_options
@model_options
@fail_on
@dry_run
@click.pass_obj
def bids(
    command: list[str],
    data_set,
    output,
    level,
    participants,
    suffix,
    datatype,
    skull_stripped: bool,
    fail_on: str,
    dry_run: bool,
    **options,
) -> int:
    """Register the later sessions of each participant to the first, as a BIDS app.

    INPUT is a BIDS data set, OUTPUT becomes a data set of derivatives. Images that differ in their session only belong
    together. Direction: the later image is moved, moved(x) = moving(x + u(x)), x in the image of the first session.
    Units and frame: displacements are in millimetres, LPS. What is done is not done again.
    """
    from hetmorph.cli.batch import Cohort
    from hetmorph.cli.register_job import Job, Settings
    from hetmorph.io.bids import bids_names, describe_dataset, follow_ups, session_of

    for flag, given in (("--mask", options.pop("mask")), ("--affine-out", options.pop("affine_out"))):
        if given is not None:
            raise click.UsageError(f"{flag} is of one pair, and there are many here.")
    labels = [label for words in participants for label in words.replace(",", " ").split()]
    pairs, without = follow_ups(data_set, suffix, datatype, labels or None)
    jobs = {}
    for case, (first, later) in pairs.items():
        folder = output / later.relative_to(data_set).parent
        names = bids_names(later, session_of(first), session_of(later))
        facts = {
            "Sources": [f"bids:raw:{image.relative_to(data_set).as_posix()}" for image in (first, later)],
            "SpatialReference": f"bids:raw:{first.relative_to(data_set).as_posix()}",
            "SkullStripped": skull_stripped,
        }
        outputs = {name: folder / names[name] for name in _RESULTS}
        jobs[case] = Job(later, first, outputs=outputs, facts=facts), output / _RECORDS / f"{case}.json"
    for line in without:
        click.echo(f"left out: {line}", err=True)
    if not jobs:
        raise ValueError(f"{data_set}: nothing to register")
    if not dry_run:
        _prepare(output, data_set)
        describe_dataset(output, data_set)
    return Cohort(jobs, output / _RECORDS / "cases.csv").run(Settings(**options), command, dry_run, fail_on)


def _prepare(output: Path, data_set: Path) -> None:
    """What BIDS does not know of, and the text that it wants of every data set."""
    from hetmorph.io.atomic import write_text

    write_text(output / ".bidsignore", f"{_RECORDS}\n*_xfm.*\n")
    if not (output / "README").exists():
        text = f"Later sessions of {data_set} registered to the first by hetmorph. Verdicts: {_RECORDS}/cases.csv\n"
        write_text(output / "README", text)
