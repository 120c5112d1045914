"""Layers of TransMorph's convolutional decoder."""

import keras
import tensorflow as tf
from keras import layers as KL

from hetmorph.configured import Configured
from hetmorph.ops.grid import cut, spatial_shape


@keras.saving.register_keras_serializable("hetmorph")
class InstanceNormalization(Configured, KL.Layer):
    """Mean 0 and variance 1 over the voxels of each channel of each sample; no weights.

    (x − E x) / √(Var x + ε), in float32 under any policy.

    Args:
        epsilon: ε; a constant channel becomes 0.

    Input and output `[B, *S, C]`.

    Reference:
        Ulyanov et al., arXiv:1607.08022.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, image):
        return tf.cast(_normalised(tf.cast(image, tf.float32), self.epsilon), image.dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class LinearUpsampling(KL.Layer):
    """Twice the size along each axis by linear interpolation; the outer edges of the image stay where they are.

    Voxel i becomes two, ¼ voxel to either side of its centre: ¾ xᵢ + ¼ xᵢ∓₁, the edge repeated.

    `[B, *S, C]` → `[B, *2S, C]`.
    """

    def call(self, image):
        for axis in range(1, image.shape.rank - 1):
            image = _doubled(image, axis)
        return image

    def compute_output_shape(self, input_shape):
        grid = [None if d is None else 2 * d for d in input_shape[1:-1]]
        return (input_shape[0], *grid, input_shape[-1])


def _normalised(image: tf.Tensor, epsilon: float) -> tf.Tensor:
    axes = list(range(1, image.shape.rank - 1))
    centred = image - tf.reduce_mean(image, axes, keepdims=True)
    return centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axes, keepdims=True) + epsilon)


def _doubled(image: tf.Tensor, axis: int) -> tf.Tensor:
    """Twice as many voxels along an axis. TensorFlow's gradient of the slices would fill an image for each of them."""

    @tf.custom_gradient
    def apply(image):
        previous = tf.concat([cut(image, axis, 0, 1), cut(image, axis, 0, -1)], axis)
        following = tf.concat([cut(image, axis, 1), cut(image, axis, -1)], axis)
        pairs = tf.stack([0.75 * image + 0.25 * previous, 0.75 * image + 0.25 * following], axis + 1)

        def gradient(upstream):
            left, right = tf.unstack(tf.reshape(upstream, tf.shape(pairs)), 2, axis + 1)
            from_left = tf.concat([cut(left, axis, 1), cut(right, axis, -1)], axis)
            from_right = tf.concat([cut(left, axis, 0, 1), cut(right, axis, 0, -1)], axis)
            return 0.75 * (left + right) + 0.25 * (from_left + from_right)

        sizes = spatial_shape(image)
        sizes[axis - 1] *= 2
        return tf.reshape(pairs, [-1, *sizes, image.shape[-1]]), gradient

    return apply(image)
