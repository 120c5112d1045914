"""Intensities by what they mean: Hounsfield units of CT, quantiles of MR, for models that were trained on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hetmorph.data.normalise import minmax
from hetmorph.data.scale import Scale
from hetmorph.io import DataError, Image, matched_grid


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
            modalities: those of the model; none stretches images.
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
