"""`hetmorph export`: a model as SavedModel or ONNX; `serve-check`: does it, or a server, do what clients expect?"""

import click

from hetmorph.cli.messages import Verb
from hetmorph.cli.options import FILE, dry_run

_OF_SAVEDMODELS = ("version", "warmup", "deploy")


@click.command(
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  hetmorph export --model runs/het/model.keras --out saved_models/mine\n"
    "  hetmorph export --model universal_2d --format onnx --size 128x128 --out universal.onnx",
)
@click.option(
    "--model",
    metavar="NAME|PATH",
    required=True,
    help="A .keras file of hetmorph; the name of a model of `hetmorph models`, or the folder of one.",
)
@click.option(
    "--out",
    required=True,
    type=FILE,
    help="Folder of all versions of the model, made if missing; with --format onnx the file, NAME.onnx.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(("savedmodel", "onnx")),
    default="savedmodel",
    show_default=True,
    help="onnx needs the extra onnx.",
)
@click.option("--size", metavar="N[xN…]", help="Of --format onnx: the one image size it takes. Default: any.")
@click.option(
    "--version", type=click.IntRange(0), help="Folder name inside --out. Default: one above the largest there is."
)
@click.option(
    "--warmup", multiple=True, metavar="N[xN…]", help="Image size that a server registers when it loads this."
)
@click.option("--deploy", is_flag=True, help="Write models.config, Dockerfile, compose.yaml … beside the versions.")
@dry_run
def export(model: str, out, kind: str, size: str | None, dry_run: bool, **of_savedmodels) -> int:
    """Write a model as SavedModel, for TensorFlow Serving or anything that runs TensorFlow; or as ONNX.

    Its signature `register` takes moving and fixed [B, *S, 1], float32 in 0 … 1, of any size, and returns the
    displacement [B, *S, N], frame of the fixed image, direction moved(x) = moving(x + u(x)); and moved. Units: voxels.
    A file of ONNX is that signature, with log_variance and weight of a model with a variance network. It is compared
    with the model on a random pair: exit status 2, and nothing written, above 0.001 voxels. More: docs/deploying.md.
    """
    exported = _keras_model(model)
    if kind == "savedmodel":
        if size is not None:
            raise ValueError("--size is of --format onnx; a SavedModel takes images of any size")
        return _export_savedmodel(exported, out, dry_run=dry_run, **of_savedmodels)
    for name in _OF_SAVEDMODELS:
        if of_savedmodels[name] not in (None, (), False):
            raise ValueError(f"--{name} is of --format savedmodel; a file of ONNX has no versions and no server here")
    return _export_onnx(exported, out, None if size is None else sizes_of(size), dry_run)


def _keras_model(name: str):
    """The model of a .keras file, or of a preset's folder; ValueError for what can only be run."""
    from hetmorph.evaluation import load
    from hetmorph.evaluation.predictor import ModelPredictor
    from hetmorph.presets import find, from_preset

    path = find(name)
    if path.is_dir():
        return from_preset(path)
    loaded = load(path)
    if not isinstance(loaded, ModelPredictor):
        raise ValueError(f"--model {name}: expected a .keras file")
    return loaded.model


def _export_savedmodel(model, out, version: int | None, warmup: tuple[str, ...], deploy: bool, dry_run: bool) -> int:
    from hetmorph import serving

    if version is not None and (out / str(version)).exists():
        raise ValueError(f"{out / str(version)} exists; versions are never overwritten")
    sizes = [sizes_of(size) for size in warmup]
    if dry_run:
        click.echo(f"would write {out / ('<next version>' if version is None else str(version))}")
        return 0
    click.echo(f"wrote {serving.export_savedmodel(model, out, version, sizes)}")
    if deploy:
        for path in serving.deploy(out).files:
            click.echo(f"wrote {path}")
    return 0


def _export_onnx(model, out, size: tuple[int, ...] | None, dry_run: bool) -> int:
    from hetmorph.serving.onnx import check_target, export_onnx

    check_target(model, out, size)
    if dry_run:
        click.echo(f"would write {out}")
        return 0
    differences = export_onnx(model, out, size)
    click.echo(f"wrote {out}")
    if differences is None:
        click.echo('not compared with the model: this needs onnxruntime, pip install ".[onnx]"')
    else:
        found = ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
        click.echo(f"largest differences from the model, displacements in voxels: {found}")
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
