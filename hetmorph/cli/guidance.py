"""Intensities, masks, landmarks and labels of `hetmorph register`: what goes together, is read, and did."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hetmorph.cli.files import option, refuse
from hetmorph.cli.options import POINTS_WEIGHT
from hetmorph.data.scale import AIR, CT, MRI
from hetmorph.io import Image, matched_grid, read_landmarks
from hetmorph.registration import Guidance, Intensities, Registration, Scale

MASKS = ("mask_fixed", "mask_moving")
POINTS = ("points_fixed", "points_moving")
LABELS = {"labels_fixed": "labels of the fixed image", "labels_moving": "labels"}  # by what they are read as


def scales(settings) -> tuple[Scale | None, Scale | None]:
    """How the intensities of the moving and the fixed image are scaled; ValueError for what has no effect or no sense.

    Args:
        settings: `register_job.Settings`.
    """
    modalities = settings.modality_moving, settings.modality_fixed
    for flag, given, of in (("--ct-window", settings.ct_window, CT), ("--mri-quantiles", settings.mri_quantiles, MRI)):
        if given is not None and of not in modalities:
            raise ValueError(f"{flag} has no effect without --modality-moving {of} or --modality-fixed {of}")
    bounds = {} if settings.ct_window is None else {"window": tuple(settings.ct_window)}
    bounds |= {} if settings.mri_quantiles is None else {"quantiles": tuple(settings.mri_quantiles)}
    return tuple(None if modality is None else Scale(modality, **bounds) for modality in modalities)


def check_modalities(settings, predictor) -> None:
    """Raise ValueError where a model has to be told of which modality the images are, and is not.

    Args:
        settings: `register_job.Settings`.
        predictor: the model's `evaluation.Predictor`.
    """
    missing = [name for name in ("modality_moving", "modality_fixed") if getattr(settings, name) is None]
    if len(predictor.modalities) > 1 and missing:
        raise ValueError(
            f"{' and '.join(map(option, missing))} {'is' if len(missing) == 1 else 'are'} needed, "
            f"{' or '.join(predictor.modalities)}: this model takes images scaled by their modality"
        )


def intensities(read: Mapping[str, Image | None], settings) -> Intensities | None:
    """What the model is shown of the images, None where each is stretched to [0, 1].

    Args:
        read: images by their role.
        settings: `register_job.Settings`.
    """
    masks = {name: read[name] for name in MASKS} if settings.mask_input else {}
    moving, fixed = scales(settings)
    return Intensities(moving, fixed, **masks) if moving or fixed or masks else None


def check_mass(settings) -> None:
    """Raise ValueError where mass is to be conserved that the images do not tell, or that nothing looks at.

    Args:
        settings: `register_job.Settings`.
    """
    if not settings.conserve_mass:
        return
    windows = [scale.window for scale in scales(settings) if scale is not None and scale.modality == CT]
    refuse(
        {
            "--conserve-mass is of a pair, not of a sequence": settings.of_sequence,
            "--conserve-mass steers the optimisation of a pair, and needs --instance-optimise": (
                not settings.instance_optimise
            ),
            "--conserve-mass needs --modality-moving ct and --modality-fixed ct: others tell no density": (
                len(windows) < 2
            ),
            f"--conserve-mass needs a --ct-window that begins at {AIR:g} Hounsfield units, air, which has no mass": any(
                low != AIR for low, _ in windows
            ),
        }
    )


def check_guidance(given: Mapping[str, Path | None], settings, uncertain: bool) -> None:
    """Raise ValueError for what does not go together.

    Args:
        given: paths by a name of `MASKS`, `POINTS` and `LABELS`.
        settings: `settings.Settings`.
        uncertain: whether a map of uncertainty is asked for.
    """
    points, masks, labels = [[name for name in kind if given[name] is not None] for kind in (POINTS, MASKS, LABELS)]
    steer, there = steering(given, settings), [*masks, *points]
    any_given, first = (option(names[0]) if names else "" for names in (there, steer))
    first = "--dice-weight" if first and steer[0] in LABELS else first
    unrepeated = first or ("--conserve-mass" if settings.conserve_mass else "")
    of_points = bool(steer) and steer[0] in POINTS
    only = "; --points-weight 0 only measures how far points are off" if of_points else ""
    needs = "--affine or --instance-optimise" if steer and steer[0] in MASKS else "--instance-optimise"
    refuse(
        {
            "--points-fixed and --points-moving belong together: the same points in either image": len(points) == 1,
            "--points-weight has no effect without --points-fixed and --points-moving": not points
            and settings.points_weight is not None,
            "--dice-weight needs --labels-fixed and --labels-moving: it is of the structures of both": len(labels) < 2
            and settings.dice_weight is not None,
            f"{any_given} is of a pair, not of a sequence": there and settings.of_sequence,
            "--mask-input has no effect without --mask-fixed or --mask-moving": settings.mask_input and not masks,
            f"{first} steers the optimisation of a pair, and needs {needs}{only}": steer
            and not settings.instance_optimise,
            f"--uncertainty registers again without {unrepeated}, and would be of another registration": (
                unrepeated and uncertain
            ),
        }
    )


def steering(given: Mapping[str, Path | None], settings) -> list[str]:
    """Names of the files that a registration depends on, beyond its affine stage.

    Args:
        given: paths by a name of `MASKS`, `POINTS` and `LABELS`.
        settings: `settings.Settings`.
    """
    # Without an optimisation, masks may be of the affine stage or of what the model sees alone.
    elsewhere = (settings.aligns or settings.mask_input) and not settings.instance_optimise
    names = (*(() if elsewhere else MASKS), *(() if settings.points_weight == 0 else POINTS))
    names += tuple(LABELS) if settings.dice_weight else ()
    return [name for name in names if given[name] is not None]


def read_guidance(given: Mapping[str, Path | None], read: Mapping[str, Image | None], settings) -> Guidance | None:
    """What files and settings say of the pair; None for nothing.

    Args:
        given: paths by a name of `MASKS`, `POINTS` and `LABELS`.
        read: images by their role.
        settings: `settings.Settings`.

    Raises:
        DataError: points that are not as many, or not called alike.
    """
    steer = steering(given, settings)
    images = {name: read[name] for name in MASKS if name in steer}
    images |= {name: read[role] for name, role in LABELS.items() if name in steer}
    if not images and given["points_fixed"] is None and not settings.conserve_mass:
        return None
    weight = POINTS_WEIGHT if settings.points_weight is None else settings.points_weight
    others = {"dice_weight": settings.dice_weight or 0.0, "conserve_mass": settings.conserve_mass}
    if given["points_fixed"] is None:
        return Guidance(**images, **others)
    moving, fixed = read["moving"].trimmed(), read["fixed"].trimmed()
    grids = fixed.grid, matched_grid(moving, fixed)
    places = read_landmarks([given[name] for name in POINTS], grids, settings.points_frame)
    points = dict(zip(POINTS, places, strict=True))
    return Guidance(**images, **points, points_weight=weight, **others)


def told_of_labels(guidance: Guidance | None) -> list[str]:
    """A line on what the Dice that is printed is of, where the optimisation knew the labels.

    Args:
        guidance: with labels or without.
    """
    used = guidance is not None and guidance.labels_fixed is not None
    return ["Dice is of labels that the optimisation was given"] if used else []


def landmarks(guidance: Guidance | None, result: Registration, unit: str) -> tuple[dict, list[str], list[str]]:
    """How far points are off, before and after: for the sidecar, as lines for a reader, and as doubts.

    Args:
        guidance: with points or without.
        result: the registration.
        unit: unit of the distances.
    """
    if guidance is None or guidance.points_fixed is None:
        return {}, [], []
    ways = {"undeformed": result.undeformed, "by the model alone": result.start, "registered": result.transform}
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
