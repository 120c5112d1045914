"""Attention to coordinates: where in the moving image a voxel's features are found."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from hetmorph.configured import Configured
from hetmorph.ops.attention import attend
from hetmorph.ops.grid import identity_grid, pad, spatial_shape, without_margin


@keras.saving.register_keras_serializable("hetmorph")
class CoordinateAttention(Configured, keras.layers.Layer):
    """A displacement from the features of two images: each voxel goes to the mean place of what looks like it.

    φ(x) = Σ_y w(x, y)·y with w(x, ·) = softmax of f_fixed(x)·f_moving(y), over the voxels y of the moving image and of
    a margin round it, so that φ can lead out of the image. As the weights sum to 1, whatever moves the features of
    either image moves φ with them: φ[A∘W, B∘U] = W⁻¹∘φ[A, B]∘U for translations W and U.

    The matrix of weights, voxels × voxels, never exists: it is computed in blocks, and again for the gradient, see
    `ops.attention.attend`. In float32 under any policy.

    Args:
        padding: voxels of the margin on every side, in the features of both images; of the fixed one it is dropped.
        block_size: most voxels of either image whose weights are in memory together. It decides memory and time, no
            number.
        kwargs: further arguments of `keras.layers.Layer`.

    Inputs `[moving, fixed]`, features of the padded images, `[B, *(S + 2·padding), C]` each; the images may have
    different sizes. Returns the displacement `[B, *S, N]` on the voxels of the fixed image.

    Raises:
        ValueError: a block size below 1, a negative padding, features that differ in number or axes, or that are no
            larger than their margins.

    Example:
        >>> displacement = CoordinateAttention(padding=9)([features_of_moving, features_of_fixed])

    Reference:
        Greer et al., CARL: a framework for equivariant image registration, CVPR 2025, arXiv:2405.16738.
    """

    def __init__(self, padding: int = 0, block_size: int = 512, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if int(padding) != padding or padding < 0:
            raise ValueError(f"expected a whole padding of at least 0 voxels, received {padding}")
        if int(block_size) != block_size or block_size < 1:
            raise ValueError(f"expected a whole block_size of at least 1, received {block_size}")
        self.padding, self.block_size = int(padding), int(block_size)

    def build(self, input_shape):
        moving, fixed = (tuple(shape) for shape in input_shape)
        if len(moving) != len(fixed) or len(moving) not in (3, 4, 5) or moving[-1] != fixed[-1]:
            raise ValueError(
                f"expected equally many features of two images of 1 to 3 axes, received {moving} and {fixed}"
            )
        for role, shape in (("moving", moving), ("fixed", fixed)):
            if any(size is not None and size <= 2 * self.padding for size in shape[1:-1]):
                raise ValueError(
                    f"expected features of the {role} image with a margin of {self.padding} voxels on every side, more "
                    f"than {2 * self.padding} voxels, received {shape}"
                )
        self.built = True

    def call(self, inputs):
        moving, fixed = inputs
        fixed = without_margin(fixed, self.padding)
        sizes, places = spatial_shape(fixed), _places(spatial_shape(moving), -self.padding)
        found = attend(_flat(fixed), _flat(moving), tf.reshape(places, [-1, len(sizes)]), self.block_size)
        return tf.reshape(found, [-1, *sizes, len(sizes)]) - _places(sizes, 0)

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape[1]
        return (batch, *(None if size is None else size - 2 * self.padding for size in sizes), len(sizes))


@keras.saving.register_keras_serializable("hetmorph")
class Margin(Configured, keras.layers.Layer):
    """Zeros round an image: `[B, *S, C]` to `[B, *(S + 2·padding), C]`.

    Args:
        padding: voxels on every side.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, padding: int, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, image):
        return pad(image, self.padding, self.padding)

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        return (batch, *(None if size is None else size + 2 * self.padding for size in sizes), channels)


@keras.saving.register_keras_serializable("hetmorph")
class FeatureNorm(Configured, keras.layers.Layer):
    """Features of a length just below `length`: length·f/(0.001 + ‖f‖), so that their products are bounded; float32.

    Args:
        length: length of each voxel's features.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, length: float = 4.0, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.length = length

    def call(self, features):
        squared = tf.reduce_sum(tf.square(features), -1, keepdims=True)
        return self.length * features / (1e-3 + tf.sqrt(squared + 1e-12))  # whose gradient is finite at 0

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class Flip(Configured, keras.layers.Layer):
    """An image `[B, *S, C]` mirrored along some of its axes.

    Args:
        axes: spatial ones, from 0.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, axes: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.axes = tuple(axes)

    def call(self, image):
        return tf.reverse(image, [1 + axis for axis in self.axes])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def _places(sizes: list, first: int) -> tf.Tensor:
    """Coordinates of a grid, `[*sizes, N]`, counted from `first` along each axis."""
    return tf.stack([tf.broadcast_to(axis, sizes) for axis in identity_grid(sizes)], -1) + first


def _flat(features: tf.Tensor) -> tf.Tensor:
    """`[B, *S, C]` as `[B, voxels, C]`."""
    sizes = spatial_shape(features)
    known = not any(tf.is_tensor(size) for size in sizes)
    voxels = tf.reduce_prod(tf.stack(sizes)) if not known else int(tf.TensorShape(sizes).num_elements())
    return tf.reshape(features, [tf.shape(features)[0], voxels, features.shape[-1]])
