"""A model by its name or path, what lies beside it, and what goes on from its answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hetmorph.cli.files import refuse

SHIPPED = "universal_2d"
INSTANCE_OF = ("field", "network", "codes")
OF_MODEL = INSTANCE_OF[1:]  # what the model was trained by goes on
# of `instance.SIMILARITIES`
INSTANCE_LAMBDA = {"ncc": 0.3, "mse": 0.01, "mind": 0.1, "mi": 0.3, "ngf": 0.1, "lncc": 0.3, "lncc2": 0.3}
CALIBRATION, NO_CALIBRATION = "calibration.json", "none"


def find_model(name: str) -> str:
    """The path of a model, or as it is: the name of a program, the address of a model on a server.

    Raises:
        ValueError: no such file, and no such name in any of `hetmorph.presets.model_folders()`.
    """
    from hetmorph.evaluation import PROGRAMS
    from hetmorph.presets import find
    from hetmorph.serving import is_endpoint

    if name in PROGRAMS or is_endpoint(name):
        return name
    try:
        return str(find(name))
    except ValueError as error:
        raise ValueError(f"{error}; programs: {', '.join(PROGRAMS)}") from error


def load_model(name: str, passes: int = 1, threads: int | None = None, compiled: bool = False, few: bool = False):
    """The predictor of a path, a program or an address; the arguments are those of `hetmorph.evaluation.load`.

    Raises:
        ValueError: options that do not go with it; others as `hetmorph.evaluation.load`.
    """
    from hetmorph.evaluation import load
    from hetmorph.serving import ServedPredictor, is_endpoint

    if not is_endpoint(name):
        return load(name, threads, passes, compiled, few)
    for option, given in (("--threads", threads is not None), ("--passes", passes != 1)):
        if given:
            raise ValueError(f"{option} is not for a model on a server")
    return ServedPredictor(name)


def described(name: str) -> str:
    """One line: which model this is and for what it was made.

    Args:
        name: what `find_model` gives.

    Raises:
        ValueError: as `hetmorph.presets.card`.
    """
    from hetmorph.evaluation import PROGRAMS
    from hetmorph.presets import CARD, card
    from hetmorph.serving import is_endpoint

    if name in PROGRAMS:
        return f"model: {name}, a program for images of any kind"
    if is_endpoint(name):
        return f"model: {name}, on a server"
    return f"model: {card(name) or f'{name} (no {CARD} beside it says for what it was made)'}"


@dataclass(frozen=True)
class Optimisation:
    """What --instance-optimise and the options that go with it ask for.

    Attributes:
        iterations: at each resolution; None or 0 leaves the model's answer as it is.
        of: "field", as None, or what the model was trained by goes on: "network", its weights, or "codes", those that
            a model of coordinates predicts.
        similarity: the image loss, of `instance.SIMILARITIES`; None takes local correlation, and of a model's own
            losses leaves the image loss.
        window: side of the windows of local correlation, voxels; None suits the image, 0 takes mean squares instead.
        smoothness: λ; None takes that of the image loss.
    """

    iterations: int | None
    of: str | None = None
    similarity: str | None = None
    window: int | None = None
    smoothness: float | None = None

    @classmethod
    def asked(cls, options) -> Optimisation:
        """By options called `instance_…`, those of `Settings` or of argparse."""
        names = ("optimise", "of", "similarity", "window", "lambda")
        return cls(*(getattr(options, f"instance_{name}") for name in names))

    def check(self) -> None:
        """Refuse options that nothing asks for, and the weights of what the model has its own; ValueError."""
        iterations, window, similarity = self.iterations, self.window, self.similarity
        of_model = self.of in OF_MODEL
        of_loss = any(option is not None for option in (similarity, window, self.smoothness))
        fitting = {"ncc": window != 0, "mse": window == 0}.get(similarity, similarity is None) or window is None
        refuse(
            {
                "--instance-of, --instance-similarity, --instance-window and --instance-lambda have no effect without "
                "--instance-optimise": iterations is None and (of_loss or self.of),
                f"--instance-optimise must be 0 or more iterations, received {iterations}": (iterations or 0) < 0,
                f"--instance-window must be 0 or more voxels, received {window}": (window or 0) < 0,
                f"--instance-window {window} has no effect with --instance-similarity {similarity}: windows are of "
                "ncc, and 0 is mse": not fitting,
                f"--instance-window has no effect with --instance-of {self.of} without --instance-similarity ncc": (
                    of_model and window is not None and similarity != "ncc"
                ),
                f"--instance-lambda has no effect with --instance-of {self.of}, which goes on with the terms and "
                "weights that the model was trained by": of_model and self.smoothness is not None,
            }
        )

    def after(self, predictor):
        """The predictor, followed by what is asked for.

        Args:
            predictor: the model's `evaluation.Predictor`, for those loaded with what it was trained by.
        """
        from hetmorph.instance import LocalCorrelation, Refined

        self.check()
        if not self.iterations:
            return predictor
        if self.of in OF_MODEL:
            how = getattr(getattr(predictor, "model", None), "refining", {})
            other = LocalCorrelation(self.window).loss if self.similarity == "ncc" else self.similarity
            return Refined(predictor, self.iterations, of=self.of, loss="own", similarity=other, **how)
        name = self.similarity or ("mse" if self.window == 0 else "ncc")
        loss = LocalCorrelation(self.window).loss if name == "ncc" else name
        return Refined(predictor, self.iterations, loss=loss, smoothness=self.smoothness)


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


def affine_of_run(model: str) -> tuple[str, Path | None]:
    """The kind of the affine stage that a model was trained behind, "none" for none, and the file that says so.

    Args:
        model: what `find_model` gives.
    """
    from hetmorph import config
    from hetmorph.serving import is_endpoint

    stored = None if is_endpoint(model) else beside(model, "config.yaml")
    kind = "none" if stored is None else config.load(stored).data.affine
    return (kind, stored) if kind != "none" else ("none", None)


def identity(model: str, passes: int = 1) -> dict:
    """What tells a model from another, wherever its files lie; JSON values.

    Args:
        model: path, program or address.
        passes: how often it is applied.
    """
    from hetmorph.io.sidecar import sha256_of
    from hetmorph.stored import savedmodel_folder

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

    path = beside(model, CALIBRATION) if given is None else Path(given)
    if given == NO_CALIBRATION or path is None:
        return None, ""
    try:
        calibration = Calibration.load(path)
    except ValueError as error:
        if given is not None:
            raise
        return None, f"not used: {error}"
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
