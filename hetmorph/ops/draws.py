"""Random numbers of a batch that several replicas share: each takes its own rows of what one device would draw."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from hetmorph.ops.shared import first_sample, together


def of_own_samples(draw: Callable[[tf.Tensor], tf.Tensor], shape: tf.Tensor) -> tf.Tensor:
    """`draw(shape)`; where replicas share a batch, this one's rows of one draw for all of it.

    Replicas have equal states of their generators. Each alone would draw the same numbers for its samples as the others
    for theirs, and a training on N devices would not be that on one.

    Args:
        draw: a shape → random numbers of it.
        shape: `[B, …]`, B the samples of this replica.
    """
    context = together()
    if context is None:
        return draw(shape)
    shape = tf.convert_to_tensor(shape)
    first = first_sample(shape[0])
    return draw(tf.concat([shape[:1] * context.num_replicas_in_sync, shape[1:]], 0))[first : first + shape[0]]
