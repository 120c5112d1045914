"""`hetmorph convert-weights`: weights that others have trained, as a model of hetmorph."""

from __future__ import annotations

import math
from pathlib import Path

import click

from hetmorph.cli.messages import Verb
from hetmorph.cli.options import FILE, dry_run

UNIGRADICON, VOXELMORPH_2018 = SOURCES = ("unigradicon", "voxelmorph-2018")
_CARDS = {
    UNIGRADICON: {
        "purpose": "registers images of many anatomies, each resized from its own field of view",
        "anatomy": "any; uniGradICON: lung, knee, brain, abdomen",
        "modality": "CT and MR, scaled by modality",
        "training_data": "that of the checkpoint's authors",
    },
    VOXELMORPH_2018: {
        "purpose": "registers a brain to an atlas that it is aligned to",
        "anatomy": "brain without skull",
        "modality": "T1 MR, 1 mm",
        "training_data": "that of VoxelMorph's authors, 2018",
    },
}


@click.command(
    "convert-weights",
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  hetmorph convert-weights --from unigradicon Step_2_final.trch --to models/unigradicon\n"
    "  hetmorph convert-weights --from voxelmorph-2018 cvpr2018_vm2_cc.h5 --to models/vm2_cc",
)
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Choice(SOURCES),
    help="unigradicon: checkpoint of PyTorch of uniGradICON, multiGradICON or GradICON; PyTorch is not needed, and "
    "nothing in the file is run. voxelmorph-2018: .h5 of the networks vm1 and vm2.",
)
@click.argument("file", type=FILE)
@click.option(
    "--to",
    "folder",
    required=True,
    type=FILE,
    help="Folder to write, for hetmorph register --model; its name is the model's.",
)
@click.option(
    "--size",
    metavar="N[xN…]",
    help="Of unigradicon: voxels that every image is resized to, which the file does not say. Default: 175x175x175, as "
    "published.",
)
@dry_run
def convert_weights(source: str, file: Path, folder: Path, size: str | None, dry_run: bool) -> int:
    """Make a model of weights that others have trained: a folder that register, train and export take.

    Its result is the displacement u as everywhere: frame of the fixed image, direction moved(x) = moving(x + u(x)),
    units of voxels inside the model. What was compared with the originals: docs/many-anatomies.md.
    """
    from hetmorph.cli.export import sizes_of
    from hetmorph.networks.preset import CARD, write_preset

    if size is not None and source != UNIGRADICON:
        raise ValueError(f"--size has no effect on --from {source}, whose networks take images of any size")
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--to {folder}: expected a new or an empty folder")
    model = _converted(source, file, None if size is None else sizes_of(size))
    seen = f", images resized to {' × '.join(map(str, model.inshape))} voxels" if source == UNIGRADICON else ""
    count = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    click.echo(f"{file}: {count:,} weights, of {len(model.inshape)}-D images{seen}")
    if dry_run:
        click.echo(f"would write {folder}")
        return 0
    card = {"name": folder.name, **_CARDS[source], "ndims": len(model.inshape), "direction": "moving to fixed"}
    write_preset(model, folder, card | {"converted_from": file.name})
    click.echo(f"wrote {folder} ({CARD} says what it is); hetmorph register --model {folder}")
    return 0


def _converted(source: str, file: Path, size):
    from hetmorph import convert

    if source == VOXELMORPH_2018:
        return convert.convert_voxelmorph_2018(file)
    checkpoint = convert.read_checkpoint(file)
    try:
        return convert.convert_unigradicon(checkpoint, **({} if size is None else {"inshape": size}))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
