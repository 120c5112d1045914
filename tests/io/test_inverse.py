"""The inverse of a displacement: a law for every map that does not fold, and what is said of the others."""

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.io import DataWarning, Grid, Transform, inverse
from hetmorph.io.inverse import Inverse
from tests.io.worlds import GRIDS_3D, moving_of, smooth_transform


def least_determinant(u):
    """Of y + u(y), u linear between voxels: in each cell and at each of its corners."""
    n, lowest = u.shape[-1], np.inf
    for corner in product((0, 1), repeat=n):
        columns = []
        for axis in range(n):
            low = [slice(c, size - 1 + c) for c, size in zip(corner, u.shape, strict=False)]
            high = [*low]
            low[axis], high[axis] = slice(0, -1), slice(1, None)
            columns.append(u[tuple(high)] - u[tuple(low)])
        lowest = min(lowest, np.linalg.det(np.stack(columns, -1) + np.eye(n)).min())
    return lowest


def nearly_folding(rng, shape, width):
    """A random map enlarged until its least determinant is 0.001."""
    raw = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), width) for _ in shape], -1)
    low, high = 0.0, 200.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if least_determinant(middle * raw) > 1e-3 else (low, middle)
    return low * raw


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("shape", [(30, 34), (14, 16, 12)])
def test_every_map_that_does_not_fold_has_its_inverse(rng, shape, width):
    u = nearly_folding(rng, shape, width)
    assert np.abs(u).max() > 0.8
    targets = rng.uniform(-3, np.array(shape) + 2, (2000, len(shape)))
    points, errors = Inverse(u)(targets)
    assert np.linalg.norm(errors, axis=-1).max() < 1e-3
    shift = np.stack([ndimage.map_coordinates(c, points.T, order=1, mode="nearest") for c in np.moveaxis(u, -1, 0)], -1)
    np.testing.assert_allclose(points + shift, targets, atol=1e-3)


@pytest.mark.parametrize("degrees", [30, 100, 179])
def test_a_turn_comes_back_within_the_grid(rng, degrees):
    """Fixed-point iteration leaves it; beyond the grid other points are taken there too."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    index = np.stack(np.indices((30, 34)), -1) - np.array([14.5, 16.5])
    u = index @ np.array([[c, s], [-s, c]]) - index
    start = rng.uniform(0, [29, 33], (500, 2))
    targets = (start - [14.5, 16.5]) @ np.array([[c, s], [-s, c]]) + [14.5, 16.5]
    points, errors = Inverse(u)(targets)
    np.testing.assert_allclose(points, start, atol=1e-6)
    assert np.abs(errors).max() < 1e-9


@pytest.mark.parametrize("name", ["plain", "oblique flipped permuted"])
def test_the_inverse_in_the_world(name, rng):
    grid = GRIDS_3D[name]
    moving = moving_of(grid)
    transform = smooth_transform(rng, grid, 0.6)
    back = inverse(transform, moving)
    places = moving.world(moving.indices().reshape(-1, 3))
    np.testing.assert_allclose(transform.world(back.world(places)), places, atol=1e-3 * min(grid.spacing))


def test_what_is_not_found_is_said(rng):
    """Of a map that is nothing but folds; in voxels of 2 mm."""
    grid = Grid((20, 20), np.diag([2.0, 2.0, 1.0, 1.0]))
    folded = Transform(3 * rng.normal(size=(20, 20, 2)), grid)
    with pytest.raises(
        ValueError, match=r"wrong by up to 1\.\d voxels \(\d\.\d mm\), at .* % of the points.*--inexact"
    ):
        inverse(folded, grid)
    with pytest.warns(DataWarning, match="wrong by up to 1"):
        inverse(folded, grid, inexact=True)
