"""Images and labels through a transform."""

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.io import Grid, Transform, inverse, warp_image, warp_labels
from hetmorph.ops.warp import warp
from tests.io.worlds import GRIDS_2D, GRIDS_3D, moving_of, smooth_transform

every_grid = pytest.mark.parametrize("grid", [*GRIDS_3D.values(), *GRIDS_2D.values()])


@every_grid
def test_on_one_grid_it_is_the_warp_of_the_networks(grid, rng):
    transform, array = smooth_transform(rng, grid), rng.normal(size=grid.shape).astype(np.float32)
    expected = warp(array[None, ..., None], transform.displacement[None]).numpy()[0, ..., 0]
    np.testing.assert_allclose(warp_image(transform, array, grid, outside=None), expected, atol=1e-5)


@every_grid
def test_without_displacement_it_is_resampling_by_header(grid, rng):
    moving = moving_of(grid)
    transform = Transform(np.zeros((*grid.shape, grid.ndim)), grid)
    array = rng.normal(size=moving.shape)
    where = moving.index(grid.world(grid.indices()))
    expected = ndimage.map_coordinates(array, np.moveaxis(where, -1, 0), order=1, mode="nearest")
    np.testing.assert_allclose(warp_image(transform, array, moving, outside=None), expected, atol=1e-4)


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_outside_the_moving_image_is_the_value_given(method):
    grid = Grid((10, 10), np.eye(4))
    transform = Transform(np.full((10, 10, 2), [5.0, 0]), grid)
    array = np.full((10, 10), 7, np.int16)
    for outside, expected in ((0.0, 0), (-1000, -1000), (None, 7)):
        moved = warp_image(transform, array, grid, method, outside)
        assert (moved[:5] == 7).all() and (moved[5:] == expected).all()
    assert warp_image(transform, array, grid, "nearest").dtype == np.int16


def test_frames_go_through_the_same_transform(rng):
    grid = GRIDS_3D["oblique"]
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    cine = rng.normal(size=(*moving.shape, 4)).astype(np.float32)
    together = warp_image(transform, cine, moving)
    assert together.shape == (*grid.shape, 4)
    np.testing.assert_array_equal(together[..., 2], warp_image(transform, cine[..., 2], moving))


def ellipses(shape):
    """Three nested labels with boundaries between voxels."""
    index = np.indices(shape) - np.reshape((np.array(shape) - 1) / 2, (-1, *[1] * len(shape)))
    radius = np.sqrt((index**2 * np.reshape([1, 1.6, 1.2][: len(shape)], (-1, *[1] * len(shape)))).sum(0))
    return np.select([radius < 4, radius < 7, radius < 9.5], [3, 1, 2], 0).astype(np.uint8)


@every_grid
@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_labels_stay_labels(grid, method, rng):
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    labels = ellipses(moving.shape)
    moved = warp_labels(transform, labels, moving, method)
    assert moved.dtype == np.uint8 and moved.shape == grid.shape
    assert set(np.unique(moved)) <= {0, 1, 2, 3}
    still = Transform(np.zeros((*moving.shape, moving.ndim)), moving)
    np.testing.assert_array_equal(warp_labels(still, labels, moving, method), labels)


def test_linear_labels_are_the_largest_share(rng):
    grid = GRIDS_3D["anisotropic"]
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    labels = ellipses(moving.shape)
    where = np.moveaxis(transform.positions(moving), -1, 0)
    shares = [ndimage.map_coordinates((labels == v) * 1.0, where, order=1, mode="nearest") for v in range(4)]
    ordered = np.sort(shares, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-4
    clear &= (where > 0).all(0) & (where < np.reshape(moving.shape, (3, 1, 1, 1)) - 1).all(0)
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(warp_labels(transform, labels, moving)[clear], np.argmax(shares, 0)[clear])


def test_linear_labels_keep_the_area_better_than_nearest(rng):
    # a disc moved by fractions of a voxel: nearest moves whole voxels
    grid = Grid((40, 40), np.eye(4))
    index = np.indices((40, 40))
    truth = lambda shift: ((index[0] + shift - 19.6) ** 2 + (index[1] + shift - 20.2) ** 2 < 100).astype(np.uint8)  # noqa: E731
    moved = Transform(np.full((40, 40, 2), 0.37), grid)
    wrong = {m: (warp_labels(moved, truth(0), grid, m) != truth(0.37)).sum() for m in ("linear", "nearest")}
    assert wrong["linear"] < wrong["nearest"]


def test_ties_go_to_the_smaller_label_and_outside_to_background():
    grid = Grid((6, 6), np.eye(4))
    labels = np.zeros((6, 6), np.int16)
    labels[:3], labels[3:] = 5, -2
    half = Transform(np.full((6, 6, 2), [0.5, 0]), grid)
    expected = np.repeat(np.array([5, 5, -2, -2, -2, -2])[:, None], 6, 1)
    np.testing.assert_array_equal(warp_labels(half, labels, grid), expected)
    away = Transform(np.full((6, 6, 2), [0, -2.0]), grid)
    assert not warp_labels(away, labels, grid)[:, :2].any() and warp_labels(away, labels, grid)[:, 2:].all()


def test_many_label_values_and_background_only(rng):
    grid = GRIDS_3D["plain"]
    still = Transform(np.zeros((*grid.shape, 3)), grid)
    labels = rng.integers(0, 3000, grid.shape).astype(np.uint16)
    np.testing.assert_array_equal(warp_labels(still, labels, grid), labels)
    assert not warp_labels(still, np.zeros(grid.shape, np.uint8), grid).any()


@every_grid
def test_the_inverse_brings_the_image_back(grid, rng):
    transform = Transform(smooth_transform(rng, grid, 0.6).displacement, grid)
    back = inverse(transform, grid).transform
    places = grid.world(rng.uniform(2, np.array(grid.shape) - 3, (40, grid.ndim)))
    np.testing.assert_allclose(back.world(transform.world(places)), places, atol=0.06 * max(grid.spacing))


def test_what_does_not_fit_is_refused(rng):
    grid = GRIDS_3D["plain"]
    transform = smooth_transform(rng, grid)
    with pytest.raises(ValueError, match="3-D transform"):
        warp_image(transform, np.zeros((16, 12)), GRIDS_2D["plain"])
    with pytest.raises(ValueError, match="grid of the moving image"):
        warp_image(transform, np.zeros((3, 3, 3)), grid)
    with pytest.raises(ValueError, match="one of"):
        warp_image(transform, np.zeros(grid.shape), grid, "best")
    with pytest.raises(ValueError, match="one of"):
        warp_labels(transform, np.zeros(grid.shape, int), grid, "cubic")
    with pytest.raises(ValueError, match="whole numbers"):
        warp_labels(transform, np.full(grid.shape, 0.5), grid)
    with pytest.raises(ValueError, match="expected labels"):
        warp_labels(transform, np.zeros((*grid.shape, 2), int), grid)


def test_what_lies_elsewhere_is_not_warped_to_zeros():
    grid, away = Grid((6, 6), np.eye(4)), Grid((6, 6), np.array(np.eye(4) + np.eye(4, k=3) * 100))
    still = Transform(np.zeros((6, 6, 2)), grid)
    with pytest.raises(ValueError, match="none of the .* voxels of the fixed image is taken into"):
        warp_labels(still, np.ones((6, 6), np.uint8), away)
    with pytest.raises(ValueError, match="their headers place them apart"):
        warp_image(still, np.ones((6, 6)), away)
