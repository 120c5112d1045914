"""`hetmorph export`: a trained model as SavedModel."""

from __future__ import annotations

import click

from hetmorph.cli.options import FILE, dry_run
from hetmorph.cli.quiet import Verb


@click.command(cls=Verb, epilog="\b\nExample:\n  hetmorph export --model runs/het/model.keras --out saved_models/mine")
@click.option("--model", required=True, type=FILE, help="A .keras file of hetmorph.")
@click.option("--out", required=True, type=FILE, help="Folder of all versions of the model; made if missing.")
@click.option(
    "--version", type=click.IntRange(0), help="Folder name inside it. Default: one above the largest there is."
)
@dry_run
def export(model, out, version: int | None, dry_run: bool) -> int:
    """Write a model as SavedModel, for TensorFlow Serving or anything that runs TensorFlow.

    Its signature `register` takes moving and fixed [B, *S, 1], float32 in 0 … 1, of any size, and returns the
    displacement [B, *S, N] in voxels, frame of the fixed image, direction moved(x) = moving(x + u(x)); and moved.
    """
    import keras

    from hetmorph.evaluation import load
    from hetmorph.serving import export_savedmodel

    if not model.exists():
        raise ValueError(f"--model {model}: no such file")
    if model.suffix != ".keras":
        raise ValueError(f"--model {model}: expected a .keras file")
    load(model)  # says what is wrong with the file
    if version is not None and (out / str(version)).exists():
        raise ValueError(f"{out / str(version)} exists; versions are never overwritten")
    if dry_run:
        click.echo(f"would write {out / ('<next version>' if version is None else str(version))}")
        return 0
    click.echo(f"wrote {export_savedmodel(keras.saving.load_model(model, compile=False), out, version)}")
    return 0
