"""Intensities to [0, 1]."""

from __future__ import annotations

import numpy as np


def minmax(image: np.ndarray) -> np.ndarray:
    """Stretches an image to [0, 1]: (x - min) / (max - min); a constant image becomes zeros, never NaN.

    Args:
        image: real array of any shape and unit, finite.

    Returns:
        float32 array of the same shape.

    Raises:
        ValueError: the image holds NaN or infinite values.
    """
    values = np.asarray(image, np.float64)
    if values.size == 0:
        return values.astype(np.float32)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"expected finite intensities, received a range of {low} to {high}.")
    # halves first: the range of extreme float64 values overflows
    extent = high / 2 - low / 2
    if extent <= 0:
        return np.zeros(values.shape, np.float32)
    return np.clip((values / 2 - low / 2) / extent, 0, 1).astype(np.float32)
