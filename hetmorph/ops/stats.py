"""Per-sample statistics that do not look at batch neighbours."""

import tensorflow as tf


def percentiles(image, low: float, high: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Two percentiles of each sample of `[B, ...]`, shaped to broadcast against it.

    Nearest-rank on the sorted values; exact order statistics, so a few extreme voxels cannot move them.
    """
    image = tf.convert_to_tensor(image)
    flat = tf.sort(tf.reshape(image, [tf.shape(image)[0], -1]), axis=1)
    last = tf.cast(tf.shape(flat)[1] - 1, tf.float32)

    def rank(percent: float) -> tf.Tensor:
        value = tf.gather(flat, tf.cast(tf.round(last * percent / 100), tf.int32), axis=1)
        return tf.reshape(value, [-1] + [1] * (image.shape.rank - 1))

    return rank(low), rank(high)


def sample_mean(image, mask=None) -> tf.Tensor:
    """Mean of each sample of `[B, ...]` over `mask` (same shape, 0/1), broadcastable; an empty mask means all."""
    axes = list(range(1, image.shape.rank))
    everywhere = tf.reduce_mean(image, axis=axes, keepdims=True)
    if mask is None:
        return everywhere
    mask = tf.cast(mask, image.dtype)
    count = tf.reduce_sum(mask, axis=axes, keepdims=True)
    inside = tf.math.divide_no_nan(tf.reduce_sum(image * mask, axis=axes, keepdims=True), count)
    return tf.where(count > 0, inside, everywhere)
