"""Checks shared by the metrics of binary masks."""

import numpy as np


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
    """Two masks as booleans of the same shape; ValueError otherwise."""
    a, b = binary_mask(a, "first mask"), binary_mask(b, "second mask")
    if a.shape != b.shape:
        raise ValueError(f"masks must have the same shape, got {a.shape} and {b.shape}")
    return a, b
