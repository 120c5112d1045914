"""One pair of `hetmorph register`: through the model, judged, written."""

import functools
from collections.abc import Mapping

import numpy as np

from hetmorph import registration, viz
from hetmorph.cli import guidance
from hetmorph.cli.done import Done
from hetmorph.cli.outcome import Outcome
from hetmorph.cli.phases import phase
from hetmorph.cli.results import LINEAR, SAYS, TRANSFORMS, image_of, transform_of, write_linear, write_map, write_way
from hetmorph.cli.settings import Settings
from hetmorph.data import Pair
from hetmorph.evaluation import Predictor
from hetmorph.io import Chain, Transform, check_mask, matched_grid, read_chain
from hetmorph.io.atomic import stem_of
from hetmorph.registration import Alignment, Registration
from hetmorph.registration.guidance import labels_on
from hetmorph.uncertainty import ExpectedError, calibrated_estimates, estimate


def register_pair(job, settings: Settings, predictor: Predictor, read: Mapping, about: dict, done: Done) -> None:
    """Register a pair, judge it and write what is asked for.

    Args:
        job: `register_job.Job`.
        settings: what decides the result.
        predictor: the model.
        read: images by their role.
        about: the contents of the sidecars; gets what is found.
        done: gets what is done.
    """
    calibration = _calibration(job, settings, done)
    initial, done.affine = before(job, read, settings)
    about |= {} if initial is None else {"initial_understood": initial.understood}
    about |= {} if done.affine is None else {"affine": done.affine.summary()}
    guiding = guidance.read_guidance(job.guiding, read, settings)
    expected = _expected(job, settings, calibration, done)
    asked = expected or estimate_for(job, settings, calibration)
    options = {"spacing": settings.spacing, "mask": read["mask"], "estimate": asked}
    options |= {"initial": initial, "affine": done.affine, "guidance": guiding}
    options["intensities"] = guidance.intensities(read, settings)
    result = registration.register(read["moving"], read["fixed"], predictor, **options)
    entries, notes, doubts = guidance.landmarks(guiding, result, "mm" if read["fixed"].in_mm else "voxels")
    about |= entries
    done.notes += [*notes, *guidance.told_of_labels(guiding)]
    done.doubts += doubts
    ways = {name: transform_of(name, result, settings) for name in TRANSFORMS if name in job.outputs}
    missed = ways["inverse"].worst if "inverse" in ways else None
    outcome = Outcome.of(result, read["fixed"], read["labels"], read["labels of the fixed image"], missed)
    done.outcomes.append(outcome)
    case, maps = _case(job, result, read), {} if result.map is None else {result.map.name: result.map}
    about |= {} if result.map is None else {"estimate": result.map.name}
    if expected is not None:
        maps |= expected.maps(result.by_slice)
    elif calibration is not None:
        maps |= _calibrated(calibration, case, predictor, maps, settings)
    done.verdict = viz.verdict(case, maps, calibration, outcome.checks)
    about |= {"verdict": done.verdict.told(), "checks": outcome.checks.scores()}
    sources = read["moving"], read["fixed"], read["labels"]
    images = {name: image_of(name, result, *sources) for name in job.outputs if name in SAYS}
    for name, way in ways.items():
        write_way(job.outputs[name], result, way, settings.format, about)
    for name, (array, kind) in images.items():
        write_map(job.outputs[name], array, read["fixed"], kind, name, about)
    if LINEAR in job.outputs:
        write_linear(job.outputs[LINEAR], result, about)
    if job.report:
        _write_report(job, result, case, settings, about, maps, calibration, outcome.checks)
    done.paths += job.written()


def before(job, read: Mapping, settings: Settings) -> tuple[Transform | Chain | None, Alignment | None]:
    """What the moving image goes through before the model: the initial transform, and what an affine stage finds."""
    initial = None
    if job.initial is not None:
        own, grid = matched_grid(read["moving"], read["fixed"]), read["fixed"].grid
        initial = read_chain([job.initial], grid, own, None, settings.inverse_tolerance, job.field_convention)
    if not settings.aligns:
        return initial, None
    for mask, image in ((read["mask_fixed"], read["fixed"]), (read["mask_moving"], read["moving"])):
        if mask is not None:
            check_mask(mask.trimmed().with_axes_of(read["fixed"]), image)
    chosen = {"start": settings.affine_start or "best", "metric": settings.affine_metric or "mi"}
    pair = (read["moving"], read["fixed"], settings.affine_kind)
    masks = {"mask": read["mask_fixed"] or read["mask"], "mask_moving": read["mask_moving"]}
    return initial, registration.align(*pair, **chosen, **masks, initial=initial)


def estimate_for(job, settings: Settings, calibration=None):
    """The estimate of uncertainty that results ask for, unless it would be of a registration without guidance."""
    known = calibration is not None and settings.estimate in calibration.combination.weights
    needless = "uncertainty" not in job.outputs and (job.report is None or known)
    if needless or guidance.steering(job.guiding, settings):
        return None
    return functools.partial(estimate, settings.estimate, n=settings.draws, seed=settings.seed, progress=False)


def _calibration(job, settings: Settings, done: Done):
    """What judges the pair; the one beside the model only where a page shows the verdict."""
    if settings.calibration is None and job.report is None:
        return None
    calibration, told = settings.judging()
    done.notes += [told] if told else []
    return calibration


def _expected(job, settings: Settings, calibration, done: Done) -> ExpectedError | None:
    """The error to be expected, by what judges or lies beside the model; None without it, or by another method."""
    if settings.method or "uncertainty" not in job.outputs or guidance.steering(job.guiding, settings):
        return None
    found, told = (calibration, "") if calibration is not None else settings.judging()
    if found is None or not found.combination.products:
        done.notes += [told] if told else []
        return None
    done.notes.append(f"uncertainty: length of the {found.combination.name}")
    return ExpectedError(found)


def _calibrated(calibration, case: Pair, predictor: Predictor, made: Mapping, settings: Settings) -> dict:
    """The maps that a calibration needs; one that was made with its options is not made again."""
    same = all(calibration.about.get(name) == getattr(settings, name) for name in ("draws", "seed"))
    estimates = calibrated_estimates(calibration, predictor)
    return {name: made[name] if same and name in made else of(case) for name, of in estimates.items()}


def _case(job, result: Registration, read: Mapping) -> Pair:
    """The pair as the model saw it, labels brought onto that grid."""
    labels = {"moving_labels": None, "fixed_labels": None}
    if job.labels_fixed:
        seen = (("labels", result.initial), ("labels of the fixed image", None))
        on_grid = (labels_on(result.grid, read[role], read["fixed"], through) for role, through in seen)
        labels = dict(zip(labels, on_grid, strict=True))
    known = {"spacing": result.grid.spacing, "in_mm": read["fixed"].in_mm}
    return Pair(stem_of(job.report or job.fixed), "", None, None, *result.seen, **labels, **known)


@phase("writing")
def _write_report(
    job, result: Registration, case: Pair, settings: Settings, about: dict, maps: Mapping, calibration, checks
) -> None:
    """The page of the pair."""
    values = [] if case.fixed_labels is None else np.unique(case.fixed_labels)
    names = {f"label_{value}": int(value) for value in values if value != 0}
    facts = {"model": settings.model, "command": " ".join(about["command"]), **job.named()}
    if result.affine is not None:
        facts["affine stage"] = str(result.affine)
    viz.case_report(
        case,
        result.prediction,
        job.report,
        maps=maps,
        calibration=calibration,
        labels=names,
        main=next(iter(names), None),
        affine=result.grid.affine if result.grid.ndim == 3 else None,
        about=facts,
        checks=checks,
    )
