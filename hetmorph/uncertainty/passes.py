"""What estimates that register many times share: checks, and how many pairs go through the model together."""

import numpy as np

VOXELS_TOGETHER = 8 * 128 * 128


def checked_pair(moving, fixed) -> tuple[np.ndarray, np.ndarray]:
    """Two images `[*S]` as float32 of one shape, finite; ValueError otherwise."""
    moving, fixed = np.asarray(moving, np.float32), np.asarray(fixed, np.float32)
    if moving.shape != fixed.shape or moving.ndim not in (2, 3) or not moving.size:
        raise ValueError(
            f"expected moving and fixed of one 2-D or 3-D shape without channels, got {moving.shape} and {fixed.shape}"
        )
    for role, image in (("moving", moving), ("fixed", fixed)):
        if not np.isfinite(image).all():
            raise ValueError(f"the {role} image holds NaN or infinity")
    return moving, fixed


def batch_size(batch: int | None, shape) -> int:
    """The batch asked for, or what keeps the voxels of a batch below a bound."""
    if batch is None:
        return max(1, VOXELS_TOGETHER // int(np.prod(shape)))
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    return batch


def finite(displacements: np.ndarray) -> np.ndarray:
    """The displacements, which are refused if any is NaN or infinite."""
    if not np.isfinite(displacements).all():
        raise ValueError("the model answered with a displacement that holds NaN or infinity")
    return displacements
