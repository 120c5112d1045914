"""Replicas that share a batch draw for it what one device draws."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.layers import SampleNormalLogVar
from hetmorph.layers.attention import DropPath

LAYERS = {
    "sampled velocity": (lambda: SampleNormalLogVar(seed=1), lambda x: [x, 0 * x]),
    "stochastic depth": (lambda: DropPath(0.5, seed=1), lambda x: x),
}


@pytest.mark.parametrize("name", LAYERS)
def test_replicas_draw_what_one_device_draws(name, two_replicas):
    make, inputs = LAYERS[name]
    images = np.ones((8, 3, 2), "float32")
    alone = make()(inputs(images), training=True).numpy()
    assert len(np.unique(alone[:, 0, 0])) > 1 and not np.array_equal(alone[:4], alone[4:])
    with two_replicas.scope():
        layer = make()
    parts = two_replicas.experimental_distribute_values_from_function(lambda _: tf.constant(images[:4]))
    step = tf.function(lambda some: two_replicas.run(lambda part: layer(inputs(part), training=True), (some,)))
    np.testing.assert_array_equal(np.concatenate(two_replicas.experimental_local_results(step(parts))), alone)
