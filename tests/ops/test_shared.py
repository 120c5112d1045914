"""Replicas that share a batch know of the whole."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops.shared import first_sample, lowest_and_highest


@pytest.mark.parametrize("graph", [False, True])
def test_replicas_know_of_the_whole_batch(graph, two_replicas, rng):
    values = rng.normal(size=(6, 4)).astype("float32")
    parts = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(values[3 * context.replica_id_in_sync_group :][:3])
    )

    def known(part):
        return tf.stack([tf.cast(first_sample(3), tf.float32), *lowest_and_highest(part)])

    run = tf.function(two_replicas.run) if graph else two_replicas.run
    of_each = two_replicas.experimental_local_results(run(known, (parts,)))
    np.testing.assert_array_equal(of_each, [[first, values.min(), values.max()] for first in (0, 3)])
    assert first_sample(3) == 0 and lowest_and_highest(values) == (values.min(), values.max())
