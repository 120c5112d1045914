import numpy as np
import pytest
from scipy import ndimage

from hetmorph.transforms import preimages
from tests import reference

VOXELS = 1e-3


def voxels(shape):
    return np.stack(np.indices(shape), -1).astype(float)


def least_determinant(u):
    """Smallest det(I + ∇u) over the cells, from differences of their edges: u is linear along them."""
    ndims = u.shape[-1]
    jacobian = np.stack([np.stack(np.gradient(u[..., i]), -1) for i in range(ndims)], -2) + np.eye(ndims)
    return np.linalg.det(jacobian).min()


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
    """A smooth random field scaled until its smallest determinant is just above 0."""
    u = reference.smooth_field(np.random.default_rng(seed), shape, 1.0, sigma).astype(float)
    low, high = 0.0, 40.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if least_determinant(middle * u) > 0.05 else (low, middle)
    return low * u


CASES = {
    "steep": steep(),
    "shear": shear(),
    **{f"2-D {seed}": nearly_folding(seed, (64, 56), 4) for seed in range(4)},
    **{f"3-D {seed}": nearly_folding(seed, (24, 28, 20), 3) for seed in range(2)},
}


@pytest.mark.parametrize("name", CASES)
def test_where_nothing_folds_every_voxel_is_found(name):
    """Law: on any map with det > 0 the residual is below 1e-3 voxel, by our own word and by scipy's."""
    u = CASES[name]
    assert least_determinant(u) > 0
    targets = voxels(u.shape[:-1])
    found = preimages(u, targets)
    assert found.residual.max() < VOXELS
    assert np.abs(image_of(u, found.points) - targets).max() < VOXELS


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
