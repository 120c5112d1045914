"""The inverse of a transform on disk, with what is left of it when both are applied in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hetmorph.io.chain import SMALL, Chain
from hetmorph.io.geometry import Grid, slabs
from hetmorph.io.transforms import Transform


@dataclass(frozen=True, eq=False)
class Inverse:
    """Where each point of the moving image lies in the fixed one.

    Attributes:
        transform: on the grid of the moving image, to the fixed one.
        residual: `[*S]` how far from a voxel of the moving image the forward transform leads from where this one leads
            from there, voxels of the fixed image. It is 0 up to rounding unless the forward transform folds.
    """

    transform: Transform
    residual: np.ndarray

    @property
    def worst(self) -> float:
        """The largest residual, voxels of the fixed image."""
        return float(self.residual.max())

    def summary(self) -> dict:
        """Largest residual and the share of voxels above 0.1 and 1, for the sidecar of the file."""
        return {
            "residual_max_voxels": self.worst,
            "share_above_0.1_voxels": float((self.residual > SMALL).mean()),
            "share_above_1_voxel": float((self.residual > 1).mean()),
        }

    def __str__(self) -> str:
        if self.worst <= SMALL:
            return f"inverse: residual at most {self.worst:.1g} voxels"
        share = 100 * (self.residual > SMALL).mean()
        return f"inverse: residual up to {self.worst:.2g} voxels, above {SMALL} in {share:.2g} % of the voxels"


def inverse(transform: Transform | Chain, moving: Grid) -> Inverse:
    """The inverse of a transform, on the grid of the moving image.

    Every voxel of the moving image is searched for in the fixed one, so that nothing is interpolated but the transform
    itself; of several that follow each other, through the last one first. Where one folds, one of the preimages is
    taken.

    Args:
        transform: fixed to moving.
        moving: grid of the moving image.

    Raises:
        ValueError: grids of different numbers of axes.

    Example:
        >>> back = inverse(read_transform("warp.nii.gz"), moving.grid)
        >>> write_transform("back.nii.gz", back.transform)
    """
    fixed = transform.grid
    if moving.ndim != fixed.ndim:
        raise ValueError(f"a {fixed.ndim}-D transform for a moving image {moving.shape}")
    forth = Chain([transform], fixed)
    back, parts, residuals = forth.inverse(moving), [], []
    for index, _ in slabs(moving.shape):
        places = moving.world(index.reshape(-1, moving.ndim))
        there, _ = back.through(places)
        again, _ = forth.through(there)
        parts.append((moving.index(there).reshape(index.shape) - index).astype(np.float32))
        residuals.append(np.linalg.norm(fixed.index(again) - fixed.index(places), axis=-1).reshape(index.shape[:-1]))
    return Inverse(Transform(np.concatenate(parts), moving), np.concatenate(residuals))
