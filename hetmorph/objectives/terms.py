"""Terms: what is minimised, each from one record of a registered pair, one number per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from hetmorph.losses.consistency import gradient_inverse_consistency, inverse_consistency, velocity_diffusion
from hetmorph.losses.serializable import LossMethod, positive
from hetmorph.losses.within import loss_within
from hetmorph.ops.grid import spatial_shape
from hetmorph.ops.warp import warp

if TYPE_CHECKING:
    from hetmorph.steps import Registered, View


class Term:
    """Something of a registered pair that is to be small.

    A subclass gives `__call__` and, for arguments of its own, `get_config`.

    Args:
        weight: its factor in the sum.
        name: what `fit` shows its mean by; None takes the class' own.

    Raises:
        ValueError: a weight below 0.
    """

    default_name = "term"

    def __init__(self, weight: float = 1.0, name: str | None = None):
        if not weight >= 0:
            raise ValueError(f"expected a weight λ ≥ 0, received {weight!r}")
        self.weight, self.name = float(weight), name or self.default_name

    def __call__(self, registered: Registered) -> tf.Tensor:
        """One number per sample, `[B]`, without the weight."""
        raise NotImplementedError

    def of_one_pair(self, shape: Sequence[int]) -> Term:
        """What stands for this term where a single pair is optimised, its random numbers the same all the time.

        Args:
            shape: voxels of the images along each axis.
        """
        return self

    def get_config(self) -> dict:
        return {"weight": self.weight, "name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> Term:
        return cls(**config)


@keras.saving.register_keras_serializable("hetmorph")
class Similarity(Term):
    """How unlike each moved image is its fixed one, where they count, summed over the directions that are registered.

    Args:
        loss: one of `hetmorph.losses`, the object or its `.loss`.
        weight, name: as every term's.
    """

    default_name = "similarity"

    def __init__(self, loss, weight: float = 1.0, name: str | None = None):
        super().__init__(weight, name)
        self.loss = loss.owner if isinstance(loss, LossMethod) else loss

    def __call__(self, registered: Registered) -> tf.Tensor:
        return tf.add_n([self._of(view) for view in registered.views])

    def _of(self, view: View) -> tf.Tensor:
        if view.counted is None:
            return self.loss.loss(view.fixed, view.moved)
        return loss_within(self.loss, view.fixed, view.moved, view.counted)

    def get_config(self) -> dict:
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict) -> Similarity:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


@keras.saving.register_keras_serializable("hetmorph")
class Smoothness(Similarity):
    """A penalty of the field that the model wants to be smooth, its displacement unless it says otherwise.

    Args:
        loss: one of `hetmorph.losses`, such as `Grad("l2")`.
        weight, name: as every term's.
    """

    default_name = "smoothness"

    def __call__(self, registered: Registered) -> tf.Tensor:
        return self.loss.loss(None, registered.field)


@keras.saving.register_keras_serializable("hetmorph")
class InverseConsistency(Term):
    """How far the two directions are from undoing each other, see `hetmorph.losses.inverse_consistency`.

    Args:
        weight, name: as every term's.

    Reference:
        Greer et al., ICCV 2021, arXiv:2105.04459.
    """

    default_name = "inverse_consistency"

    def __call__(self, registered: Registered) -> tf.Tensor:
        shape = spatial_shape(registered.fixed)
        return inverse_consistency(registered.forward, registered.backward, shape, seed=seed(registered))


@keras.saving.register_keras_serializable("hetmorph")
class GradientInverseConsistency(Term):
    """The gradient of that error, see `hetmorph.losses.gradient_inverse_consistency`.

    Args:
        delta: length of a difference, as a share of the unit cube.
        sparse: look at every second voxel along each axis.
        weight, name: as every term's.

    Reference:
        Tian et al., CVPR 2023, arXiv:2206.05897.
    """

    default_name = "inverse_consistency"

    def __init__(self, weight: float = 1.0, delta: float = 1e-3, sparse: bool = True, name: str | None = None):
        super().__init__(weight, name)
        self.delta, self.sparse = positive(delta, "delta"), sparse

    def __call__(self, registered: Registered) -> tf.Tensor:
        return gradient_inverse_consistency(
            registered.forward,
            registered.backward,
            spatial_shape(registered.fixed),
            delta=self.delta,
            sparse=self.sparse,
            seed=seed(registered),
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "delta": self.delta, "sparse": self.sparse}


@keras.saving.register_keras_serializable("hetmorph")
class VelocityDiffusion(Term):
    """How rough velocities are, mean of both directions; see `hetmorph.losses.velocity_diffusion`.

    Args:
        weight, name: as every term's.

    Reference:
        Greer et al., MICCAI 2023, arXiv:2305.00087.
    """

    default_name = "diffusion"

    def __call__(self, registered: Registered) -> tf.Tensor:
        ways = [way for way in (registered.forward, registered.backward) if way is not None]
        return tf.add_n([velocity_diffusion(way) for way in ways]) / len(ways)


@keras.saving.register_keras_serializable("hetmorph")
class Landmarks(Term):
    """Mean squared distance of landmarks from where the transform takes their partners, voxels².

    mean_p |φ(x_p) − y_p|², x_p in the fixed image and y_p in the moving one; where both directions are registered, the
    mean of both. A sample with fewer landmarks has NaN in their places; without any it is 0, as in a batch that has
    none.

    Args:
        weight, name: as every term's.

    Example:
        >>> model.compile("adam", loss=losses, terms=[Landmarks(0.01)])
        >>> model.fit((moving, fixed, {"points_moving": y, "points_fixed": x}), epochs=10)
    """

    default_name = "landmarks"

    def __call__(self, registered: Registered) -> tf.Tensor:
        moving, fixed = registered.points
        if fixed is None:
            return tf.zeros(tf.shape(registered.fixed)[:1])
        missed = [_missed(registered.forward, fixed, moving)]
        if registered.backward is not None:
            missed.append(_missed(registered.backward, moving, fixed))
        return tf.add_n(missed) / len(missed)


@keras.saving.register_keras_serializable("hetmorph")
class Overlap(Term):
    """How little the warped structures of the moving image overlap those of the fixed one: 1 − soft Dice.

    mean_k (1 − 2·Σ mₖ(φ)·fₖ / Σ(mₖ(φ) + fₖ)) over the structures k that both images have, mₖ and fₖ being 1 where an
    image has label k, else 0, and mₖ(φ) interpolated; where both directions are registered, the mean of both. A sample
    that has none in both images, or no labels, is 0. Labels are needed to train, never to register.

    Args:
        weight: as every term's.
        labels: values of the structures.
        name: as every term's.

    Raises:
        ValueError: a weight below 0, or no labels.

    Reference:
        Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538, "auxiliary data".

    Example:
        >>> model.compile("adam", loss=losses, terms=[Overlap(0.1, labels=[1, 2, 3])])
        >>> model.fit((moving, fixed, {"labels_moving": m, "labels_fixed": f}), epochs=10)
    """

    default_name = "overlap"

    def __init__(self, weight: float = 1.0, labels: Sequence[int] = (1,), name: str | None = None):
        super().__init__(weight, name)
        self.labels = [int(label) for label in labels]
        if not self.labels:
            raise ValueError("expected the values of the structures as labels, received none")

    def __call__(self, registered: Registered) -> tf.Tensor:
        moving, fixed = (None if one is None else structure_maps(one, self.labels) for one in registered.labels)
        if fixed is None:
            return tf.zeros(tf.shape(registered.fixed)[:1])
        ways = [(moving, fixed, registered.displacement)]
        if registered.backward is not None:
            ways.append((fixed, moving, registered.backward_displacement))
        return tf.add_n([apart(*way) for way in ways]) / len(ways)

    def get_config(self) -> dict:
        return {**super().get_config(), "labels": self.labels}


def structure_maps(labels, structures: Sequence[int]) -> tf.Tensor:
    """1 where an image has a structure, else 0, `[B, *S, structures]`.

    Args:
        labels: whole numbers `[B, *S, 1]`.
        structures: their values.
    """
    return tf.cast(tf.equal(tf.cast(labels, tf.int32), tf.constant(structures, tf.int32)), tf.float32)


def apart(moving: tf.Tensor, fixed: tf.Tensor, displacement: tf.Tensor, squared: bool = False) -> tf.Tensor:
    """1 − soft Dice of the structures that are in both, their mean, `[B]`.

    Args:
        moving, fixed: maps `[B, *S, structures]`.
        displacement: `[B, *S, N]` voxels, which warps the moving ones.
        squared: divide by squares, so that maps with smooth edges are nearest where they are equal.
    """
    axes = range(1, moving.shape.rank - 1)
    there = tf.cast(tf.reduce_any(moving > 0, axes) & tf.reduce_any(fixed > 0, axes), tf.float32)
    moved = warp(moving, displacement)
    common, sizes = (
        tf.reduce_sum(moved * fixed, axes),
        tf.reduce_sum(moved**2 + fixed**2 if squared else moved + fixed, axes),
    )
    dice = tf.math.divide_no_nan(2 * common, sizes)
    return tf.math.divide_no_nan(tf.reduce_sum(there * (1 - dice), -1), tf.reduce_sum(there, -1))


def _missed(way, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Mean squared distance from `way(start)` to `end`, `[B]`; points with NaN are left out."""
    known = tf.reduce_all(tf.math.is_finite(start) & tf.math.is_finite(end), axis=-1)
    start, end = (tf.where(known[..., None], points, tf.zeros_like(points)) for points in (start, end))
    squares = tf.reduce_sum(tf.math.squared_difference(way(start), end), axis=-1)
    count = tf.cast(known, squares.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(count * squares, -1), tf.reduce_sum(count, -1))


def seed(registered: Registered, stream: int = 0) -> tf.Tensor:
    """Another one at each update, the same in every replica and after a training has been resumed.

    Args:
        registered: the batch.
        stream: which of several that differ.
    """
    return tf.stack([stream, tf.cast(registered.step, tf.int32)])
