import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import zoom

from hetmorph import layers
from tests.contract import check_layer


def features(ndims, batch, rng):
    return 3 + 2 * rng.normal(size=(batch, *range(5, 5 + ndims), 4))


@pytest.mark.parametrize(
    "cls, kwargs", [(layers.InstanceNormalization, {"epsilon": 1e-4}), (layers.LinearUpsampling, {})]
)
def test_contract(cls, kwargs):
    check_layer(cls, kwargs, features)


@pytest.mark.parametrize("ndims", [2, 3])
def test_every_channel_of_every_sample_is_normalised(rng, ndims):
    image = features(ndims, 2, rng).astype("float32")
    axes = tuple(range(1, ndims + 1))
    result = layers.InstanceNormalization()(image)
    expected = (image - image.mean(axes, keepdims=True)) / np.sqrt(image.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_constant_channel_becomes_zero():
    result = layers.InstanceNormalization()(np.full((1, 4, 4, 2), 0.3, "float32"))
    np.testing.assert_allclose(result, 0, atol=1e-3)


@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_upsampling_equals_scipy(rng, ndims):
    image = features(ndims, 1, rng).astype("float32")
    result = layers.LinearUpsampling()(image)
    expected = zoom(image[0], [*[2] * ndims, 1], order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(result[0], expected, atol=1e-4)


def test_upsampling_keeps_a_ramp_but_at_the_edges():
    ramp = np.arange(6, dtype="float32")[None, :, None]
    doubled = layers.LinearUpsampling()(ramp)[0, :, 0].numpy()
    np.testing.assert_allclose(doubled[1:-1], np.arange(10) / 2 + 0.25)
    assert doubled[0] == 0 and doubled[-1] == 5


@pytest.mark.parametrize("ndims", [2, 3])
def test_gradient_of_upsampling_is_its_adjoint(rng, ndims):
    image = tf.constant(features(ndims, 2, rng), tf.float32)
    upsampling = layers.LinearUpsampling()
    with tf.GradientTape() as tape:
        tape.watch(image)
        result = upsampling(image)
    upstream = rng.normal(size=result.shape).astype("float32")
    gradient = tape.gradient(result, image, upstream)
    # <A x, g> = <x, Aᵀ g> for any x
    other = rng.normal(size=image.shape).astype("float32")
    assert np.sum(upsampling(other) * upstream) == pytest.approx(np.sum(other * gradient), abs=1e-2)
