"""Windows round the heart."""

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.data.crop import cut_out, fill, fit, lost, motion_center, myocardium_center, take


def test_window_is_centred_where_there_is_room():
    array = np.arange(20 * 30).reshape(20, 30)
    np.testing.assert_array_equal(take(array, (10, 12), (4, 6)), array[8:12, 9:15])


@pytest.mark.parametrize("center", [(0, 0), (-50, 3), (19, 29), (500, 500)])
def test_window_is_moved_inside_rather_than_cut(center):
    array = np.arange(20 * 30).reshape(20, 30)
    window = take(array, center, (8, 8))
    assert window.shape == (8, 8)
    assert array[0, 0] in window or array[-1, -1] in window or center == (-50, 3)


def test_small_image_is_kept_whole_and_filled_with_zeros():
    array = np.ones((5, 40))
    window = take(array, (2, 20), (9, 8))
    assert window.shape == (5, 8)
    filled = fill(window, (9, 8))
    assert filled.shape == (9, 8) and filled.sum() == 40
    np.testing.assert_array_equal(filled[2:7], 1)


def test_fill_leaves_further_axes_alone():
    assert fill(np.ones((3, 4, 5)), (6, 6)).shape == (6, 6, 5)


@pytest.mark.parametrize("shape", [(7, 10), (8, 11), (6, 7, 9)])
def test_fit_keeps_the_middle(shape):
    array = np.arange(1, np.prod(shape) + 1).reshape(shape)
    inner = fit(array, tuple(length - 4 for length in shape))
    np.testing.assert_array_equal(inner, array[(slice(2, -2),) * len(shape)])
    outer = fit(array, tuple(length + 4 for length in shape))
    np.testing.assert_array_equal(outer[(slice(2, -2),) * len(shape)], array)
    assert outer.sum() == array.sum()
    np.testing.assert_array_equal(fit(array, None), array)


def test_what_is_cut_out_is_adjusted_before_it_is_filled():
    array = np.arange(20.0).reshape(4, 5)
    result = cut_out(array, (2, 2), (2, 8), lambda window: window + 100)
    np.testing.assert_array_equal(result[:, 1:6], array[1:3] + 100)
    assert not result[:, [0, 6, 7]].any()


def test_myocardium_center_takes_the_middle_slice_or_the_next_that_has_any():
    labels = np.zeros((20, 20, 7), np.uint8)
    labels[4:7, 10:13, 5] = 2
    labels[:, :, 3] = 3  # cavity only
    assert myocardium_center(labels) == (5, 11)
    labels[14:17, 2:5, 3] = 2
    assert myocardium_center(labels) == (15, 3)
    assert myocardium_center(np.ones((4, 4, 3), np.uint8)) is None


def beating(shape, center, rng):
    """A volume in which a disc of 18 mm shrinks to 11 mm, with noise."""
    x, y = np.indices(shape[:2]) * 1.5
    distance = np.hypot(x - center[0] * 1.5, y - center[1] * 1.5)
    background = ndimage.gaussian_filter(rng.normal(0, 1, shape[:2]), 5) * 500
    frames = [np.repeat((background + 200 * (distance < radius))[..., None], shape[2], 2) for radius in (18, 11)]
    return [frame + rng.normal(0, 20, shape) for frame in frames]


@pytest.mark.parametrize("center", [(60, 70), (45, 85), (80, 50)])
def test_motion_center_finds_what_beats(rng, center):
    frames = beating((120, 140, 5), center, rng)
    found = motion_center(*frames, (1.5, 1.5, 8.0))
    assert np.hypot(*np.subtract(found, center)) < 4


def test_motion_center_resists_a_bright_flicker_far_from_the_middle(rng):
    moving, fixed = beating((120, 140, 5), (60, 70), rng)
    moving[2:10, 2:10] += 400
    assert np.hypot(*np.subtract(motion_center(moving, fixed, (1.5, 1.5, 8.0)), (60, 70))) < 4


def test_motion_center_does_not_depend_on_intensity_units(rng):
    moving, fixed = beating((120, 140, 5), (50, 60), rng)
    one, other = (motion_center(moving * gain, fixed * gain, (1.5, 1.5, 8.0)) for gain in (1, 1e-3))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_motion_center_is_the_image_centre_where_nothing_moves():
    still = np.ones((31, 21, 3))
    assert motion_center(still, still, (1.5, 1.5, 8.0)) == pytest.approx((15, 10))


def test_lost_counts_labelled_voxels_outside():
    labels = np.zeros((10, 10), np.uint8)
    labels[:, 4] = 1
    assert lost(labels, take(labels, (5, 5), (4, 4))) == 6
