"""Whether a registration follows when its images are moved: φ[A∘W, B∘U] = W⁻¹∘φ[A, B]∘U, alike or each by itself."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from hetmorph.data import Pair
from hetmorph.data.aligned import aligned
from hetmorph.data.pair import ARTEFACTS, MASKS, POINTS
from hetmorph.evaluation.cases import foreground, warp_labels
from hetmorph.io import Image
from hetmorph.io.chain import Linear
from hetmorph.metrics import dice


def shifted(array: np.ndarray, by: Sequence[int]) -> np.ndarray:
    """array(x + by), zeros from outside.

    Args:
        array: `[*S]` or `[*S, C]`.
        by: voxels along each axis, whole numbers.

    Raises:
        ValueError: parts of voxels, or other axes than those of the array.
    """
    if any(int(k) != k for k in by) or len(by) > array.ndim:
        raise ValueError(f"expected whole voxels along at most {array.ndim} axes, received {tuple(by)}")
    result = np.zeros_like(array)
    there = tuple(slice(max(0, k), max(0, n + min(0, k))) for n, k in zip(array.shape, by, strict=False))
    here = tuple(slice(max(0, -k), max(0, n - max(0, k))) for n, k in zip(array.shape, by, strict=False))
    result[here] = array[there]
    return result


def turned(array: np.ndarray, degrees: float) -> np.ndarray:
    """The array turned about its middle, from the first axis to the second, zeros from outside.

    Args:
        array: `[*S]`, of floats, which are interpolated linearly, or of whole numbers, of which the nearest are taken.
        degrees: angle, for voxels that are as wide along both axes.
    """
    order = 1 if np.issubdtype(array.dtype, np.floating) else 0
    return ndimage.rotate(array, degrees, axes=(1, 0), reshape=False, order=order)


def framed(pair: Pair, margin: int) -> Pair:
    """The images of a pair within zeros, so that they can be moved without leaving their grid.

    Args:
        pair: beside its labels, what else is known of it is left out.
        margin: voxels on every side.
    """
    seen = np.pad(foreground(pair), margin)
    moving, fixed = (np.pad(image, margin) for image in (pair.moving, pair.fixed))
    labels = {name: getattr(pair, name) for name in ("moving_labels", "fixed_labels")}
    labels = {name: None if array is None else np.pad(array, margin) for name, array in labels.items()}
    others = dict.fromkeys(("displacement", "sigma", *MASKS, *POINTS, *ARTEFACTS))
    return dataclasses.replace(pair, moving=moving, fixed=fixed, foreground=seen, **labels, **others)


def departure(
    predictor, pair: Pair, of_moving: Sequence[int], of_fixed: Sequence[int], answer: np.ndarray | None = None
) -> float:
    """How far the answer for moved images lies from the moved answer, mean over the foreground, voxels.

    With A∘W(x) = A(x + w) and B∘U likewise, the displacement of a registration that follows is u(x + u_B) + u_B − w.

    Args:
        predictor: called as `predictor(moving, fixed)`.
        pair: see `framed`; nothing may leave the grid.
        of_moving: w, whole voxels along each axis.
        of_fixed: u_B; equal to w, both images are moved alike.
        answer: the displacement of the pair as it is, `[*S, N]`; None asks for it.
    """
    answer = predictor(pair.moving, pair.fixed).displacement if answer is None else answer
    moved = predictor(shifted(pair.moving, of_moving), shifted(pair.fixed, of_fixed)).displacement
    expected = shifted(answer, of_fixed) + (np.asarray(of_fixed) - np.asarray(of_moving))
    error = np.linalg.norm(moved - expected, axis=-1)
    return float(error[shifted(foreground(pair), of_fixed)].mean())


def overlap(
    predictor,
    pair: Pair,
    motion: Callable[[np.ndarray], np.ndarray],
    structures: Sequence[int],
    align: Callable[[Image, Image], Linear] | None = None,
) -> float:
    """Mean Dice of the structures that both images have, after the moved moving image was registered; NaN without any.

    Args:
        predictor, pair: as of `departure`.
        motion: moves an image or its labels, as `shifted` and `turned` do.
        structures: values of the labels.
        align: a stage that brings the moved image near before the predictor sees it, as of `data.load`.
    """
    moved = dataclasses.replace(pair, moving=motion(pair.moving), moving_labels=motion(pair.moving_labels))
    moved = moved if align is None else aligned(moved, align)
    labels = moved.moving_labels
    warped = warp_labels(labels, predictor(moved.moving, pair.fixed).displacement, structures)
    scores = [
        dice(mask, pair.fixed_labels == value)
        for mask, value in zip(warped, structures, strict=True)
        if (labels == value).any() and (pair.fixed_labels == value).any()
    ]
    return float(np.mean(scores)) if scores else float("nan")
