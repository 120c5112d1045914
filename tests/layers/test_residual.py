"""The blocks of the tall U-Net."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph import layers
from tests.contract import check_layer


def features(ndims, batch, rng):
    return rng.normal(size=(batch, *range(5, 5 + ndims), 3))


@pytest.mark.quick("2-HalvedResidual", "5-DoubledResidual")
@pytest.mark.parametrize("cls", [layers.HalvedResidual, layers.DoubledResidual])
@pytest.mark.parametrize("filters", [2, 5])
def test_contract(cls, filters):
    check_layer(cls, {"filters": filters}, features, ndims=[2] if filters == 2 else [3], batches=[3])


def test_contract_of_the_scale():
    check_layer(
        layers.UnitCubeToVoxels,
        {},
        lambda ndims, batch, rng: rng.normal(size=(batch, *range(5, 5 + ndims), ndims)),
        float16=False,  # coordinates stay in float32
    )


def activated(image):
    return np.where(image > 0, image, 0.01 * image)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (6, 5, 7)])
def test_halved_is_a_convolution_of_every_second_voxel_and_the_mean_of_blocks(size, rng):
    image = rng.normal(size=(1, *size, 3)).astype("float32")
    layer = layers.HalvedResidual(5)
    found = layer(image)[0].numpy()
    kernel, bias = (w.numpy() for w in layer.weights)
    every = (slice(None, None, 2),) * len(size)
    convolved = np.stack(
        [
            sum(
                ndimage.correlate(activated(image[0, ..., i].astype(float)), kernel[..., i, o], mode="constant")
                for i in range(3)
            )[every]
            for o in range(5)
        ],
        -1,
    )
    places = [np.arange(n) // 2 for n in size]
    blocks = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), [-(-n // 2) for n in size])
    mean = [ndimage.mean(image[0, ..., i], blocks, np.unique(blocks)).reshape(found.shape[:-1]) for i in range(3)]
    zeros = np.zeros(found.shape[:-1])
    np.testing.assert_allclose(found, convolved + bias + np.stack([zeros, zeros, *mean], -1), atol=1e-5)
    fewer = layers.HalvedResidual(2)
    fewer(image)
    fewer.set_weights([np.zeros_like(w) for w in fewer.get_weights()])
    np.testing.assert_allclose(fewer(image)[0], np.stack(mean[:2], -1), atol=1e-6)


def test_doubled_without_its_convolution_is_linear_interpolation(rng):
    image = tf.constant(features(2, 2, rng), tf.float32)
    layer = layers.DoubledResidual(3)
    assert layer(image).shape == (2, 10, 12, 3)
    layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    np.testing.assert_allclose(layer(image), layers.LinearUpsampling()(image), atol=1e-6)


def test_initial_values_are_pytorchs():
    """Uniform within one over the root of what PyTorch counts as the fan in."""
    layer = layers.HalvedResidual(64)
    layer.build((None, 8, 8, 8, 16))
    for weight in layer.weights:
        assert np.abs(weight).max() == pytest.approx((27 * 16) ** -0.5, rel=0.05)
    layer = layers.DoubledResidual(64)
    layer.build((None, 8, 8, 16))
    for weight in layer.weights:
        assert np.abs(weight).max() == pytest.approx((16 * 64) ** -0.5, rel=0.05)


def test_the_unit_cube_is_one_voxel_shorter_than_the_image():
    ones = np.ones((1, 11, 5, 2), "float32")
    np.testing.assert_allclose(layers.UnitCubeToVoxels()(ones)[0, 0, 0], [10, 4])
