"""Images and values of which only a part counts."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Counted(NamedTuple):
    """How much the voxels of each sample count in a loss.

    Attributes:
        weight: `[B, *S, 1]`, not negative. Without gradient: a mean falls when what is above it is pushed out of a
            mask that moves, and a registration would learn to hide what does not match instead of matching it.
        part: `[B]`, the part of the image that counts at rest. The loss of what counts is multiplied by it: so λ does
            to it what it does without a mask.
    """

    weight: tf.Tensor
    part: tf.Tensor


def counted_where(fixed: tf.Tensor | None, moved: tf.Tensor | None, part: tf.Tensor) -> Counted | None:
    """What counts where both masks hold a voxel; None without any.

    Args:
        fixed: mask of the fixed image, `[B, *S, 1]`, or None.
        moved: that of the moving image, moved with it, or None.
        part: as of `Counted`.
    """
    masks = [mask for mask in (fixed, moved) if mask is not None]
    return Counted(tf.stop_gradient(masks[0] * masks[-1] if len(masks) == 2 else masks[0]), part) if masks else None


def counted_mean(values: tf.Tensor, counted: Counted | None = None) -> tf.Tensor:
    """Mean of each sample over the voxels that count, times the part of the image that they are, `[B]`.

    Args:
        values: `[B, *S, C]`.
        counted: None counts all alike.
    """
    if counted is None:
        return tf.reduce_mean(values, _inner(values))
    return tf.cast(counted.part, values.dtype) * weighted_mean(values, counted.weight)


def weighted_mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Σ w·v / Σ w of each sample, `[B]`; 0 where nothing counts.

    Args:
        values: `[B, *S, C]`.
        weight: `[B, *S, 1]`, not negative.
    """
    weight = tf.cast(weight, values.dtype) * tf.ones_like(values)
    return tf.math.divide_no_nan(tf.reduce_sum(weight * values, _inner(values)), tf.reduce_sum(weight, _inner(values)))


def sampled_within(plain: tf.Tensor, inside: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """An image that has been resampled, from voxels of its mask alone wherever there are any.

    Args:
        plain: the image, resampled with all its voxels.
        inside: the image times the mask, resampled.
        part: the mask, resampled.
    """
    return tf.where((part > 0) & (part < 1), tf.math.divide_no_nan(inside, part), plain)


def _inner(values: tf.Tensor) -> list[int]:
    return list(range(1, values.shape.rank))
