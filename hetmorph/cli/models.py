"""A model by its name or path, and what goes on from its answer."""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = "acdc_vxm_het"
INSTANCE_LAMBDA = 0.01
_PACKAGE = Path(__file__).resolve().parents[1]


def model_folders() -> list[Path]:
    """Where models are looked for by name: HETMORPH_MODELS, the clone that the package is in, the package itself."""
    given = [Path(folder) for folder in os.environ.get("HETMORPH_MODELS", "").split(os.pathsep) if folder]
    return [*given, _PACKAGE.parent / "saved_models", _PACKAGE / "saved_models"]


def find_model(name: str) -> str:
    """The path of a model, or as it is: the name of a program, the address of a model on a server.

    Raises:
        ValueError: no such file, and no such name in any of `model_folders()`.
    """
    from hetmorph.evaluation import PROGRAMS
    from hetmorph.serving import is_endpoint

    if name in PROGRAMS or is_endpoint(name) or Path(name).exists():
        return name
    folders = model_folders()
    if Path(name).name == name:
        for folder in folders:
            if (folder / name).is_dir():
                return str(folder / name)
    known = sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()})
    raise ValueError(
        f"no model {name!r}: no such file or folder, and none of that name in {', '.join(map(str, folders))} "
        f"(HETMORPH_MODELS adds folders; there are: {', '.join(known) or 'none'}; programs: {', '.join(PROGRAMS)})"
    )


def load_model(name: str, passes: int = 1, threads: int | None = None):
    """The predictor of a path, a program or an address.

    Raises:
        ValueError: options that do not go with it; others as `hetmorph.evaluation.load`.
    """
    from hetmorph.evaluation import load
    from hetmorph.serving import ServedPredictor, is_endpoint

    if not is_endpoint(name):
        return load(name, threads, passes)
    for option, given in (("--threads", threads is not None), ("--passes", passes != 1)):
        if given:
            raise ValueError(f"{option} is not for a model on a server")
    return ServedPredictor(name)


def check_instance(iterations: int | None, window: int | None, smoothness: float | None) -> None:
    """Refuse options of an optimisation that nothing asks for."""
    if iterations is None and (window is not None or smoothness is not None):
        raise ValueError("--instance-window and --instance-lambda have no effect without --instance-optimise")


def optimised(predictor, iterations: int | None, window: int | None, smoothness: float | None):
    """The predictor, followed by what --instance-optimise asks for, if it does."""
    from hetmorph.instance import Refined
    from hetmorph.losses import MSE, NCC

    check_instance(iterations, window, smoothness)
    if iterations is None:
        return predictor
    loss = MSE().loss if window is None else NCC(window).loss
    smoothness = INSTANCE_LAMBDA if smoothness is None else smoothness
    return Refined(predictor, iterations, loss=loss, smoothness=smoothness)
