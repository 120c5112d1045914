"""Scores of one pair and of a list of pairs, always beside those of the undeformed pair.

Two conventions differ in how a warped label becomes a mask, after warping each label linearly as 0/1 image:

- "hetmorph": inside where the warped value is at least 0.5.
- "official": inside where it is above 0, as in the experiments of Zhang et al. (arXiv 2312.00836). This
  dilates the mask: even a perfect warp scores below 1.

Every structure has its Dice; surface distances refer to one of them, the *main* structure of the data set. A structure
that is absent from the moving or from the fixed labels is not a valid sample of overlap: its scores are NaN, which
means leave out. A row is *unscored*, and says why in the column of that name, where the pair itself leaves nothing to
score: without labels, or with a main structure that one of the images lacks. It is *failed*, likewise, where the
registration does: no answer (`RegistrationFailed`), one that holds NaN, infinity or a σ_I of 0, of which nothing is
scored, or one that makes the main structure vanish, which then has Dice 0 and no surface.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from hetmorph.data.pair import foreground
from hetmorph.evaluation import artefact, uncertainty
from hetmorph.evaluation.predictor import Prediction, RegistrationFailed
from hetmorph.evaluation.uncertainty import Curves, Judgement, map_scores
from hetmorph.metrics import deformation, overlap, surface
from hetmorph.ops.warp import warp

CONVENTIONS = ("hetmorph", "official")
SURFACE = ("hd_px", "hd95_px", "assd_px", "asd_px", "hd95_mm")
DEFORMATION = ("folds_percent", "sdlogj")
TRE = ("tre_px", "tre_mm")  # of landmarks
EPE = ("epe", "epe_labels")  # over the foreground, and over what is labelled in the fixed image
EPE_ARTEFACT = ("epe_artefact", "epe_around")  # of the foreground inside an artefact, and around it
NO_LABELS: Mapping[str, int] = {}


def overlap_columns(labels: Mapping[str, int] = NO_LABELS, main: str | None = None) -> tuple[str, ...]:
    """Names of the columns made from labels: Dice of the main structure first, of the others, their mean, surfaces."""
    others = (name for name in labels if name != main)
    dices = (f"dice_{name}" for name in ((main, *others) if labels else ()))
    return (*dices, "dice_mean", *SURFACE)


def evaluate(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    convention: str = "hetmorph",
    progress: bool = True,
    labels: Mapping[str, int] = NO_LABELS,
    main: str | None = None,
    curves: Curves | None = None,
    maps: Mapping[str, Callable] | None = None,
    judge: Callable | None = None,
    inverse: bool = False,
) -> list[dict]:
    """One row of scores per pair, in their order.

    Args:
        predictor: called as `predictor(moving, fixed)`; see `evaluation.predictor`.
        pairs: `hetmorph.data.Pair` objects, 2-D or 3-D.
        convention: "hetmorph" or "official", see above.
        progress: show a progress bar on stderr.
        labels: label value of each structure; each gets a column `dice_<structure>`. Empty for a set without labels.
        main: the structure that surface distances refer to; None where there are no labels.
        curves: collects sparsification and calibration of σ_I over the pairs, for a model that predicts it.
        maps: estimates of uncertainty by name, functions of a pair that return an `uncertainty.UncertaintyMap`; each
            adds the columns `registered_<name>_…` of `map_columns`. Left out of pairs that could not be registered.
        judge: function of a pair and its prediction that returns a verdict and the mean bound of the error, voxels, or
            None where it knows no bounds: columns `verdict` and `registered_bound_mean`. What could not be registered
            is rejected; "review" where the judge could not.
        inverse: also register the other way round: columns `registered_inverse_error` and `…_mm`, the mean distance of
            φ_AB(φ_BA(x)) from x, voxels and millimetres; see `Predictor.transforms`.

    Returns:
        Dictionaries with `case_id, patient, slice_index, group, failed, unscored`, perhaps `verdict`, and each metric
        twice, as `undeformed_…` and as `registered_…`. `failed` and `unscored` are "" or the reason. The first call on
        each image shape is repeated, so that `registered_seconds_per_pair` leaves out compilation.

    Raises:
        ValueError: unknown convention, a main structure without label, or a pair the predictor cannot take (the case
            is named).
    """
    return list(evaluate_each(predictor, pairs, convention, progress, labels, main, curves, maps, judge, inverse))


def evaluate_each(
    predictor: Callable[..., Prediction],
    pairs: Sequence,
    convention: str = "hetmorph",
    progress: bool = True,
    labels: Mapping[str, int] = NO_LABELS,
    main: str | None = None,
    curves: Curves | None = None,
    maps: Mapping[str, Callable] | None = None,
    judge: Callable | None = None,
    inverse: bool = False,
) -> Iterator[dict]:
    """The rows of `evaluate` one after the other, each as soon as it is known. Arguments as `evaluate`."""
    scorer = Scorer(predictor, convention, labels, main, maps, judge, inverse)
    for pair in tqdm(pairs, desc="evaluating", unit="pair", disable=not progress):
        row, judgement = scorer(pair)
        if curves is not None and judgement is not None:
            curves.add(judgement)
        yield row


class Scorer:
    """Rows of scores, one pair at a time. Arguments as `evaluate`."""

    def __init__(
        self,
        predictor: Callable[..., Prediction],
        convention: str = "hetmorph",
        labels: Mapping[str, int] = NO_LABELS,
        main: str | None = None,
        maps: Mapping[str, Callable] | None = None,
        judge: Callable | None = None,
        inverse: bool = False,
    ):
        _check(convention, labels, main)
        self.predictor, self._seen = predictor, set()
        self._asked = (convention, labels, main, maps, judge, inverse)
        self._compiles = getattr(predictor, "compiles", True)

    def __call__(self, pair) -> tuple[dict, Judgement | None]:
        """The row of a pair, and what it says about the predicted uncertainty, or None.

        Args:
            pair: a `hetmorph.data.Pair`.

        Raises:
            ValueError: a pair the predictor cannot take; the case is named.
        """
        try:
            if self._compiles and pair.moving.shape not in self._seen:
                _registered(self.predictor, pair)
                self._seen.add(pair.moving.shape)
            return _row_of(self.predictor, pair, *self._asked)
        except ValueError as error:
            raise ValueError(f"{pair.case_id}: {error}") from error

    def failed(self, pair, reason: str) -> dict:
        """The row of a pair that nobody could register.

        Args:
            pair: a `hetmorph.data.Pair`.
            reason: for the column `failed`.
        """

        def nothing(moving, fixed):
            raise RegistrationFailed(reason)

        return _row_of(nothing, pair, *self._asked)[0]


def evaluate_pair(
    predictor: Callable[..., Prediction],
    pair,
    convention: str = "hetmorph",
    labels: Mapping[str, int] = NO_LABELS,
    main: str | None = None,
) -> dict:
    """The row of one pair. Other arguments as `evaluate`.

    Args:
        pair: a `hetmorph.data.Pair`.
    """
    _check(convention, labels, main)
    return _row_of(predictor, pair, convention, labels, main)[0]


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
    predictor,
    pair,
    convention: str,
    labels: Mapping[str, int],
    main: str | None,
    maps: Mapping | None = None,
    judge: Callable | None = None,
    inverse: bool = False,
) -> tuple[dict, Judgement | None]:
    start = time.perf_counter()
    prediction, failed = _registered(predictor, pair)
    seconds = time.perf_counter() - start
    common = (*overlap_columns(labels, main), *DEFORMATION, "mse", *_truth_columns(pair))
    undeformed = dict.fromkeys(common, math.nan) | _scores(pair, identity(pair), convention, labels, main)
    registered = dict.fromkeys((*common, *_uncertainty_columns(pair)), math.nan)
    registered["seconds_per_pair"] = math.nan if prediction is None else seconds
    lacking = _reason_before(pair, labels, main)
    unscored, judgement = lacking if pair.points_fixed is None else "", None
    verdict = {} if judge is None else {"verdict": "reject"}
    if not failed:
        registered |= _scores(pair, prediction, convention, labels, main)
        if prediction.log_variance is not None:
            judgement = uncertainty.judge(pair, prediction, foreground(pair))
            registered |= judgement.scores
        if inverse:
            registered |= _inverse_errors(predictor, pair)
        for name, estimate in (maps or {}).items():
            registered |= _map_scores(name, estimate, pair, prediction)
        if judge is not None:
            verdict["verdict"], bound = _judged(judge, pair, prediction)
            registered |= {} if bound is None else {"bound_mean": bound}
        if not lacking and math.isnan(registered["hd_px"]):
            failed = f"{main} vanished by warping"
    row = {
        "case_id": pair.case_id,
        "patient": pair.patient,
        "slice_index": pair.slice_index,
        "group": pair.group,
        "failed": failed,
        "unscored": unscored,
    }
    row |= verdict
    row |= {f"undeformed_{name}": score for name, score in undeformed.items()}
    return row | {f"registered_{name}": score for name, score in registered.items()}, judgement


def _registered(predictor, pair) -> tuple[Prediction | None, str]:
    """What the predictor says, and why it cannot be scored, or ""."""
    try:
        prediction = predictor(pair.moving, pair.fixed)
    except RegistrationFailed as error:
        return None, f"registration failed: {error}"
    return prediction, "" if _finite(prediction) else "prediction not finite"


def _judged(judge: Callable, pair, prediction: Prediction) -> tuple[str, float | None]:
    """The verdict; of a pair whose maps cannot be made, somebody has to look at it."""
    try:
        return judge(pair, prediction)
    except RegistrationFailed:
        return "review", math.nan


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


def _reason_before(pair, labels: Mapping[str, int], main: str | None) -> str:
    """Why labels cannot score a registration of this pair, or ""."""
    if not labels or pair.moving_labels is None or pair.fixed_labels is None:
        return "no labels"
    images = {"moving": pair.moving_labels, "fixed": pair.fixed_labels}
    missing = [image for image, values in images.items() if not (values == labels[main]).any()]
    return f"no {main} in the {' and the '.join(missing)} image" if missing else ""


def _scores(pair, prediction: Prediction, convention: str, labels: Mapping[str, int], main: str | None) -> dict:
    scores = {}
    if labels and pair.moving_labels is not None and pair.fixed_labels is not None:
        scores |= _label_scores(pair, prediction.displacement, convention, labels, main)
    scores |= deformation.scores_of_determinant(prediction.determinant.astype(np.float64))
    scores["mse"] = float(np.mean((pair.fixed - prediction.moved) ** 2))
    if pair.displacement is not None:
        scores |= displacement_errors(pair, prediction.displacement)
    if pair.points_fixed is not None:
        scores |= _target_errors(pair, prediction.displacement)
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
        scores |= _surface_scores(truth[main], warped[main], pair.spacing if pair.in_mm else None)
    return scores


def _surface_scores(truth: np.ndarray, prediction: np.ndarray, spacing) -> dict:
    scores = {f"{name}_px": score for name, score in surface.surface_scores(truth, prediction).items()}
    in_mm = math.nan if spacing is None else surface.hausdorff95(truth, prediction, spacing)
    return scores | {"hd95_mm": in_mm}


def _inverse_errors(predictor, pair) -> dict[str, float]:
    error = predictor.inverse_error(pair.moving, pair.fixed)
    return dict(zip(("inverse_error", "inverse_error_mm"), _mean_lengths(error, pair), strict=True))


def _mean_lengths(vectors, pair) -> tuple[float, float]:
    """Mean length of vectors `[…, N]` in voxels, and in millimetres where the images state any."""
    in_mm = deformation.mean_length(vectors * np.asarray(pair.spacing)) if pair.in_mm else math.nan
    return deformation.mean_length(vectors), in_mm


def displacement_errors(pair, displacement) -> dict[str, float]:
    """Mean errors of a displacement whose truth is known, voxels: of the foreground, of what is labelled, and inside
    and around an artefact of known place.

    Args:
        pair: a `hetmorph.data.Pair` with its true displacement.
        displacement: `[*S, N]` in voxels.
    """
    labelled = pair.fixed_labels > 0 if pair.fixed_labels is not None else np.zeros(pair.fixed.shape, bool)
    masks = dict(zip(EPE, (foreground(pair), labelled), strict=True))
    if (inside := artefact.inside(pair, pair.displacement)) is not None:
        regions = (inside, artefact.around(inside))
        masks |= {name: region & foreground(pair) for name, region in zip(EPE_ARTEFACT, regions, strict=True)}
    return {name: deformation.endpoint_error(displacement, pair.displacement, mask) for name, mask in masks.items()}


def _target_errors(pair, displacement) -> dict[str, float]:
    offsets = deformation.target_offsets(displacement, pair.points_fixed, pair.points_moving)
    return dict(zip(TRE, _mean_lengths(offsets, pair), strict=True))


def _truth_columns(pair) -> tuple[str, ...]:
    known = (*EPE, *(EPE_ARTEFACT if artefact.has_any(pair) else ()))
    return (*(known if pair.displacement is not None else ()), *(TRE if pair.points_fixed is not None else ()))


def _uncertainty_columns(pair) -> tuple[str, ...]:
    """Names of the metrics of uncertainty that can be known for this pair."""
    displacement = uncertainty.DISPLACEMENT if pair.displacement is not None else ()
    noise = uncertainty.NOISE if pair.sigma is not None else ()
    return (*uncertainty.RESIDUAL, *displacement, *noise, *(uncertainty.ARTEFACT if artefact.has_any(pair) else ()))
