"""A step: from two images to a transform."""

import keras
import tensorflow as tf

from hetmorph.configured import Configured
from hetmorph.ops.grid import spatial_shape
from hetmorph.ops.warp import warp
from hetmorph.transforms import Transform

DIRECTIONS = (None, "exchange", "inverse")


class Step(Configured, keras.layers.Layer):
    """Two images in, one transform out: φ with moving∘φ ≈ fixed, on voxel indices.

    Steps are made of networks and of other steps. Called as a Keras layer, a step gives the displacement of its
    transform on the grid of the fixed image, so that it has a place in functional models, files and exports; the
    transform itself, which can be composed and inverted without loss, is what `transform` gives.

    A subclass gives `transform`, and keeps its arguments as attributes of their names.

    Called with `direction`, one of `DIRECTIONS`, a step gives the displacements of both directions.

    Attributes:
        invertible: whether its transforms have an inverse that gradients pass.
    """

    invertible = True

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})  # coordinates in half precision miss by voxels

    def transform(self, moving, fixed, training=None) -> Transform:
        """The transform of two images.

        Args:
            moving, fixed: `[B, *S, C]`, intensities in [0, 1].
            training: as Keras layers know it.
        """
        raise NotImplementedError

    def both(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        """The transforms of (moving, fixed) and of (fixed, moving).

        Args:
            moving, fixed, training: as of `transform`.
        """
        return self.transform(moving, fixed, training=training), self.transform(fixed, moving, training=training)

    def directions(self, moving, fixed, direction: str | None, training=None) -> tuple[Transform, Transform | None]:
        """The transforms of two images, forward and backward.

        Args:
            moving, fixed, training: as of `transform`.
            direction: where the backward transform comes from: "exchange", the images exchanged, see `both`; "inverse",
                the inverse of the forward transform; None for no backward transform.
        """
        if check_direction(direction) == "exchange":
            return self.both(moving, fixed, training=training)
        forward = self.transform(moving, fixed, training=training)
        return forward, forward.inverse() if direction == "inverse" else None

    def call(self, moving, fixed, direction=None, training=None):
        moving, fixed = (tf.cast(image, tf.float32) for image in (moving, fixed))
        forward, backward = self.directions(moving, fixed, direction, training)
        displacement = displacement_on(forward, fixed)
        return displacement if backward is None else (displacement, displacement_on(backward, moving))

    def build(self, moving_shape, fixed_shape):
        self.built = True

    def compute_output_spec(self, moving, fixed, direction=None, training=None):
        there, back = (
            keras.KerasTensor((*image.shape[:-1], len(image.shape) - 2), "float32") for image in (fixed, moving)
        )
        return there if direction is None else (there, back)


def check_direction(direction: str | None) -> str | None:
    """Refuse what is none of `DIRECTIONS`.

    Args:
        direction: what a step is asked for.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"expected a direction of {DIRECTIONS}, received {direction!r}")
    return direction


def displacement_on(transform: Transform, image) -> tf.Tensor:
    """φ(x) − x at the voxels of an image, `[B, *S, N]` float32.

    Args:
        transform: φ.
        image: `[B, *S, C]`, whose sizes may be unknown.
    """
    u = tf.cast(transform.displacement(tuple(spatial_shape(image))), tf.float32)
    return tf.broadcast_to(u, tf.concat([tf.shape(image)[:1], tf.shape(u)[1:]], axis=0))


def moved_by(transform: Transform, image) -> tf.Tensor:
    """An image pulled through a transform onto its own grid: moved(x) = image(φ(x)).

    Args:
        transform: φ.
        image: `[B, *S, C]`.
    """
    return warp(image, displacement_on(transform, image))
