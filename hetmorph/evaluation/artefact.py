"""Where an artefact of known place lies, seen on the grid of the fixed image."""

import numpy as np
from scipy import ndimage

from hetmorph.ops.warp import warp

AROUND = 8  # voxels


def has_any(pair) -> bool:
    """Whether it is known of a `hetmorph.data.Pair` where either image has an artefact."""
    return pair.artefact_moving is not None or pair.artefact_fixed is not None


def inside(pair, displacement) -> np.ndarray | None:
    """Where the fixed image is changed, or the moved one would be, `[*S]` booleans; None where that is not known.

    Args:
        pair: a `hetmorph.data.Pair`.
        displacement: `[*S, N]` in voxels, through which the moving image is seen; its true one counts where known.
    """
    if not has_any(pair):
        return None
    displacement = displacement if pair.displacement is None else pair.displacement
    result = np.zeros(pair.fixed.shape, bool)
    if pair.artefact_moving is not None:
        mask = pair.artefact_moving.astype(np.int32)[None, ..., None]
        moved = warp(mask, np.asarray(displacement, np.float32)[None], method="nearest")
        result |= moved.numpy()[0, ..., 0] > 0
    return result if pair.artefact_fixed is None else result | pair.artefact_fixed


def around(mask: np.ndarray) -> np.ndarray:
    """What lies within 8 voxels of a mask `[*S]`, outside it."""
    return (ndimage.distance_transform_edt(~mask) <= AROUND) & ~mask if mask.any() else mask
