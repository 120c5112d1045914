"""A batch that several replicas share: what one of them has to know of the whole."""

from __future__ import annotations

import tensorflow as tf


def together() -> tf.distribute.ReplicaContext | None:
    """Of this replica, where it shares a batch with others; None where one device has all of it."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def first_sample(count: tf.Tensor | int) -> tf.Tensor | int:
    """Place in the whole batch of the first sample of this replica; 0 where one device has all of them.

    Args:
        count: samples of this replica, as many as any other has.
    """
    context = together()
    return 0 if context is None else context.replica_id_in_sync_group * count


def lowest_and_highest(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Least and largest of all values of the whole batch, without gradient.

    Args:
        values: values of the samples of this replica, of any shape.
    """
    values = tf.stop_gradient(values)
    ends = tf.stack([tf.reduce_min(values), tf.reduce_max(values)])[None]
    context = together()
    if context is not None:  # a row for each replica: what gathers them, TensorFlow has in graphs alone
        rows = tf.scatter_nd([[context.replica_id_in_sync_group]], ends, [context.num_replicas_in_sync, 2])
        ends = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
    return tf.reduce_min(ends[:, 0]), tf.reduce_max(ends[:, 1])
