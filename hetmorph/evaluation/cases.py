"""Scores of one pair and of a list of pairs, always beside those of the undeformed pair.

Two conventions differ in how a warped label becomes a mask, after warping each label linearly as 0/1 image:

- "hetmorph": inside where the warped value is at least 0.5.
- "official": inside where it is above 0, as in the experiments of Zhang et al. (arXiv 2312.00836). This
  dilates the mask: even a perfect warp scores below 1.

A structure that is absent from the moving or from the fixed labels is not a valid sample of overlap: its
scores are NaN, which means leave out. A structure that the warp makes vanish has Dice 0 and no defined
surface distance. A row whose myocardium scores are undefined is *failed*, and says why in the column
`failed`. So is a row whose prediction holds NaN or infinity: none of it is scored.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from hetmorph.evaluation.predictor import Prediction
from hetmorph.metrics import calibration, deformation, overlap, surface
from hetmorph.ops.warp import warp

CONVENTIONS = ("hetmorph", "official")
LABELS = {"rv": 1, "myo": 2, "lv": 3}
OVERLAP = ("dice_myo", "dice_rv", "dice_lv", "dice_mean", "hd_px", "hd95_px", "assd_px", "asd_px", "hd95_mm")
DEFORMATION = ("folds_percent", "sdlogj")
UNDEFORMED = (*OVERLAP, *DEFORMATION, "mse")
REGISTERED = (*UNDEFORMED, "ause", "ause_foreground", "seconds_per_pair")
TRUTH_UNDEFORMED = ("epe", "epe_heart")
TRUTH_REGISTERED = (*TRUTH_UNDEFORMED, "sigma_correlation")


def evaluate(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    convention: str = "hetmorph",
    progress: bool = True,
    labels: Mapping[str, int] = LABELS,
) -> list[dict]:
    """One row of scores per pair, in their order.

    Args:
        predictor: called as `predictor(moving, fixed)`; see `evaluation.predictor`.
        pairs: `hetmorph.data.Pair` objects, 2-D or 3-D.
        convention: "hetmorph" or "official", see above.
        progress: show a progress bar on stderr.
        labels: label value of each structure; "myo" must be among them.

    Returns:
        Dictionaries with `case_id, patient, slice_index, group, failed`, and each metric twice, as
        `undeformed_…` and as `registered_…`. `failed` is "" or the reason. The first call on each image shape
        is repeated, so that `registered_seconds_per_pair` leaves out compilation.

    Raises:
        ValueError: unknown convention, or a pair the predictor cannot take (the case is named).
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {CONVENTIONS}, got {convention!r}")
    rows, warm = [], set()
    for pair in tqdm(pairs, desc="evaluating", unit="pair", disable=not progress):
        try:
            if pair.moving.shape not in warm:
                predictor(pair.moving, pair.fixed)
                warm.add(pair.moving.shape)
            rows.append(evaluate_pair(predictor, pair, convention, labels))
        except ValueError as error:
            raise ValueError(f"{pair.case_id}: {error}") from error
    return rows


def evaluate_pair(
    predictor: Callable[..., Prediction],
    pair,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = LABELS,
) -> dict:
    """The row of one pair; see `evaluate`."""
    start = time.perf_counter()
    prediction = predictor(pair.moving, pair.fixed)
    seconds = time.perf_counter() - start
    undeformed = _scores(pair, _identity(pair), convention, labels)
    registered = dict.fromkeys((*REGISTERED, *TRUTH_REGISTERED), math.nan)
    failed = _reason_before(pair, labels["myo"])
    if _finite(prediction):
        registered |= _scores(pair, prediction, convention, labels) | _calibration(pair, prediction)
        if not failed and math.isnan(registered["hd_px"]):
            failed = "myocardium vanished by warping"
    else:
        failed = failed or "prediction not finite"
    registered["seconds_per_pair"] = seconds
    truth_undeformed, truth_registered = _truth_columns(pair)
    return (
        {
            "case_id": pair.case_id,
            "patient": pair.patient,
            "slice_index": pair.slice_index,
            "group": pair.group,
        }
        | {"failed": failed}
        | {f"undeformed_{k}": undeformed[k] for k in (*UNDEFORMED, *truth_undeformed)}
        | {f"registered_{k}": registered[k] for k in (*REGISTERED, *truth_registered)}
    )


def foreground(pair) -> np.ndarray:
    """Voxels where the moving or the fixed image is not 0, `[*S]`: the mask M of the method."""
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


def _finite(prediction: Prediction) -> bool:
    maps = (prediction.displacement, prediction.moved, prediction.log_variance)
    return all(np.isfinite(x).all() for x in maps if x is not None)


def _identity(pair) -> Prediction:
    return Prediction(np.zeros((*pair.moving.shape, pair.moving.ndim), np.float32), pair.moving)


def _reason_before(pair, myocardium: int) -> str:
    """Why no registration could be scored on this pair, or ""."""
    if pair.moving_labels is None or pair.fixed_labels is None:
        return "no labels"
    frames = {"ED": pair.moving_labels, "ES": pair.fixed_labels}
    missing = [name for name, frame in frames.items() if not (frame == myocardium).any()]
    return f"no myocardium in {' and '.join(missing)}" if missing else ""


def _scores(pair, prediction: Prediction, convention: str, labels: Mapping[str, int]) -> dict:
    scores = dict.fromkeys(OVERLAP, math.nan)
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        scores |= _label_scores(pair, prediction.displacement, convention, labels)
    scores["folds_percent"] = deformation.folds_percent(prediction.displacement)
    scores["sdlogj"] = deformation.sdlogj(prediction.displacement)
    scores["mse"] = float(np.mean((pair.fixed - prediction.moved) ** 2))
    if pair.displacement is not None:
        scores |= _displacement_errors(pair, prediction.displacement)
    return scores


def _label_scores(pair, displacement, convention: str, labels: Mapping[str, int]) -> dict:
    warped = dict(
        zip(labels, warp_labels(pair.moving_labels, displacement, [*labels.values()], convention), strict=True)
    )
    truth = {name: pair.fixed_labels == value for name, value in labels.items()}
    valid = {name: truth[name].any() and (pair.moving_labels == value).any() for name, value in labels.items()}
    scores = {f"dice_{name}": overlap.dice(warped[name], truth[name]) for name in labels if valid[name]}
    if scores:
        scores["dice_mean"] = float(np.mean([*scores.values()]))
    if valid["myo"]:
        scores |= _surface_scores(truth["myo"], warped["myo"], pair.spacing)
    return scores


def _surface_scores(truth: np.ndarray, prediction: np.ndarray, spacing) -> dict:
    return {
        "hd_px": surface.hausdorff(truth, prediction),
        "hd95_px": surface.hausdorff95(truth, prediction),
        "assd_px": surface.assd(truth, prediction),
        "asd_px": surface.asd(truth, prediction),
        "hd95_mm": surface.hausdorff95(truth, prediction, spacing),
    }


def _calibration(pair, prediction: Prediction) -> dict:
    if prediction.log_variance is None:
        return {}
    sq_error = (pair.fixed - prediction.moved) ** 2
    scores = {
        "ause": calibration.ause(sq_error, prediction.log_variance),
        "ause_foreground": calibration.ause(sq_error, prediction.log_variance, foreground(pair)),
    }
    if pair.sigma is not None:
        scores["sigma_correlation"] = _correlation(np.exp(0.5 * prediction.log_variance), pair.sigma)
    return scores


def _displacement_errors(pair, displacement) -> dict:
    errors = {"epe": deformation.endpoint_error(displacement, pair.displacement, foreground(pair))}
    heart = pair.fixed_labels > 0 if pair.fixed_labels is not None else np.zeros(pair.fixed.shape, bool)
    return errors | {"epe_heart": deformation.endpoint_error(displacement, pair.displacement, heart)}


def _correlation(a, b) -> float:
    """Pearson correlation; NaN when either is constant."""
    if np.std(a) == 0 or np.std(b) == 0:
        return math.nan
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def _truth_columns(pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the metrics that need the true displacement or noise of this pair."""
    errors = TRUTH_UNDEFORMED if pair.displacement is not None else ()
    return errors, (*errors, "sigma_correlation") if pair.sigma is not None else errors
