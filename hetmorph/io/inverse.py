"""The inverse of a transform on disk, with what is left of it when both are applied in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hetmorph.io.geometry import Grid
from hetmorph.io.transforms import Transform
from hetmorph.transforms import preimages

SMALL = 0.1  # voxels; what is off by less is not worth a word


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


def inverse(transform: Transform, moving: Grid) -> Inverse:
    """The inverse of a transform, on the grid of the moving image.

    Every voxel of the moving image is searched for in the fixed one, so that nothing is interpolated but the transform
    itself, and the residual is that of the search. Where the transform folds, one of the preimages is taken.

    Args:
        transform: fixed to moving.
        moving: grid of the moving image.

    Raises:
        ValueError: grids of different numbers of axes.

    Example:
        >>> back = inverse(read_transform("warp.nii.gz"), moving.grid)
        >>> write_transform("back.nii.gz", back.transform)
    """
    if moving.ndim != transform.grid.ndim:
        raise ValueError(f"a {transform.grid.ndim}-D transform for a moving image {moving.shape}")
    index = moving.indices()
    found = preimages(transform.displacement, transform.grid.index(moving.world(index)))
    back = moving.index(transform.grid.world(found.points)) - index
    return Inverse(Transform(back.astype(np.float32), moving), found.residual)
