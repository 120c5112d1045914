"""Scores of one pair and of a list of pairs, always beside those of the undeformed pair.

Two conventions differ in how a warped label becomes a mask, after warping each label linearly as 0/1 image:

- "hetmorph": inside where the warped value is at least 0.5.
- "official": inside where it is above 0, as in the experiments of Zhang et al. (arXiv 2312.00836). This
  dilates the mask: even a perfect warp scores below 1.

Every structure has its Dice; surface distances and failures refer to one of them, the *main* structure of the data
set (the myocardium of a heart). A structure that is absent from the moving or from the fixed labels is not a valid
sample of overlap: its scores are NaN, which means leave out. A structure that the warp makes vanish has Dice 0 and no
defined surface distance. A row whose scores of the main structure are undefined is *failed*, and says why in the
column `failed`. So is a row whose prediction holds NaN, infinity or a σ_I of 0, and one of which the program found no
registration (`RegistrationFailed`): nothing registered is scored.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from hetmorph.data.acdc import LABELS
from hetmorph.evaluation import uncertainty
from hetmorph.evaluation.maps import map_scores
from hetmorph.evaluation.predictor import Prediction, RegistrationFailed
from hetmorph.evaluation.uncertainty import Curves, Judgement
from hetmorph.metrics import deformation, overlap, surface
from hetmorph.ops.warp import warp

CONVENTIONS = ("hetmorph", "official")
MAIN = "myo"
# Of a heart: what its main structure, the moving and the fixed image, and all its labels together are called.
HEART = ("myocardium", "ED", "ES", "heart")
SURFACE = ("hd_px", "hd95_px", "assd_px", "asd_px", "hd95_mm")
DEFORMATION = ("folds_percent", "sdlogj")


def overlap_columns(labels: Mapping[str, int] = LABELS, main: str | None = MAIN) -> tuple[str, ...]:
    """Names of the columns made from labels: Dice of the main structure first, of the others, their mean, surfaces."""
    others = (name for name in labels if name != main)
    dices = (f"dice_{name}" for name in ((main, *others) if labels else ()))
    return (*dices, "dice_mean", *SURFACE)


def evaluate(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    convention: str = "hetmorph",
    progress: bool = True,
    labels: Mapping[str, int] = LABELS,
    main: str | None = MAIN,
    curves: Curves | None = None,
    maps: Mapping[str, Callable] | None = None,
) -> list[dict]:
    """One row of scores per pair, in their order.

    Args:
        predictor: called as `predictor(moving, fixed)`; see `evaluation.predictor`.
        pairs: `hetmorph.data.Pair` objects, 2-D or 3-D.
        convention: "hetmorph" or "official", see above.
        progress: show a progress bar on stderr.
        labels: label value of each structure; each gets a column `dice_<structure>`. Empty for a set without labels.
        main: the structure that surface distances and failures refer to; None where there are no labels.
        curves: collects sparsification and calibration of σ_I over the pairs, for a model that predicts it.
        maps: estimates of uncertainty by name, functions of a pair that return an `uncertainty.UncertaintyMap`; each
            adds the columns `registered_<name>_…` of `evaluation.maps`. Left out of pairs that could not be registered.

    Returns:
        Dictionaries with `case_id, patient, slice_index, group, failed`, and each metric twice, as
        `undeformed_…` and as `registered_…`. `failed` is "" or the reason. The first call on each image shape
        is repeated, so that `registered_seconds_per_pair` leaves out compilation.

    Raises:
        ValueError: unknown convention, a main structure without label, or a pair the predictor cannot take (the case
            is named).
    """
    return list(evaluate_each(predictor, pairs, convention, progress, labels, main, curves, maps))


def evaluate_each(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    convention: str = "hetmorph",
    progress: bool = True,
    labels: Mapping[str, int] = LABELS,
    main: str | None = MAIN,
    curves: Curves | None = None,
    maps: Mapping[str, Callable] | None = None,
) -> Iterator[dict]:
    """The rows of `evaluate` one after the other, each as soon as it is known. Arguments as `evaluate`."""
    _check(convention, labels, main)
    warm = set()
    compiles = getattr(predictor, "compiles", True)
    for pair in tqdm(pairs, desc="evaluating", unit="pair", disable=not progress):
        try:
            if compiles and pair.moving.shape not in warm:
                _registered(predictor, pair)
                warm.add(pair.moving.shape)
            row, judgement = _row_of(predictor, pair, convention, labels, main, maps)
        except ValueError as error:
            raise ValueError(f"{pair.case_id}: {error}") from error
        if curves is not None and judgement is not None:
            curves.add(judgement)
        yield row


def evaluate_pair(
    predictor: Callable[..., Prediction],
    pair,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = LABELS,
    main: str | None = MAIN,
) -> dict:
    """The row of one pair. Other arguments as `evaluate`.

    Args:
        pair: a `hetmorph.data.Pair`.
    """
    _check(convention, labels, main)
    return _row_of(predictor, pair, convention, labels, main)[0]


def foreground(pair) -> np.ndarray:
    """Voxels where the moving or the fixed image is not 0 (before noise), `[*S]`: the mask M of the method."""
    if pair.foreground is not None:
        return pair.foreground
    return (pair.moving != 0) | (pair.fixed != 0)


def warp_labels(labels, displacement, values: Sequence[int], convention: str = "hetmorph") -> np.ndarray:
    """Masks of the given label values after warping, `[len(values), *S]` booleans.

    Args:
        labels: `[*S]` integers of the moving image.
        displacement: `[*S, N]` in voxels.
        values: label values to warp, each on its own.
        convention: "hetmorph" keeps warped values ≥ 0.5, "official" those > 0.
    """
    masks = (np.asarray(labels)[..., None] == np.asarray(values)).astype(np.float32)
    warped = np.moveaxis(warp(masks[None], np.asarray(displacement, np.float32)[None])[0].numpy(), -1, 0)
    return warped > 0 if convention == "official" else warped >= 0.5


def _check(convention: str, labels: Mapping[str, int], main: str | None) -> None:
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")
    if labels and main not in labels:
        raise ValueError(f"the main structure must be one of {tuple(labels)}, got {main!r}")
    if "mean" in labels:
        raise ValueError("no structure can be called 'mean': dice_mean is the mean over all structures")


def _row_of(
    predictor, pair, convention: str, labels: Mapping[str, int], main: str | None, maps: Mapping | None = None
) -> tuple[dict, Judgement | None]:
    start = time.perf_counter()
    prediction, problem = _registered(predictor, pair)
    seconds = time.perf_counter() - start
    common = (*overlap_columns(labels, main), *DEFORMATION, "mse", *_truth_columns(pair, main))
    undeformed = dict.fromkeys(common, math.nan) | _scores(pair, identity(pair), convention, labels, main)
    registered = dict.fromkeys((*common, *_uncertainty_columns(pair)), math.nan)
    registered["seconds_per_pair"] = math.nan if prediction is None else seconds
    failed, judgement = problem or _reason_before(pair, labels, main), None
    if not problem:
        registered |= _scores(pair, prediction, convention, labels, main)
        if prediction.log_variance is not None:
            judgement = uncertainty.judge(pair, prediction, foreground(pair))
            registered |= judgement.scores
        for name, estimate in (maps or {}).items():
            registered |= _map_scores(name, estimate, pair, prediction)
        if not failed and math.isnan(registered["hd_px"]):
            failed = f"{_words(main)[0]} vanished by warping"
    row = {
        "case_id": pair.case_id,
        "patient": pair.patient,
        "slice_index": pair.slice_index,
        "group": pair.group,
        "failed": failed,
    }
    row |= {f"undeformed_{name}": score for name, score in undeformed.items()}
    return row | {f"registered_{name}": score for name, score in registered.items()}, judgement


def _registered(predictor, pair) -> tuple[Prediction | None, str]:
    """What the predictor says, and why it cannot be scored, or ""."""
    try:
        prediction = predictor(pair.moving, pair.fixed)
    except RegistrationFailed as error:
        return None, f"registration failed: {error}"
    return prediction, "" if _finite(prediction) else "prediction not finite"


def _map_scores(name: str, estimate: Callable, pair, prediction: Prediction) -> dict[str, float]:
    try:
        result = estimate(pair)
    except RegistrationFailed:
        return {}
    error = None
    if pair.displacement is not None:
        error = np.linalg.norm(prediction.displacement - pair.displacement, axis=-1)
    return map_scores(name, result, error, foreground(pair), pair.spacing)


def _finite(prediction: Prediction) -> bool:
    maps = [prediction.displacement, prediction.moved]
    if prediction.log_variance is not None:
        with np.errstate(over="ignore", divide="ignore"):
            variance = np.exp(np.float64(prediction.log_variance))
            maps += [variance, 1 / variance]
    return all(np.isfinite(x).all() for x in maps)


def identity(pair) -> Prediction:
    """The undeformed pair."""
    return Prediction(np.zeros((*pair.moving.shape, pair.moving.ndim), np.float32), pair.moving)


def _words(main: str | None) -> tuple[str, str, str, str]:
    """What to call the main structure, the moving and the fixed image, and all structures together."""
    return HEART if main == MAIN else (main, "moving", "fixed", "labels")


def _reason_before(pair, labels: Mapping[str, int], main: str | None) -> str:
    """Why no registration could be scored on this pair, or ""."""
    if not labels or pair.moving_labels is None or pair.fixed_labels is None:
        return "no labels"
    name, moving, fixed, _ = _words(main)
    images = {moving: pair.moving_labels, fixed: pair.fixed_labels}
    missing = [image for image, values in images.items() if not (values == labels[main]).any()]
    return f"no {name} in {' and '.join(missing)}" if missing else ""


def _scores(pair, prediction: Prediction, convention: str, labels: Mapping[str, int], main: str | None) -> dict:
    scores = {}
    if labels and pair.moving_labels is not None and pair.fixed_labels is not None:
        scores |= _label_scores(pair, prediction.displacement, convention, labels, main)
    scores["folds_percent"] = deformation.folds_percent(prediction.displacement)
    scores["sdlogj"] = deformation.sdlogj(prediction.displacement)
    scores["mse"] = float(np.mean((pair.fixed - prediction.moved) ** 2))
    if pair.displacement is not None:
        scores |= _displacement_errors(pair, prediction.displacement, main)
    return scores


def _label_scores(pair, displacement, convention: str, labels: Mapping[str, int], main: str | None) -> dict:
    warped = dict(
        zip(labels, warp_labels(pair.moving_labels, displacement, [*labels.values()], convention), strict=True)
    )
    truth = {name: pair.fixed_labels == value for name, value in labels.items()}
    valid = {name: truth[name].any() and (pair.moving_labels == value).any() for name, value in labels.items()}
    scores = {f"dice_{name}": overlap.dice(warped[name], truth[name]) for name in labels if valid[name]}
    if scores:
        scores["dice_mean"] = float(np.mean([*scores.values()]))
    if valid[main]:
        scores |= _surface_scores(truth[main], warped[main], pair.spacing)
    return scores


def _surface_scores(truth: np.ndarray, prediction: np.ndarray, spacing) -> dict:
    return {
        "hd_px": surface.hausdorff(truth, prediction),
        "hd95_px": surface.hausdorff95(truth, prediction),
        "assd_px": surface.assd(truth, prediction),
        "asd_px": surface.asd(truth, prediction),
        "hd95_mm": surface.hausdorff95(truth, prediction, spacing),
    }


def _displacement_errors(pair, displacement, main: str | None) -> dict:
    labelled = pair.fixed_labels > 0 if pair.fixed_labels is not None else np.zeros(pair.fixed.shape, bool)
    masks = dict(zip(_error_columns(main), (foreground(pair), labelled), strict=True))
    return {name: deformation.endpoint_error(displacement, pair.displacement, mask) for name, mask in masks.items()}


def _error_columns(main: str | None) -> tuple[str, str]:
    """Displacement error over the foreground, and over what is labelled in the fixed image."""
    return "epe", f"epe_{_words(main)[3]}"


def _truth_columns(pair, main: str | None) -> tuple[str, ...]:
    return () if pair.displacement is None else _error_columns(main)


def _uncertainty_columns(pair) -> tuple[str, ...]:
    """Names of the metrics of uncertainty that can be known for this pair."""
    displacement = uncertainty.DISPLACEMENT if pair.displacement is not None else ()
    return (*uncertainty.RESIDUAL, *displacement, *(uncertainty.NOISE if pair.sigma is not None else ()))
