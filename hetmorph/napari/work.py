"""What the plug-in does with two images, without a viewer: it registers them as `hetmorph register` does.

What it returns is of arrays and of `hetmorph.io`, so that it can be told to a process without TensorFlow.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hetmorph.io import DataWarning, Grid, Image, Transform, provenance, resample

if TYPE_CHECKING:
    from hetmorph.registration import Registration


@dataclass(frozen=True, eq=False)
class Found:
    """Two images, registered.

    Attributes:
        transform: on the grid of the fixed image, to the moving one.
        moved: `[*S]` the moving image on that grid.
        moving: grid of the moving image.
        flag, reason: the verdict.
        uncertainty_mm: `[*S]` standard deviation of the displacement, mm, NaN where not known; None if not asked for.
        bound_mm: `[*S]` bound of the displacement's error on the fixed grid, mm, NaN where not known; None without a
            calibration beside the model.
        notes: sentences for the user.
        about: where the result comes from, for the file beside it.
    """

    transform: Transform
    moved: np.ndarray
    moving: Grid
    flag: str
    reason: str
    uncertainty_mm: np.ndarray | None = None
    bound_mm: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    about: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """What was wrong with the images or the options, in one line."""

    line: str


def register(
    moving: Image, fixed: Image, options: dict, uncertain: bool = False, say: Callable[[str], None] = print
) -> Found | Refusal:
    """The same as `steps` to the end.

    Args:
        moving, fixed, options, uncertain: as of `steps`.
        say: is told what is done next.
    """
    return last_of(steps(moving, fixed, options, uncertain), say)


def last_of(run: Generator, say: Callable[[str], None] = lambda _: None):
    """What a generator returns.

    Args:
        run: the generator.
        say: is told what it yields.
    """
    while True:
        try:
            say(next(run))
        except StopIteration as end:
            return end.value


def phantom() -> dict:
    """A pair of the built-in phantom of a heart: its `spacing`, mm, and the arrays `[X, Y]` by their phase."""
    from hetmorph.cli.messages import import_tensorflow

    import_tensorflow()
    from hetmorph import data

    pair = data.load("phantom", split="test").pairs[3]
    return {"spacing": pair.spacing, "end-diastole": pair.moving, "end-systole": pair.fixed}


def steps(moving: Image, fixed: Image, options: dict, uncertain: bool = False) -> Generator[str, None, Found | Refusal]:
    """Register, and say what is done next before each step.

    Args:
        moving, fixed: the images.
        options: options of `cli.register_job.Settings`.
        uncertain: whether to map the uncertainty, and where the model has a calibration, the bound of its error.

    Returns:
        What was found, or why nothing was: what the command line says in its one line on stderr.
    """
    yield "loading the model"
    from hetmorph.cli.messages import import_tensorflow, line_of

    import_tensorflow()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = yield from _found(moving, fixed, options, uncertain)
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        return Refusal(line)
    found.notes.extend(dict.fromkeys(str(one.message) for one in caught if _is_of_the_data(one.category)))
    return found


def _is_of_the_data(category: type[Warning]) -> bool:
    from hetmorph.instance import RefinementWarning

    return issubclass(category, (DataWarning, RefinementWarning))


def _found(moving: Image, fixed: Image, options: dict, uncertain: bool) -> Generator[str, None, Found]:
    from hetmorph import registration
    from hetmorph.cli.models import find_model
    from hetmorph.cli.outcome import Outcome
    from hetmorph.cli.register_job import Settings
    from hetmorph.uncertainty import estimate
    from hetmorph.viz import verdict

    settings = Settings(**options)
    settings.check()
    predictor, (calibration, note) = (
        settings.predictor(few=not uncertain),
        settings.judging() if uncertain else (None, ""),
    )
    if calibration is not None:  # its bound is of maps made as it says
        known = {name: calibration.about[name] for name in ("draws", "seed") if name in calibration.about}
        settings = replace(settings, **known)
    affine, notes = None, [note] if note else []
    if settings.aligns:
        yield f"looking for the {settings.affine} transform"
        affine = registration.align(moving, fixed, settings.affine)
        notes.append(str(affine))
    yield f"registering, {settings.draws} times more for the uncertainty" if uncertain else "registering"
    draws = functools.partial(estimate, settings.estimate, n=settings.draws, seed=settings.seed, progress=False)
    result = registration.register(
        moving, fixed, predictor, settings.spacing, estimate=draws if uncertain else None, affine=affine
    )
    case, maps = _case(result, fixed), {} if result.map is None else {settings.estimate: result.map}
    if calibration is not None:
        yield "bounding the error"
        maps |= _missing_maps(calibration, case, predictor, maps)
    outcome = Outcome.of(result, fixed, None, None)
    said = verdict(case, maps, calibration, outcome.checks)
    inputs = {"moving": moving.path, "fixed": fixed.path}
    about = provenance(["napari"], find_model(settings.model), inputs, settings=asdict(settings), verdict=said.told())
    return Found(
        transform=result.transform,
        moved=result.moved,
        moving=result.moving,
        flag=said.flag,
        reason=said.reason,
        uncertainty_mm=result.uncertainty_mm,
        bound_mm=_bound_mm(said.bound, result, fixed),
        notes=[*notes, *outcome.lines()],
        about=about,
    )


def _case(result: Registration, fixed: Image):
    """The pair as the model saw it."""
    from hetmorph.data import Pair

    return Pair(fixed.path.name, "", None, None, *result.seen, None, None, result.grid.spacing)


def _missing_maps(calibration, case, predictor, maps: dict) -> dict:
    """What a calibration combines beside the map that was made."""
    from hetmorph.uncertainty import calibrated_estimates

    estimates = calibrated_estimates(calibration, predictor)
    return {name: estimate(case) for name, estimate in estimates.items() if name not in maps}


def _bound_mm(bound: np.ndarray | None, result: Registration, fixed: Image) -> np.ndarray | None:
    """On the fixed grid; of voxels that are not cubes the longest side counts along which anything moves."""
    if bound is None:
        return None
    sides = result.grid.spacing[:2] if result.by_slice else result.grid.spacing
    return resample(bound * max(sides), result.grid, fixed.grid, outside=np.nan).astype(np.float32)
