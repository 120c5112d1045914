from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.transforms import preimages
from tests import reference

VOXELS = 1e-3


def voxels(shape):
    return np.stack(np.indices(shape), -1).astype(float)


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


def image_of(u, points):
    """x + u(x), by scipy."""
    where = np.moveaxis(points, -1, 0)
    shift = [ndimage.map_coordinates(u[..., i], where, order=1, mode="nearest") for i in range(u.shape[-1])]
    return points + np.stack(shift, -1)


def steep():
    """An axis stretched by 2.5 in its middle: every fixed-point step leads farther away (slope 1.5 > 1)."""
    u = np.zeros((48, 12, 2))
    u[..., 0] = 1.5 * np.clip(np.arange(48) - 18, 0, 12)[:, None]
    return u


def shear():
    """Determinant 1 everywhere, slopes up to 2."""
    u = np.zeros((40, 40, 2))
    u[..., 0] = 4 * np.sin(0.5 * np.arange(40))
    return u


def nearly_folding(seed, shape, sigma):
    """A random field scaled until its smallest determinant is just above 0."""
    u = reference.smooth_field(np.random.default_rng(seed), shape, 1.0, sigma).astype(float)
    low, high = 0.0, 40.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if least_determinant(middle * u) > 1e-3 else (low, middle)
    return low * u


CASES = {
    "steep": steep,
    "shear": shear,
    **{f"2-D {seed}": partial(nearly_folding, seed, (64, 56), 4) for seed in range(4)},
    **{f"3-D {seed}": partial(nearly_folding, seed, (24, 28, 20), 3) for seed in range(2)},
    "2-D rough": partial(nearly_folding, 0, (30, 34), 1),
    "3-D rough": partial(nearly_folding, 0, (14, 16, 12), 1),
}


@pytest.mark.quick("2-D 0", "2-D 1", "2-D 2", "2-D 3", "3-D 0", "2-D rough", "3-D rough", "shear", "steep")
@pytest.mark.parametrize("name", CASES)
def test_where_nothing_folds_every_voxel_is_found(name):
    """Law: on any map with det > 0 the residual is below 1e-3 voxel, by our own word and by scipy's."""
    u = CASES[name]()
    assert least_determinant(u) > 0
    targets = voxels(u.shape[:-1])
    found = preimages(u, targets)
    assert found.residual.max() < VOXELS
    assert np.abs(image_of(u, found.points) - targets).max() < VOXELS


@pytest.mark.parametrize("degrees", [30, 100, 179])
def test_a_turn_comes_back_within_the_grid(rng, degrees):
    """Beyond the grid, where the edges go on as translations, other points are taken there, too."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn, centre = np.array([[c, s], [-s, c]]), np.array([14.5, 16.5])
    index = voxels((30, 34)) - centre
    start = rng.uniform(0, [29, 33], (500, 2))
    found = preimages(index @ turn - index, (start - centre) @ turn + centre)
    np.testing.assert_allclose(found.points, start, atol=1e-6)
    assert found.residual.max() < 1e-9


def test_the_fixed_point_iteration_of_before_fails_on_a_steep_map():
    """Why it is gone: twenty undamped steps of v ← −u(x + v) are 10 voxels off here, and said nothing."""
    u = steep()
    targets = voxels(u.shape[:-1])
    back = np.zeros_like(u)
    for _ in range(20):
        back = -(image_of(u, targets + back) - targets - back)
    assert np.abs(image_of(u, targets + back) - targets).max() > 5


def test_a_map_of_folds_still_has_a_preimage_almost_everywhere():
    u = reference.smooth_field(np.random.default_rng(1), (96, 96), 10.0, 4).astype(float)
    assert least_determinant(u) < 0
    found = preimages(u, voxels(u.shape[:-1]))
    assert (found.residual > VOXELS).mean() < 0.01
    error = np.linalg.norm(image_of(u, found.points) - voxels(u.shape[:-1]), axis=-1)
    np.testing.assert_allclose(error, found.residual, atol=1e-6)  # what is left is told


def test_points_far_outside_move_with_the_edge():
    u = np.zeros((8, 9, 2)) + [1.5, -2.0]
    far = np.array([[-1e5, 3.0], [4.0, 1e5], [2e4, -3e4]])
    np.testing.assert_allclose(preimages(u, far).points, far - [1.5, -2.0])


@pytest.mark.parametrize("shape", [(1, 12, 13), (12, 1), (7,), (1, 1)])
def test_axes_of_one_voxel(shape):
    u = np.zeros((*shape, len(shape))) + 0.25
    np.testing.assert_allclose(preimages(u, voxels(shape)).points, voxels(shape) - 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("u", "targets", "message"),
    [
        (np.zeros((4, 5, 3)), np.zeros((2, 3)), r"received \(4, 5, 3\)"),
        (np.zeros((4, 5, 2)), np.zeros((2, 3)), r"and \(2, 3\)"),
        (np.full((4, 5, 2), np.nan), np.zeros((2, 2)), "NaN"),
        (np.zeros((4, 5, 2)), np.full((2, 2), np.inf), "infinity"),
    ],
)
def test_what_cannot_be_inverted_is_refused(u, targets, message):
    with pytest.raises(ValueError, match=message):
        preimages(u, targets)
