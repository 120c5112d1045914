"""A transform: a function of points."""

from __future__ import annotations

import numpy as np

from hetmorph.transforms.arrays import as_points, library, voxels


class Transform:
    """A function of points φ, from the frame of the fixed image to that of the moving one.

    Points are `[B, *T, N]` in a stated frame: voxel indices unless a transform says otherwise (`frame.py`). A batch of
    one meets any batch. With numpy arrays a transform computes in double precision, and TensorFlow is not imported;
    with tensors in float32, and gradients pass.

    A subclass gives `__call__`, and `inverse` where it has one.

    Attributes:
        ndims: N.
        arrays: what it is made of; of tensors, it computes in their graph.

    Example:
        >>> class Flip(Transform):
        ...     ndims = 2
        ...     def __call__(self, points):
        ...         return -points
        >>> (Flip() @ Flip())(np.ones([1, 5, 2]))
    """

    ndims: int
    arrays: tuple = ()

    def __call__(self, points):
        """Where the points come to lie, same shape."""
        raise NotImplementedError

    def inverse(self) -> Transform:
        """The transform that takes φ(x) to x.

        Raises:
            NotImplementedError: it has none that can be computed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def __matmul__(self, inner: Transform) -> Transform:
        """`outer @ inner`, the composition φ_outer∘φ_inner: points go through `inner` first. Nothing is resampled."""
        from hetmorph.transforms.composition import Composition

        return Composition(self, inner)

    def displacement(self, shape) -> np.ndarray:
        """φ(x) − x at every voxel of a grid.

        Args:
            shape: `(*S)` of the grid.

        Returns:
            `[B, *S, N]`, in the frame of the transform; a tensor if it is made of tensors.
        """
        if len(shape) != self.ndims:
            raise ValueError(f"a {self.ndims}-D transform has no displacement on a grid of shape {tuple(shape)}")
        points = voxels(shape, *self.arrays)
        moved = self(points)
        return moved - as_points(points, moved)

    def jacobian(self, points, step: float = 1e-3):
        """∂φ_i/∂x_j at points, `[B, *T, N, N]`, by central differences.

        Args:
            points: `[B, *T, N]`.
            step: half the distance between the two points of a difference; below the kinks of what it differentiates.
        """
        points = self._checked(points)
        columns = []
        for axis in range(self.ndims):
            shift = step * np.eye(self.ndims)[axis]
            shift = shift.astype("float32") if library(points) is not np else shift
            columns.append((self(points + shift) - self(points - shift)) / (2 * step))
        return library(*columns).stack(columns, axis=-1)

    def _checked(self, points, *others):
        points = as_points(points, *others)
        if len(points.shape) < 2 or points.shape[-1] != self.ndims:
            raise ValueError(
                f"expected points [batch, ..., {self.ndims}] for a {self.ndims}-D transform, "
                f"received shape {tuple(points.shape)}"
            )
        return points


class Identity(Transform):
    """φ(x) = x.

    Args:
        ndims: number of axes.
    """

    def __init__(self, ndims: int):
        self.ndims = ndims

    def __call__(self, points):
        return self._checked(points)

    def inverse(self) -> Identity:
        return self
