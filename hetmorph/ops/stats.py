"""Per-sample statistics that do not look at batch neighbours."""

import tensorflow as tf


def percentiles(image, low: float, high: float, mask=None) -> tuple[tf.Tensor, tf.Tensor]:
    """Two percentiles of each sample of `[B, ...]`, shaped to broadcast against it.

    Nearest-rank on the sorted values; exact order statistics, so a few extreme voxels cannot move them.

    Args:
        image: a batch `[B, ...]` of any rank above 1.
        low, high: which, 0 to 100.
        mask: same shape, above 0 for the entries that are ranked; None ranks all. An empty one gives 0.
    """
    image = tf.convert_to_tensor(image)
    image = image if image.dtype.is_floating else tf.cast(image, tf.float32)
    flat = tf.reshape(image, [tf.shape(image)[0], -1])
    shape = [-1] + [1] * (image.shape.rank - 1)
    if mask is not None:
        return tuple(tf.reshape(one, shape) for one in _ranked(flat, tf.reshape(mask, tf.shape(flat)) > 0, low, high))
    last = tf.cast(tf.shape(flat)[1] - 1, tf.float32)
    below, above = (tf.cast(tf.round(last * part / 100), tf.int32) for part in (low, 100 - high))
    # Only the extremes are sorted, which are a small part of the image.
    smallest = -tf.math.top_k(-flat, below + 1).values[:, -1]
    largest = tf.math.top_k(flat, above + 1).values[:, -1]
    return tf.reshape(smallest, shape), tf.reshape(largest, shape)


def _ranked(flat: tf.Tensor, mask: tf.Tensor, low: float, high: float) -> list[tf.Tensor]:
    """Percentiles `[B]` of the entries `[B, K]` where the mask holds; 0 where it is empty."""
    ordered = tf.sort(tf.where(mask, flat, flat.dtype.max), axis=1)
    count = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    last = tf.cast(tf.maximum(count - 1, 0), tf.float32)
    ranks = [tf.cast(tf.round(last * part / 100), tf.int32) for part in (low, high)]
    found = [tf.gather(ordered, rank, axis=1, batch_dims=1) for rank in ranks]
    return [tf.where(count > 0, one, tf.zeros_like(one)) for one in found]


def sample_mean(image, mask=None) -> tf.Tensor:
    """Mean of each sample of `[B, ...]` over `mask` (same shape, 0/1), broadcastable; an empty mask means all.

    Args:
        image: a batch `[B, ...]` of any rank above 1.
        mask: None takes all.
    """
    axes = list(range(1, image.shape.rank))
    everywhere = tf.reduce_mean(image, axis=axes, keepdims=True)
    if mask is None:
        return everywhere
    mask = tf.cast(mask, image.dtype)
    count = tf.reduce_sum(mask, axis=axes, keepdims=True)
    inside = tf.math.divide_no_nan(tf.reduce_sum(image * mask, axis=axes, keepdims=True), count)
    return tf.where(count > 0, inside, everywhere)


def broadcast(values, image) -> tf.Tensor:
    """One number of each sample, `[B]`, shaped to meet an image.

    Args:
        values: `[B]`.
        image: `[B, ...]`.
    """
    return tf.reshape(values, [-1] + [1] * (image.shape.rank - 1))
