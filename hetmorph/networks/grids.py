"""Which grids a registration network works on: image, U-Net output, velocity, integration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class FieldGrids:
    """How a field gets from the U-Net's output to the image grid.

    Attributes:
        multiple: images are padded to a multiple of this, or None where they fit as they are.
        to_svf, to_integration, to_image: resampling factors between successive grids, None where they are equal.
    """

    multiple: int | None
    to_svf: float | None
    to_integration: float | None
    to_image: float | None


def plan_grids(inshape: Sequence[int | None], depth: int, skips: int, svf_resolution, int_resolution) -> FieldGrids:
    """Follow VoxelMorph's rounding where it accepts the size; pad to a size it accepts elsewhere.

    Args:
        inshape: spatial sizes of the images, None where unknown.
        depth: number of poolings in the U-Net.
        skips: number of upsamplings left out at its end.
        svf_resolution, int_resolution: voxel size of the velocity and of the integration grid, in image voxels;
            `int_resolution` None when integration keeps the velocity's grid.
    """
    if None not in inshape:
        factors = _factors(inshape, depth, skips, svf_resolution, int_resolution)
        if factors is not None:
            return FieldGrids(None, *factors)
    # A size divisible by 2^depth and by both resolutions needs no rounding, whatever it is.
    numerators = [Fraction(r or 1).limit_denominator(64).numerator for r in (svf_resolution, int_resolution)]
    multiple = math.lcm(2**depth, *numerators)
    factors = _factors([multiple] * len(inshape), depth, skips, svf_resolution, int_resolution)
    return FieldGrids(multiple, *factors)


def _factors(shape, depth, skips, svf_resolution, int_resolution) -> list[float | None] | None:
    """Factors U-Net → velocity → integration → image, or None where the sizes do not work out."""
    level_shape = list(shape)
    for level in range(depth):
        # Skipped levels have no skip connection, so that nothing must fit there.
        if level >= skips and any(d % 2 for d in level_shape) or min(level_shape) < 2:
            return None
        level_shape = [d // 2 for d in level_shape]
    unet = [d // 2**skips for d in shape]
    svf = [int(np.round(d / svf_resolution)) for d in shape]
    integration = [int(np.round(d / int_resolution)) for d in shape] if int_resolution else svf
    factors = []
    for old, new in zip([unet, svf, integration], [svf, integration, list(shape)], strict=True):
        factor = None if old == new else new[0] / old[0]
        if factor and [int(d * factor + 1e-6) for d in old] != new:
            return None
        factors.append(factor)
    return factors
