"""Affine transforms."""

from __future__ import annotations

import numpy as np

from hetmorph.transforms.arrays import as_points, is_tensor, library
from hetmorph.transforms.base import Transform


class Affine(Transform):
    """φ(x) = A·x + t.

    Args:
        matrix: A, `[N, N]` for all samples or `[B, N, N]` for each its own.
        offset: t, `[N]` or `[B, N]` likewise.

    Raises:
        ValueError: the shapes do not fit.
    """

    def __init__(self, matrix, offset):
        self.matrix, self.offset = as_points(matrix, offset), as_points(offset, matrix)
        self.arrays = (self.matrix,)
        n = self.matrix.shape[-1]
        if len(self.matrix.shape) not in (2, 3) or self.matrix.shape[-2] != n or self.offset.shape[-1] != n:
            raise ValueError(
                "expected a matrix [N, N] or [B, N, N] and an offset [N] or [B, N], received "
                f"{tuple(self.matrix.shape)} and {tuple(self.offset.shape)}"
            )
        self.ndims = int(n)

    @classmethod
    def about(cls, centre, matrix, shift=0.0) -> Affine:
        """A matrix that leaves a centre in place, and a shift: φ(x) = A·(x − c) + c + t.

        Args:
            centre: c, `[N]`.
            matrix: A, `[N, N]` or `[B, N, N]`.
            shift: t, `[N]` or `[B, N]`.
        """
        matrix = as_points(matrix)
        centre = as_points(centre, matrix)
        return cls(matrix, centre - _times(matrix, centre) + shift)

    def __call__(self, points):
        points = self._checked(points, self.matrix)
        matrix, offset = self.matrix, self.offset
        if is_tensor(points):
            matrix, offset = as_points(matrix, points), as_points(offset, points)
        return _times(matrix, points) + _beside(offset, points)

    def after(self, inner: Affine) -> Affine:
        """φ∘φ_inner as one affine transform."""
        outer, matrix = as_points(self.matrix, inner.matrix), as_points(inner.matrix, self.matrix)
        offset = _times(outer, as_points(inner.offset, outer)) + as_points(self.offset, outer)
        return Affine(library(outer).matmul(outer, matrix), offset)

    def inverse(self) -> Affine:
        """Exact."""
        inverse = _inverse(self.matrix)
        return Affine(inverse, -_times(inverse, self.offset))

    def jacobian(self, points, step: float = 1e-3):
        points = self._checked(points, self.matrix)
        matrix = as_points(self.matrix, points)
        if len(matrix.shape) == 3:
            matrix = matrix[(slice(None), *[None] * (len(points.shape) - 2))]
        return library(points).broadcast_to(matrix, (*points.shape, self.ndims))


def _inverse(matrix):
    """The inverse of `[N, N]` or `[B, N, N]`; of small tensors by cofactors, since ONNX has no operation for it."""
    lib, n = library(matrix), matrix.shape[-1]
    if lib is np or n not in (1, 2, 3):
        return lib.linalg.inv(matrix)
    if n == 1:
        return 1 / matrix
    rows = lib.unstack(matrix, axis=-2)
    if n == 2:
        columns = [lib.roll(rows[1], 1, -1) * [1.0, -1.0], lib.roll(rows[0], 1, -1) * [-1.0, 1.0]]
    else:
        columns = [_cross(rows[i - 2], rows[i - 1]) for i in range(n)]
    determinant = lib.reduce_sum(rows[0] * columns[0], -1, keepdims=True)
    return lib.stack([column / determinant for column in columns], -1)


def _cross(a, b):
    """The cross product along the last axis."""
    lib = library(a)
    return lib.roll(a, -1, -1) * lib.roll(b, -2, -1) - lib.roll(a, -2, -1) * lib.roll(b, -1, -1)


def _times(matrix, vectors):
    """Matrices `[N, N]` or `[B, N, N]` times vectors `[N]`, `[B, N]` or `[B, *T, N]`; a batch of one meets any."""
    lib, rank = library(matrix, vectors), len(vectors.shape)
    if len(matrix.shape) == 2:
        return lib.tensordot(vectors, matrix, [[rank - 1], [1]])
    if rank == 1:
        return lib.einsum("bij,j->bi", matrix, vectors)
    between = [1] * (rank - 2)
    turned = lib.reshape(lib.einsum("bij->bji", matrix), [-1, *between[1:], *matrix.shape[1:]])
    return lib.matmul(vectors, turned) if between else lib.matmul(vectors[:, None], turned)[:, 0]


def _beside(offset, points):
    """An offset `[N]` or `[B, N]` that can be added to points `[B, *T, N]`."""
    return offset if len(offset.shape) == 1 else offset[(slice(None), *[None] * (len(points.shape) - 2))]
