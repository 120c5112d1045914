"""Pairs of which a linear transform brings the moving image near, as they have been read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from hetmorph.data.pair import Pair
from hetmorph.io import Grid, Image, resample
from hetmorph.io.chain import Linear


def aligned(pair: Pair, align: Callable[[Image, Image], Linear]) -> Pair:
    """The pair with its moving image, and all that lies on it, seen through a linear transform.

    Args:
        pair: the pair.
        align: the function of the moving and the fixed image, in the world that their spacing makes.

    Returns:
        The same with another moving image, labels, mask and landmarks; of a true displacement, what is left of it.
    """
    affine = np.diag([*pair.spacing, 1.0, 1.0, 1.0][:3] + [1.0])
    grid = Grid(pair.fixed.shape, affine)
    moving, fixed = (Image(x, pair.spacing, affine, True, Path(pair.case_id)) for x in (pair.moving, pair.fixed))
    linear = align(moving, fixed)
    pull = partial(resample, source=grid, target=grid, through=linear)
    nearest = {
        name: pull(array.astype(np.uint8 if array.dtype == bool else array.dtype), method="nearest").astype(array.dtype)
        for name in ("moving_labels", "mask_moving")
        if (array := getattr(pair, name)) is not None
    }
    return dataclasses.replace(
        pair,
        moving=np.clip(pull(pair.moving), 0, 1).astype(np.float32),
        points_moving=None if pair.points_moving is None else before(pair.points_moving, linear, grid),
        displacement=None if pair.displacement is None else _left(pair.displacement, linear, grid),
        foreground=None,
        **nearest,
    )


def before(points: np.ndarray, linear: Linear, grid: Grid) -> np.ndarray:
    """Points that a transform takes to points of the moving image: there a model sees them.

    Args:
        points: `[P, N]` voxels of the moving image's place on `grid`.
        linear: fixed to moving.
        grid: the grid of the fixed image.
    """
    return grid.index(linear.inverse().world(grid.world(points))).astype(np.float32)


def _left(displacement: np.ndarray, linear: Linear, grid: Grid) -> np.ndarray:
    """Of φ = linear∘ψ, the displacement of ψ."""
    index = np.stack(np.indices(grid.shape), -1)
    there = (index + displacement).reshape(-1, grid.ndim)
    return (before(there, linear, grid).reshape(index.shape) - index).astype(np.float32)
