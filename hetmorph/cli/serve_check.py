"""`hetmorph serve-check`: does an export, or a server, do what its clients expect?"""

from __future__ import annotations

import click

from hetmorph.cli.options import dry_run
from hetmorph.cli.quiet import Verb


@click.command(
    "serve-check",
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  hetmorph serve-check saved_models/heart --model runs/het/model.keras\n"
    "  hetmorph serve-check grpc://localhost:8500/heart --model saved_models/heart",
)
@click.argument("target")
@click.option("--model", metavar="NAME|PATH", help="Compare the numbers with this one, as for register.")
@click.option("--size", metavar="N[xN…]", help="Of the random pair, voxels, as 128x128. Default: 32 along each axis.")
@dry_run
def serve_check(target: str, model: str | None, size: str | None, dry_run: bool) -> int:
    """Look at TARGET as a client would: a SavedModel's folder, or a server's grpc://, grpcs://, http(s):// address.

    Signatures, operations, numbers, warm-up, labels; a server also gets requests that it must refuse and survive. The
    units are those of an export: images in 0 … 1, the displacement in voxels, frame and grid of the fixed image,
    direction moved(x) = moving(x + u(x)). Nothing is written. Exit status 1 if a check fails.
    """
    from hetmorph.cli.export import sizes_of
    from hetmorph.cli.models import find_model
    from hetmorph.serving import check, is_endpoint

    reference = None if model is None else find_model(model)
    shape = None if size is None else sizes_of(size)
    if not is_endpoint(target):
        target = find_model(target)
    if dry_run:
        click.echo(f"would check {target}" + (f" against {reference}" if reference else ""))
        return 0
    results = check(target, reference, shape)
    for result in results:
        click.echo(str(result))
    return 1 if any(result.passed is False for result in results) else 0
