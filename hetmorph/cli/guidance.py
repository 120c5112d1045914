"""Masks of the image loss and landmarks of `hetmorph register`: what goes together, is read, and did."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hetmorph.cli.files import option, refuse
from hetmorph.cli.models import NETWORK
from hetmorph.cli.options import POINTS_WEIGHT
from hetmorph.io import DataError, Image, matched_grid, read_points, world_points
from hetmorph.registration import Guidance, Registration

MASKS = ("mask_fixed", "mask_moving")
POINTS = ("points_fixed", "points_moving")


def check_guidance(given: Mapping[str, Path | None], settings, uncertain: bool) -> None:
    """Raise ValueError for what does not go together.

    Args:
        given: paths by a name of `MASKS` and `POINTS`.
        settings: `settings.Settings`.
        uncertain: whether a map of uncertainty is asked for.
    """
    there = [name for name, path in given.items() if path is not None]
    points, masks = [[name for name in there if name in kind] for kind in (POINTS, MASKS)]
    steer = steering(given, settings)
    any_given, first = (option(names[0]) if names else "" for names in (there, steer))
    only = "" if masks else "; --points-weight 0 only measures how far points are off"
    refuse(
        {
            "--points-fixed and --points-moving belong together: the same points in either image": len(points) == 1,
            "--points-weight has no effect without --points-fixed and --points-moving": not points
            and settings.points_weight is not None,
            f"{any_given} is of a pair, not of a sequence": there and settings.of_sequence,
            f"{first} steers the optimisation of a pair, and needs --instance-optimise{only}": steer
            and not settings.instance_optimise,
            f"{first} has no effect on what the model was trained by: leave out --instance-of network": steer
            and settings.instance_of == NETWORK,
            f"--uncertainty registers again without {first}, and would be of another registration": steer and uncertain,
        }
    )


def steering(given: Mapping[str, Path | None], settings) -> list[str]:
    """Names of the files that a registration depends on.

    Args:
        given: paths by a name of `MASKS` and `POINTS`.
        settings: `settings.Settings`.
    """
    names = MASKS if settings.points_weight == 0 else (*MASKS, *POINTS)
    return [name for name in names if given[name] is not None]


def read_guidance(given: Mapping[str, Path | None], read: Mapping[str, Image | None], settings) -> Guidance | None:
    """What the files say; None where none is given.

    Args:
        given: paths by a name of `MASKS` and `POINTS`.
        read: images by their role.
        settings: `settings.Settings`.

    Raises:
        DataError: points that are not as many, or not called alike.
    """
    if not any(given.values()):
        return None
    masks = {name: read[name] for name in MASKS}
    weight = POINTS_WEIGHT if settings.points_weight is None else settings.points_weight
    if given["points_fixed"] is None:
        return Guidance(**masks)
    moving, fixed = read["moving"].trimmed(), read["fixed"].trimmed()
    files = [given[name] for name in POINTS]
    sets = [read_points(path) for path in files]
    counts = [len(one.coordinates) for one in sets]
    if counts[0] != counts[1]:
        raise DataError(f"{files[0]} holds {counts[0]} points, {files[1]} {counts[1]}: expected the same in both.")
    _check_names(files, *(one.names for one in sets))
    grids = fixed.grid, matched_grid(moving, fixed)
    try:
        places = [world_points(s.coordinates, g, settings.points_frame) for s, g in zip(sets, grids, strict=True)]
    except ValueError as error:
        raise DataError(f"{files[0]}, {files[1]}: {error}.") from error
    return Guidance(**masks, **dict(zip(POINTS, places, strict=True)), points_weight=weight)


def landmarks(guidance: Guidance | None, result: Registration, unit: str) -> tuple[dict, list[str], list[str]]:
    """How far points are off, before and after: for the sidecar, as lines for a reader, and as doubts.

    Args:
        guidance: with points or without.
        result: the registration.
        unit: of the distances.
    """
    if guidance is None or guidance.points_fixed is None:
        return {}, [], []
    ways = {"undeformed": result.initial, "by the model alone": result.start, "registered": result.transform}
    if result.start is None or not np.any(result.start.displacement):
        del ways["by the model alone"]
    errors = {name: guidance.distances(way) for name, way in ways.items()}
    used = guidance.points_weight > 0
    what = "that the optimisation was given" if used else "that the registration did not know"
    said = ", ".join(f"{each.mean():.2f} {unit} {name}" for name, each in errors.items())
    worst, count = errors["registered"].max(), len(guidance.points_fixed)
    told = f"target registration error {said} (mean of {count}; largest {worst:.2f}), of points {what}"
    before, after = errors["undeformed"].mean(), errors["registered"].mean()
    doubts = (
        [f"the points lie farther apart than undeformed ({before:.2f} to {after:.2f} {unit})"] if after > before else []
    )
    entries = {"what": f"target registration error of points {what}", "unit": unit, "weight": guidance.points_weight}
    each = {name.replace(" ", "_"): np.round(values, 4).tolist() for name, values in errors.items()}
    means = {name.replace(" ", "_"): round(float(values.mean()), 4) for name, values in errors.items()}
    return {"landmarks": {**entries, "mean": means, "each": each}}, [told], doubts


def _check_names(files: list[Path], ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> None:
    if ours is None or theirs is None:
        return
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if one != other:
            raise DataError(
                f"{files[0]}, {files[1]}: expected the same points in the same order, received {one!r} and {other!r} "
                f"as number {number}."
            )
