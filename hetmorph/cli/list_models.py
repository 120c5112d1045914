"""`hetmorph models`: which models there are by name, and for what they were made."""

import click

from hetmorph.presets import card, models


@click.command("models", epilog="\b\nExample:\n  HETMORPH_MODELS=~/models hetmorph models")
def list_models() -> None:
    """List the models that --model takes by name, and for what they were made.

    Those of this installation, and of the folders in HETMORPH_MODELS. Direction, frame and unit are those of every
    model: moved(x) = moving(x + u(x)), u in voxels on the grid of the fixed image. `hetmorph.from_preset(NAME)` loads
    one in Python.
    """
    found = list(models())
    for path in found:
        click.echo(f"{card(path) or f'{path.name}: no model.json says for what it was made'}\n  {path}")
    if not found:
        click.echo("none; HETMORPH_MODELS adds folders")
