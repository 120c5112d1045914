"""Residual blocks that halve and double the resolution, of the tall U-Net."""

import keras
import tensorflow as tf

from hetmorph.configured import Configured
from hetmorph.layers.decoder import LinearUpsampling
from hetmorph.ops.grid import block_mean, cut, pad, spatial_shape


class _Resampled(Configured, keras.layers.Layer):
    """What the two blocks share: a convolution of the activated image, added to the resampled image itself.

    Args:
        filters: output channels.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def _add_convolution(self, kind: str, ndims: int, fan_in: int, **options) -> None:
        # PyTorch's initial values, with which the published networks were trained.
        uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        bias = keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
        self.convolution = getattr(keras.layers, f"Conv{ndims}D{kind}")(
            self.filters,
            kernel_initializer=uniform,
            bias_initializer=bias,
            dtype=self.dtype_policy,
            data_format="channels_last",
            name="convolution",  # else Keras counts, and weights have other names in the next model
            **options,
        )


@keras.saving.register_keras_serializable("hetmorph")
class HalvedResidual(_Resampled):
    """Half the resolution: a convolution 3 wide with stride 2 of LeakyReLU(x), plus the mean of each block of x.

    A block has two voxels along each axis; odd sizes are rounded up. Of the mean, channels beyond `filters` are left
    out, and missing ones stand in front as zeros.

    Args:
        filters: output channels.
        kwargs: further arguments of `keras.layers.Layer`.

    `[B, *S, C]` → `[B, *⌈S/2⌉, filters]`.
    """

    def build(self, input_shape):
        ndims = len(input_shape) - 2
        self._add_convolution("", ndims, 3**ndims * input_shape[-1], kernel_size=3, strides=2)
        self.convolution.build((*[None] * (ndims + 1), input_shape[-1]))  # of the padded image, of any size
        self.built = True

    def call(self, image):
        # Padded by one on either side; TensorFlow's own padding of even sizes would move the image by a voxel.
        convolved = self.convolution(pad(_activated(image), 1, 1))
        return convolved + _channels(block_mean(image, 2), self.filters)

    def compute_output_shape(self, input_shape):
        grid = [None if d is None else -(-d // 2) for d in input_shape[1:-1]]
        return (input_shape[0], *grid, self.filters)


@keras.saving.register_keras_serializable("hetmorph")
class DoubledResidual(_Resampled):
    """Twice the resolution: a transposed convolution 4 wide with stride 2 of LeakyReLU(x), plus x, interpolated.

    Channels of x as in `HalvedResidual`; the interpolation is that of `LinearUpsampling`.

    Args:
        filters: output channels.
        kwargs: further arguments of `keras.layers.Layer`.

    `[B, *S, C]` → `[B, *2S, filters]`.
    """

    def build(self, input_shape):
        ndims = len(input_shape) - 2
        # PyTorch counts what goes out of a transposed convolution.
        options = {"kernel_size": 4, "strides": 2, "padding": "same"}
        self._add_convolution("Transpose", ndims, 4**ndims * self.filters, **options)
        self.convolution.build((*[None] * (ndims + 1), input_shape[-1]))
        self.upsampling = LinearUpsampling(dtype=self.dtype_policy)
        self.built = True

    def call(self, image):
        return self.convolution(_activated(image)) + self.upsampling(_channels(image, self.filters))

    def compute_output_shape(self, input_shape):
        grid = [None if d is None else 2 * d for d in input_shape[1:-1]]
        return (input_shape[0], *grid, self.filters)


@keras.saving.register_keras_serializable("hetmorph")
class BlockMean(Configured, keras.layers.Layer):
    """Mean of blocks, `[B, *S, C]` → `[B, *⌈S/factor⌉, C]`, see `ops.grid.block_mean`.

    Args:
        factor: voxels along each side of a block.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, factor: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, image):
        return block_mean(image, self.factor)

    def compute_output_shape(self, input_shape):
        grid = [None if d is None else -(-d // self.factor) for d in input_shape[1:-1]]
        return (input_shape[0], *grid, input_shape[-1])


@keras.saving.register_keras_serializable("hetmorph")
class UnitCubeToVoxels(keras.layers.Layer):
    """Displacements in the unit cube, `[B, *S, N]`, in voxels of their grid: times S − 1 along each axis; float32."""

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, displacement):
        return displacement * (tf.cast(tf.stack(spatial_shape(displacement)), tf.float32) - 1)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def _activated(image: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(image, 0.01)


def _channels(image: tf.Tensor, count: int) -> tf.Tensor:
    """The first `count` channels; missing ones are zeros in front."""
    missing = count - image.shape[-1]
    if missing <= 0:
        return cut(image, -1, 0, count)
    zeros = tf.zeros(tf.concat([tf.shape(image)[:-1], [missing]], axis=0), image.dtype)
    return tf.concat([zeros, image], axis=-1)
