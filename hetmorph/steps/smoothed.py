"""A step whose displacement is smoothed."""

import keras
import numpy as np
import tensorflow as tf

from hetmorph.ops import separable
from hetmorph.ops.grid import spatial_shape
from hetmorph.steps.base import Step, displacement_on
from hetmorph.steps.combined import Around
from hetmorph.transforms import ContinuedDisplacement


@keras.saving.register_keras_serializable("hetmorph")
class Smoothed(Around):
    """A step whose displacement is smoothed by a Gaussian, on the voxels of the fixed image.

    Outside the image the displacement goes on as `ContinuedDisplacement` does, so that affine maps stay as they are.

    Args:
        step: the step.
        sigma: standard deviation, voxels of the images that this step sees; the Gaussian ends after 1.5 of it.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    invertible = False

    def __init__(self, step: Step, sigma: float, **kwargs):
        super().__init__(step, **kwargs)
        if not sigma > 0:
            raise ValueError(f"expected sigma > 0, received {sigma}")
        self.sigma = sigma

    def transform(self, moving, fixed, training=None) -> ContinuedDisplacement:
        return self._smooth(self.step.transform(moving, fixed, training=training), fixed)

    def both(self, moving, fixed, training=None) -> tuple[ContinuedDisplacement, ContinuedDisplacement]:
        there, back = self.step.both(moving, fixed, training=training)
        return self._smooth(there, fixed), self._smooth(back, moving)

    def _smooth(self, transform, image) -> ContinuedDisplacement:
        matrices = [self._matrix(size) for size in spatial_shape(image)]
        return ContinuedDisplacement(separable.multiply(displacement_on(transform, image), matrices))

    def _matrix(self, size) -> tf.Tensor:
        """`[size, size]`: the Gaussian at each voxel, of an axis that goes on oddly at its ends."""
        reach = int(3 * self.sigma) // 2
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.sigma) ** 2)
        places = tf.range(size)[:, None] + np.arange(-reach, reach + 1, dtype="int32")
        edge = tf.clip_by_value(places, 0, size - 1)
        mirrored = tf.clip_by_value(2 * edge - places, 0, size - 1)
        each = 2 * tf.one_hot(edge, size) - tf.one_hot(mirrored, size)
        return tf.einsum("spn,p->sn", each, tf.constant(weights / weights.sum(), tf.float32))
