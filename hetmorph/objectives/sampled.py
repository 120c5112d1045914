"""Terms at random points: for transforms that no grid need be made of."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from hetmorph.losses.consistency import jacobian_inverse_consistency
from hetmorph.objectives.terms import Term, seed
from hetmorph.ops.grid import spatial_shape
from hetmorph.transforms import Transform
from hetmorph.transforms.arrays import sample
from hetmorph.transforms.composition import parts
from hetmorph.transforms.implicit import Implicit

_SMALL = 1e-6


class _AtPoints(Term):
    """A term that looks at points, drawn anew for each update and the same for the whole batch.

    Args:
        points: how many; None takes the class' `share` of the voxels, but no fewer and no more than its `limits`.
        weight, name: as every term's.

    Attributes:
        stream: stream of the random numbers, so that the points of no two terms are the same.
        of_pair: how many at least where a single pair is optimised, or one for each voxel: the points stay the same
            there, and what is wrong between few of them would be found.
    """

    stream: int
    share: float
    limits: tuple[int, int]
    of_pair: int

    def __init__(self, weight: float = 1.0, points: int | None = None, name: str | None = None):
        super().__init__(weight, name)
        if points is not None and (points < 2 or int(points) != points):
            raise ValueError(f"expected at least 2 points, received {points}")
        self.points = points

    def drawn(self, registered) -> tf.Tensor:
        """Points anywhere between the first and the last voxel, `[1, P, N]`."""
        sizes = spatial_shape(registered.fixed)
        last = tf.cast(tf.stack(sizes), tf.float32) - 1
        count = self._count(sizes) if self.points is None else self.points
        return last * tf.random.stateless_uniform([1, count, len(sizes)], seed(registered, self.stream))

    def _count(self, sizes: list) -> int | tf.Tensor:
        """A number where the sizes are known: graphs of known shapes are the faster ones."""
        if not any(map(tf.is_tensor, sizes)):
            return min(max(int(self.share * math.prod(sizes)), self.limits[0]), self.limits[1])
        return tf.clip_by_value(
            tf.cast(self.share * tf.cast(tf.reduce_prod(sizes), tf.float32), tf.int32), *self.limits
        )

    def of_one_pair(self, shape):
        count = self._count(list(shape)) if self.points is None else self.points
        return type(self)(**{**self.get_config(), "points": max(count, min(self.of_pair, math.prod(shape)))})

    def get_config(self) -> dict:
        return {**super().get_config(), "points": self.points}


@keras.saving.register_keras_serializable("hetmorph")
class SampledCorrelation(_AtPoints):
    """1 − correlation of the images at random points, mean of the directions that are registered.

    Both images are read between their voxels, the moving one where the transform leads, so that no moved image is made:
    time and memory grow with the points, not with the volume. Where masks are given, points count by them.

    Args:
        points: how many; None takes 2 % of the voxels, from 1024 to 100,000.
        weight, name: as every term's.

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322.
    """

    default_name = "similarity"
    stream, share, limits, of_pair = 1, 0.02, (1024, 100_000), 2048

    def __call__(self, registered) -> tf.Tensor:
        if registered.volumes.there():
            raise ValueError("to conserve mass needs a loss of moved images, received correlation at points")
        points, (of_moving, of_fixed) = self.drawn(registered), registered.masks
        ways = [(registered.moving, registered.fixed, registered.forward, of_moving, of_fixed)]
        if registered.backward is not None:
            ways.append((registered.fixed, registered.moving, registered.backward, of_fixed, of_moving))
        return tf.add_n([_unlike(points, *way) for way in ways]) / len(ways)


@keras.saving.register_keras_serializable("hetmorph")
class JacobianInverseConsistency(_AtPoints):
    """How far the Jacobian of one direction after the other is from the identity, at random points.

    See `hetmorph.losses.jacobian_inverse_consistency`.

    Args:
        points: how many; None takes a ten-thousandth of the voxels, from 64 to 500.
        weight, name: as every term's.

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322.
    """

    default_name = "inverse_consistency"
    stream, share, limits, of_pair = 2, 1e-4, (64, 500), 512

    def __call__(self, registered) -> tf.Tensor:
        points = tf.repeat(self.drawn(registered), tf.shape(registered.fixed)[0], axis=0)
        return jacobian_inverse_consistency(registered.forward, registered.backward, points)


@keras.saving.register_keras_serializable("hetmorph")
class SmallCodes(Term):
    """The length of the codes that a transform is made of: of the pair's, and the mean of the local ones'.

    0 of a transform without codes.

    Args:
        weight, name: as every term's.

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322.
    """

    default_name = "codes"

    def __call__(self, registered) -> tf.Tensor:
        lengths = [_length(codes.shared) + _length(codes.local) for codes in _codes(registered.forward)]
        return tf.add_n(lengths) if lengths else tf.zeros(tf.shape(registered.fixed)[:1])


def _codes(transform: Transform) -> list:
    return [part.codes for part in parts(transform) if isinstance(part, Implicit)]


def _length(codes: tf.Tensor) -> tf.Tensor:
    """Mean length of the vectors of each sample, `[B]`; with a gradient where they are 0."""
    lengths = tf.sqrt(tf.reduce_sum(tf.square(codes), -1) + _SMALL)
    return tf.reduce_mean(tf.reshape(lengths, [tf.shape(codes)[0], -1]), -1)


def _unlike(points, moving, fixed, way: Transform, of_moving, of_fixed) -> tf.Tensor:
    """1 − correlation of fixed(x) and moving(φ(x)), weighted by the masks there, mean of the channels, `[B]`."""
    there = way(points)
    seen, weight = [sample(moving, there), sample(fixed, points)], tf.ones_like(there[..., :1])
    for mask, places in ((of_moving, there), (of_fixed, points)):
        weight = weight if mask is None else weight * sample(mask, places)

    def mean(values):
        return tf.math.divide_no_nan(
            tf.reduce_sum(weight * values, 1, keepdims=True), tf.reduce_sum(weight, 1)[:, None]
        )

    a, b = (values - mean(values) for values in seen)
    product = mean(a * b) * tf.math.rsqrt((mean(a * a) + _SMALL) * (mean(b * b) + _SMALL))
    return 1 - tf.reduce_mean(product, [1, 2])
