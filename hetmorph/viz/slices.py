"""What a figure shows of one case: two axes of it, a volume cut in its middle."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hetmorph.evaluation.cases import warp_labels
from hetmorph.evaluation.predictor import Prediction
from hetmorph.metrics.deformation import fold_mask


@dataclass(frozen=True)
class Shown:
    """One case in the plane of a picture; everything that needs the whole volume is already computed.

    Attributes:
        name: "median", "worst" or "first".
        row: its scores.
        spacing: millimetres along both axes.
        moving, fixed, moved: `[H, W]`.
        displacement: `[H, W, 2]` voxels, the components within the plane.
        folds: `[H, W]` booleans.
        longest: largest displacement anywhere, voxels.
        sigma: σ_I `[H, W]`, or None.
        weight: `[H, W]`, or None.
        truth, before, after: masks `[H, W]` by structure; None without labels.
        index: position of the slice along the last axis of a volume; None for an image.
    """

    name: str
    row: dict
    spacing: tuple[float, ...]
    moving: np.ndarray
    fixed: np.ndarray
    moved: np.ndarray
    displacement: np.ndarray
    folds: np.ndarray
    longest: float
    sigma: np.ndarray | None
    weight: np.ndarray | None
    truth: dict[str, np.ndarray] | None
    before: dict[str, np.ndarray] | None
    after: dict[str, np.ndarray] | None
    index: int | None


def show(
    name: str, pair, row: dict, prediction: Prediction, convention: str, labels: Mapping[str, int], main: str | None
) -> Shown:
    """The case as it is drawn: an image as it is, a volume in the slice of the last axis through its middle.

    The middle is that of the main structure in the fixed labels, or of the axis where there is none.
    """
    index = None if pair.moving.ndim == 2 else _middle(pair, labels, main)

    def plane(values):
        return values if index is None or values is None else values[:, :, index]

    labelled = bool(labels) and pair.moving_labels is not None and pair.fixed_labels is not None
    masks = dict.fromkeys(("truth", "before", "after"))
    if labelled:
        warped = warp_labels(pair.moving_labels, prediction.displacement, [*labels.values()], convention)
        masks["truth"] = {name: plane(pair.fixed_labels == value) for name, value in labels.items()}
        masks["before"] = {name: plane(pair.moving_labels == value) for name, value in labels.items()}
        masks["after"] = {name: plane(mask) for name, mask in zip(labels, warped, strict=True)}
    return Shown(
        name=name,
        row=row,
        spacing=pair.spacing[:2],
        moving=plane(pair.moving),
        fixed=plane(pair.fixed),
        moved=plane(prediction.moved),
        displacement=plane(prediction.displacement)[..., :2],
        folds=plane(fold_mask(prediction.displacement)),
        longest=float(np.linalg.norm(prediction.displacement, axis=-1).max()),
        sigma=None if prediction.log_variance is None else plane(np.exp(0.5 * prediction.log_variance)),
        weight=plane(prediction.weight),
        index=index,
        **masks,
    )


def _middle(pair, labels: Mapping[str, int], main: str | None) -> int:
    if main in labels and pair.fixed_labels is not None:
        inside = np.flatnonzero((pair.fixed_labels == labels[main]).any((0, 1)))
        if inside.size:
            return int(inside[inside.size // 2])
    return pair.moving.shape[2] // 2
