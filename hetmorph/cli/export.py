"""`hetmorph export`: a trained model as SavedModel; `serve-check`: does it, or a server, do what clients expect?"""

from __future__ import annotations

import click

from hetmorph.cli.messages import Verb
from hetmorph.cli.options import FILE, dry_run


@click.command(cls=Verb, epilog="\b\nExample:\n  hetmorph export --model runs/het/model.keras --out saved_models/mine")
@click.option("--model", required=True, type=FILE, help="A .keras file of hetmorph.")
@click.option("--out", required=True, type=FILE, help="Folder of all versions of the model; made if missing.")
@click.option(
    "--version", type=click.IntRange(0), help="Folder name inside it. Default: one above the largest there is."
)
@click.option(
    "--warmup", multiple=True, metavar="N[xN…]", help="Image size that a server registers when it loads this."
)
@click.option("--deploy", is_flag=True, help="Write models.config, Dockerfile, compose.yaml … beside the versions.")
@dry_run
def export(model, out, version: int | None, warmup: tuple[str, ...], deploy: bool, dry_run: bool) -> int:
    """Write a model as SavedModel, for TensorFlow Serving or anything that runs TensorFlow.

    Its signature `register` takes moving and fixed [B, *S, 1], float32 in 0 … 1, of any size, and returns the
    displacement [B, *S, N], frame of the fixed image, direction moved(x) = moving(x + u(x)); and moved. Units: voxels.
    More on serving it: docs/deploying.md.
    """
    from hetmorph import serving
    from hetmorph.evaluation import load
    from hetmorph.evaluation.predictor import ModelPredictor

    if not model.exists():
        raise ValueError(f"--model {model}: no such file")
    loaded = load(model)
    if not isinstance(loaded, ModelPredictor):
        raise ValueError(f"--model {model}: expected a .keras file")
    if version is not None and (out / str(version)).exists():
        raise ValueError(f"{out / str(version)} exists; versions are never overwritten")
    sizes = [sizes_of(size) for size in warmup]
    if dry_run:
        click.echo(f"would write {out / ('<next version>' if version is None else str(version))}")
        return 0
    click.echo(f"wrote {serving.export_savedmodel(loaded.model, out, version, sizes)}")
    if deploy:
        for path in serving.deploy(out).files:
            click.echo(f"wrote {path}")
    return 0


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


def sizes_of(text: str) -> tuple[int, ...]:
    """The voxels along each axis in "128x128"; ValueError for anything else."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"expected a size such as 128x128 or 64x64x32, received {text!r}")
    return tuple(map(int, parts))
