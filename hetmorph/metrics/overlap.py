"""Overlap of two binary masks, and the checks that all metrics of masks share."""

import numpy as np


def dice(a, b) -> float:
    """Dice overlap 2|A∩B| / (|A| + |B|) of two binary masks.

    Two empty masks have no overlap to speak of: the result is NaN, so that a structure absent from a slice
    neither rewards nor punishes a mean (averages leave NaN out and report how many values they hold). One
    empty mask against a filled one is 0.

    Args:
        a: `[*S]`, False/True or 0/1.
        b: same shape.

    Returns:
        Between 0 and 1, or NaN when both masks are empty.

    Raises:
        ValueError: shapes differ, or a mask is not binary.

    Example:
        >>> dice([1, 1, 0, 0], [0, 1, 1, 0])
        0.5

    Reference:
        Dice, Ecology 1945, doi:10.2307/1932409.
    """
    a, b = binary_pair(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else float("nan")


def binary_mask(mask, name: str = "mask") -> np.ndarray:
    """The mask as booleans; refuses what is not plainly binary.

    Args:
        mask: array of any shape holding False/True or 0/1.
        name: what to call it in the error.

    Raises:
        ValueError: no axes, no voxels, NaN, or values other than 0 and 1.
    """
    mask = np.asarray(mask)
    if mask.ndim == 0 or mask.size == 0:
        raise ValueError(f"{name}: expected an array with voxels, got shape {mask.shape}")
    if mask.dtype == bool:
        return mask
    inside = mask == 1
    if not np.all(inside | (mask == 0)):
        strange = mask[~(inside | (mask == 0))].ravel()[0]
        raise ValueError(
            f"{name}: expected a binary mask of 0 and 1, got the value {strange!r}; "
            "select one label (labels == k) or threshold first"
        )
    return inside


def binary_pair(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Two masks as booleans of the same shape; ValueError otherwise.

    Args:
        a, b: arrays of False/True or 0/1.
    """
    a, b = binary_mask(a, "first mask"), binary_mask(b, "second mask")
    if a.shape != b.shape:
        raise ValueError(f"masks must have the same shape, got {a.shape} and {b.shape}")
    return a, b
