"""Intensities by what they mean: Hounsfield units of CT, quantiles of MR, for models that were trained on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hetmorph.data.normalise import minmax
from hetmorph.io import DataError, Image, matched_grid

CT, MRI = MODALITIES = ("ct", "mri")
_WINDOW = (-1000.0, 1000.0)
_TOP = 0.99


@dataclass(frozen=True)
class Scale:
    """How the intensities of one image become numbers in [0, 1], as uniGradICON was trained.

    Of CT those of a window of Hounsfield units; of MR those from the smallest, or from a quantile, to a quantile. What
    lies beyond is clipped.

    Args:
        modality: "ct" or "mri".
        window: lowest and highest Hounsfield unit of CT.
        quantiles: of MR; None takes the smallest intensity and the quantile 0.99. The quantile q of n voxels is the one
            at place ⌊q·n⌋ of their order, counted from 1.

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


@dataclass(frozen=True, eq=False)
class Intensities:
    """What a model is shown of a pair, instead of each image stretched from its smallest to its largest intensity.

    Attributes:
        moving, fixed: how the intensities are scaled; None stretches them.
        mask_moving, mask_fixed: the model sees 0 where these are 0, each on the grid of its image; None leaves all.
    """

    moving: Scale | None = None
    fixed: Scale | None = None
    mask_moving: Image | None = None
    mask_fixed: Image | None = None

    @classmethod
    def for_model(cls, modalities: Sequence[str], given: Intensities | None) -> Intensities | None:
        """What a model is shown that was made for images of some modalities; where that is one, it need not be told.

        Args:
            modalities: of the model; none stretches images.
            given: what is known of the pair.

        Raises:
            ValueError: one of several modalities is not known.
        """
        given = given or cls()
        if not modalities or None not in (given.moving, given.fixed):
            return given if any(vars(given).values()) else None
        if len(modalities) > 1:
            raise ValueError(
                f"this model takes images scaled by their modality, {' or '.join(modalities)}: expected that of the "
                "moving and of the fixed image"
            )
        own = Scale(modalities[0])
        return replace(given, moving=given.moving or own, fixed=given.fixed or own)

    def of(self, moving: Image, fixed: Image) -> tuple[np.ndarray, np.ndarray]:
        """Both images as they are shown, `[*S]` each on its own grid.

        Args:
            moving, fixed: with their own intensities.

        Raises:
            DataError: as `Scale.of`, or a mask on another grid than its image.
        """
        shown = []
        for image, scale, mask in ((moving, self.moving, self.mask_moving), (fixed, self.fixed, self.mask_fixed)):
            array = _stretched(image) if scale is None else scale.of(image)
            shown.append(array if mask is None else array * _inside(mask, image))
        return tuple(shown)


def _stretched(image: Image) -> np.ndarray:
    return minmax(image.array)


def _inside(mask: Image, image: Image) -> np.ndarray:
    mask = mask.trimmed().with_axes_of(image)
    if mask.array.shape != image.array.shape or not matched_grid(mask, image).same(image.grid):
        raise DataError(
            f"{mask.path}: expected a mask on the grid of {image.path}, {image.array.shape} voxels, received "
            f"{mask.array.shape} voxels{'' if mask.array.shape != image.array.shape else ' elsewhere'}."
        )
    if not (mask.array > 0).any():
        raise DataError(f"{mask.path}: the mask is empty, so that the model would see nothing.")
    return mask.array > 0


def _quantile(values: np.ndarray, q: float) -> float:
    place = max(1, min(int(q * values.size), values.size)) - 1
    return float(np.partition(values, place, axis=None)[place])
