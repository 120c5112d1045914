"""Layers on point clouds: surface points moved by a displacement, and images read at them."""

import keras
import tensorflow as tf

from hetmorph.configured import Configured
from hetmorph.ops import points


@keras.saving.register_keras_serializable("hetmorph")
class PointTransformer(Configured, keras.layers.Layer):
    """Move points by a displacement: inputs `[points, displacement]`, p ↦ p + scale · u(p).

    Points are `[B, P, N]`, or `[B, P, N+1]` with a label last, in voxels of the displacement `[B, *S, N]`. A
    displacement that pulls an image from A to the grid of B takes points of B to A.

    Args:
        scale: factor on the vectors, where points are given on a resized grid.
    """

    def __init__(self, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        return points.displace(*inputs, self.scale)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable("hetmorph")
class ValueAtLocation(Configured, keras.layers.Layer):
    """Read an image at points: inputs `[image, points]`, `[B, *S, C]` and `[B, P, N]` or `[B, P, N+1]`.

    A point's last entry beyond the N coordinates chooses the channel. Returns `[B, P]` then, `[B, P, C]` else.

    Args:
        absolute: return the magnitude, as of a signed distance.
    """

    def __init__(self, absolute: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.absolute = absolute

    def call(self, inputs):
        image, location = inputs
        if _chooses_channel(image.shape, location.shape):
            values = points.sample(image[..., None], location)[..., 0]
        else:
            values = points.sample(image, location)
        return tf.abs(values) if self.absolute else values

    def compute_output_shape(self, input_shape):
        image, location = input_shape
        channels = () if _chooses_channel(image, location) else (image[-1],)
        return (image[0], location[1], *channels)


def _chooses_channel(image_shape, points_shape) -> bool:
    return points_shape[-1] == len(image_shape) - 1
