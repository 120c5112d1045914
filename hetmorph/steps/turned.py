"""A step that learns from images turned at random, and answers for them as they are."""

import keras
import tensorflow as tf

from hetmorph.ops.draws import of_own_samples
from hetmorph.ops.grid import spatial_shape
from hetmorph.steps.base import Step, moved_by
from hetmorph.steps.combined import Around
from hetmorph.transforms import Affine, Composition, Transform


@keras.saving.register_keras_serializable("hetmorph")
class Turned(Around):
    """While training, a step of two images each turned at random about their middle, the turns undone after it.

    φ = R∘ψ∘Q with ψ the step's transform of A∘R and B∘Q⁻¹: what is minimised sees A and B themselves and no edge of a
    turned image, and the step has to find them under any angle. Otherwise it is the step.

    Args:
        step: the step.
        rotation: standard deviation of the entries whose antisymmetric part is exponentiated; from some 5 on all
            rotations are alike.
        shear: standard deviation of what is added to the matrix, and, as a share of the longest side, to the shift.
        seed: seed of the draws; the generator is part of the layer's state.
        kwargs: further arguments of `keras.layers.Layer`.

    Reference:
        Greer et al., CARL: a framework for equivariant image registration, CVPR 2025, arXiv:2405.16738.
    """

    def __init__(self, step: Step, rotation: float = 13.0, shear: float = 0.05, seed: int | None = None, **kwargs):
        super().__init__(step, **kwargs)
        if not rotation >= 0 or not 0 <= shear < 0.3:
            raise ValueError(f"expected rotation >= 0 and shear from 0 to below 0.3, received {rotation} and {shear}")
        self.rotation, self.shear, self.seed = rotation, shear, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def transform(self, moving, fixed, training=None) -> Transform:
        if not training:
            return self.step.transform(moving, fixed, training=training)
        turn, back = (self._drawn(image) for image in (moving, fixed))
        turned = moved_by(turn, moving), moved_by(back.inverse(), fixed)
        return Composition(turn, self.step.transform(*turned, training=training), back)

    def both(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        """The transforms of (moving, fixed) and (fixed, moving), each turned by draws of its own."""
        return super().both(moving, fixed, training) if training else self.step.both(moving, fixed, training=training)

    def _drawn(self, image) -> Affine:
        """A turn for each image of a batch."""
        ndims, sizes = image.shape.rank - 2, tf.cast(tf.stack(spatial_shape(image)), tf.float32)
        angles = self._normal(image, (1,) if ndims == 2 else (3,)) * (self.rotation * 2**0.5)
        matrix = (_turn if ndims == 2 else _turn_3d)(angles)
        noise = self._normal(image, (ndims, ndims + 1)) * self.shear
        shift = noise[..., ndims] * (tf.reduce_max(sizes) - 1)
        return Affine.about((sizes - 1) / 2, matrix + noise[..., :ndims], shift)

    def _normal(self, image, shape: tuple[int, ...]) -> tf.Tensor:
        shape = tf.stack([tf.shape(image)[0], *shape])
        return of_own_samples(lambda some: keras.random.normal(some, seed=self.seed_generator), shape)


def _turn(angle) -> tf.Tensor:
    """By `[B, 1]` radians, `[B, 2, 2]`."""
    c, s = tf.cos(angle[:, 0]), tf.sin(angle[:, 0])
    return tf.stack([tf.stack([c, -s], -1), tf.stack([s, c], -1)], -2)


def _turn_3d(vector) -> tf.Tensor:
    """About the axis `[B, 3]`, by its length in radians, `[B, 3, 3]` (Rodrigues)."""
    angle = tf.norm(vector, axis=-1)[:, None, None]
    x, y, z = tf.unstack(vector / tf.maximum(angle[..., 0], 1e-12), axis=-1)
    zero = tf.zeros_like(x)
    across = tf.stack([tf.stack(row, -1) for row in ([zero, -z, y], [z, zero, -x], [-y, x, zero])], -2)
    return tf.eye(3) + tf.sin(angle) * across + (1 - tf.cos(angle)) * (across @ across)
