"""Which calibration judges the registrations of a model: one that was named, or the one beside it."""

from __future__ import annotations

from pathlib import Path

NAME = "calibration.json"
NONE = "none"


def beside(model: str, name: str) -> Path | None:
    """A file in the folder of a model or up to two above it, as for <run>/saved_model/1."""
    from hetmorph.evaluation import PROGRAMS

    if model in PROGRAMS:
        return None
    path = Path(model)
    for folder in [path, *path.absolute().parents[:2]]:
        if (folder / name).is_file():
            return folder / name
    return None


def identity(model: str, passes: int = 1) -> dict:
    """What tells a model from another, wherever its files lie; JSON values.

    Args:
        model: path, program or address.
        passes: how often it is applied.
    """
    from hetmorph.evaluation.predictor import savedmodel_folder
    from hetmorph.io.sidecar import sha256_of

    path = Path(model)
    told = {"model": path.name or model, "passes": passes}
    if not path.exists():
        return told | {"model": model}
    return told | {"sha256": sha256_of(savedmodel_folder(path) if path.is_dir() else path)}


def calibration_of(given: str | None, model: str, passes: int = 1, refined: bool = False, data_set: str | None = None):
    """The calibration to judge by, and a line on it where there is one to say.

    Args:
        given: what --calibration names; None takes the one beside the model if it is of this model, "none" takes none.
        model: path, program or address.
        passes: how often the model is applied.
        refined: whether its answer is optimised further, which no calibration knows of.
        data_set: what is registered, where that has a name; the calibration beside the model must be of it.

    Returns:
        `uncertainty.Calibration` or None; the line or "".

    Raises:
        ValueError: the named calibration is none, or of another model.
    """
    from hetmorph.uncertainty import Calibration

    path = beside(model, NAME) if given is None else Path(given)
    if given == NONE or path is None:
        return None, ""
    calibration = Calibration.load(path)
    problem = _misfit(calibration, identity(model, passes), refined)
    if given is not None and problem:
        raise ValueError(f"--calibration {path}: {problem}")
    known = calibration.about.get("data")
    if given is None and not problem and data_set is not None and known not in (None, data_set):
        problem = f"it is of {known}, not of {data_set}; --calibration takes it nevertheless"
    return (None, f"{path} is not used: {problem}") if problem else (calibration, f"verdicts by {path}")


def _misfit(calibration, model: dict, refined: bool) -> str:
    """Why a calibration does not speak of these registrations, or ""."""
    if refined:
        return "it is of the model alone, whose answer is optimised further here"
    about = calibration.about
    if about.get("passes", model["passes"]) != model["passes"]:
        return f"it is of {about['passes']} passes of the model, here are {model['passes']}"
    files = about.get("sha256"), model.get("sha256")
    if files[0] is not None and files[0] != files[1]:
        return f"it is of another model ({about.get('model')}), whose files have another SHA-256"
    return ""
