"""Images on another grid: against TensorFlow's antialiased resizing, and by law."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.data.resize import resize, whole_view


def stretched(array, size):
    return resize(array, size, tuple(n / m for n, m in zip(array.shape, size, strict=True)))


@pytest.mark.parametrize(("shape", "size"), [((90, 117), (32, 32)), ((9, 14), (31, 20)), ((40, 40), (40, 13))])
def test_stretching_equals_tensorflow(rng, shape, size):
    image = rng.random(shape)
    expected = tf.image.resize(image[..., None], size, "bilinear", antialias=True)[..., 0]
    np.testing.assert_allclose(stretched(image, size), expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "size"), [((90, 117), (32, 32)), ((9, 14), (31, 20))])
def test_labels_equal_tensorflow(rng, shape, size):
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    step = tuple(n / m for n, m in zip(shape, size, strict=True))
    result = resize(labels, size, step, nearest=True)
    expected = tf.image.resize(labels[..., None], size, "nearest")[..., 0]
    assert result.dtype == np.uint8
    # where a centre lies half way between two voxels, rounding decides
    assert (result == expected.numpy()).mean() > 0.99


@pytest.mark.parametrize("shape", [(12, 9), (8, 9, 10)])
def test_the_same_grid_changes_nothing(rng, shape):
    image = rng.random(shape)
    np.testing.assert_allclose(resize(image, shape, (1,) * len(shape)), image, atol=1e-12)
    labels = rng.integers(0, 4, shape)
    np.testing.assert_array_equal(resize(labels, shape, (1,) * len(shape), nearest=True), labels)


def test_a_ramp_stays_a_ramp_in_millimetres():
    ramp = np.arange(60.0)[:, None] * np.ones((60, 8))
    result = resize(ramp, (20, 8), (2.5, 1))[:, 0]
    np.testing.assert_allclose(np.diff(result), 2.5, atol=0.03)
    assert result.mean() == pytest.approx(29.5)  # the centre stays where it was


def test_what_lies_outside_is_zero():
    result = resize(np.ones((4, 4)), (8, 4), (1, 1))
    np.testing.assert_array_equal(result[[0, 1, 6, 7]], 0)
    np.testing.assert_allclose(result[2:6], 1)
    labels = resize(np.full((4, 4), 3), (8, 4), (1, 1), nearest=True)
    np.testing.assert_array_equal(labels, 3 * result)


def test_fine_stripes_fade_instead_of_aliasing():
    stripes = np.tile([0.0, 1.0], 64)[:, None] * np.ones((128, 4))
    assert np.ptp(resize(stripes, (16, 4), (8, 1))[1:-1]) < 0.02
    assert np.ptp(resize(stripes, (18, 4), (7.0, 1), nearest=True)) == 1  # what labels would make of it


def test_whole_view_shows_the_whole_image():
    spacing = (0.308, 0.154)
    paper = whole_view((549, 778), spacing, (128, 128), "paper")
    np.testing.assert_allclose(np.multiply(paper, 128), np.multiply(spacing, (549, 778)))
    aspect = whole_view((549, 778), spacing, (128, 128), "aspect")
    assert aspect == (max(paper),) * 2
    with pytest.raises(ValueError, match="'center'"):
        whole_view((549, 778), spacing, (128, 128), "center")
