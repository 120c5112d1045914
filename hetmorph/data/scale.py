"""Intensities of one image to [0, 1] by what they mean: Hounsfield units of CT, quantiles of MR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hetmorph.io import DataError, Image

CT, MRI = MODALITIES = ("ct", "mri")
AIR = -1000.0  # Hounsfield units
_WINDOW = (AIR, 1000.0)
_TOP = 0.99


@dataclass(frozen=True)
class Scale:
    """How the intensities of one image become numbers in [0, 1], as uniGradICON was trained.

    Of CT those of a window of Hounsfield units; of MR those from the smallest, or from a quantile, to a quantile. What
    lies beyond is clipped.

    Args:
        modality: "ct" or "mri".
        window: lowest and highest Hounsfield unit of CT.
        quantiles: those of MR that become 0 and 1; None takes the smallest intensity and the quantile 0.99. The
            quantile q of n voxels is the one at place ⌊q·n⌋ of their order, counted from 1.

    Raises:
        ValueError: another modality, or bounds that hold nothing.

    Example:
        >>> seen = Scale("ct", window=(-200, 300)).of(image)
    """

    modality: str
    window: tuple[float, float] = _WINDOW
    quantiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ValueError(f"expected a modality of {', '.join(MODALITIES)}, received {self.modality!r}")
        low, high = self.window
        if not low < high:
            raise ValueError(f"expected a window from a lower to a higher intensity, received {low:g} to {high:g}")
        if self.quantiles is not None and not 0 <= self.quantiles[0] < self.quantiles[1] <= 1:
            raise ValueError(
                f"expected quantiles 0 <= lower < upper <= 1, received {self.quantiles[0]:g} and {self.quantiles[1]:g}"
            )

    def of(self, image: Image) -> np.ndarray:
        """The image in [0, 1], `[*S]` float32.

        Args:
            image: with its own intensities.

        Raises:
            DataError: it is constant, or the same at both bounds.
        """
        values = image.array.astype(np.float32)
        if values.min() == values.max():
            raise DataError(f"{image.path}: the image is constant ({values.min():g}): there is nothing to register.")
        low, high = self.window if self.modality == CT else self._bounds(values)
        if not low < high:
            raise DataError(
                f"{image.path}: the intensity is {low:g} at the lower and {high:g} at the upper quantile: expected "
                "more at the upper one; most of the image may be background."
            )
        seen = (np.clip(values, low, high) - np.float32(low)) / np.float32(high - low)
        if seen.min() == seen.max():
            raise DataError(
                f"{image.path}: expected intensities of CT from {low:g} to {high:g}, received {values.min():g} to "
                f"{values.max():g}: nothing is left to register."
            )
        return seen

    def _bounds(self, values: np.ndarray) -> tuple[float, float]:
        if self.quantiles is None:
            return float(values.min()), _quantile(values, _TOP)
        return tuple(_quantile(values, q) for q in self.quantiles)


def _quantile(values: np.ndarray, q: float) -> float:
    place = max(1, min(int(q * values.size), values.size)) - 1
    return float(np.partition(values, place, axis=None)[place])
