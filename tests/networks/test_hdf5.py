"""Weights find their layers by name and shape, or not at all."""

import numpy as np
import pytest
from keras import layers

from hetmorph.networks.hdf5 import assign_layer_weights


def dense(name, inputs, units):
    layer = layers.Dense(units, name=name)
    layer.build((None, inputs))
    return layer


def arrays(inputs, units, value):
    return [np.full((inputs, units), value, "float32"), np.full(units, value, "float32")]


def test_layers_that_keras_numbered_are_paired_in_order_within_their_kind():
    ours = [dense("dense_4", 2, 3), dense("head", 3, 1), dense("dense_5", 2, 3), dense("dense_6", 3, 3)]
    stored = {"dense": arrays(3, 3, 1), "head": arrays(3, 1, 2), "dense_1": arrays(2, 3, 3), "dense_2": arrays(2, 3, 4)}
    assign_layer_weights(ours, stored)
    assert [float(layer.bias[0]) for layer in ours] == [3, 2, 4, 1]


@pytest.mark.parametrize(
    "stored",
    [
        {"stranger": arrays(2, 3, 1), "dense_2": arrays(2, 3, 2)},  # as many, of the same shapes, in this order
        {"dense": arrays(2, 3, 1), "dense_2": arrays(3, 2, 2)},
        {"dense": arrays(2, 3, 1)},
    ],
)
def test_leftovers_that_do_not_match_are_refused_and_both_sides_listed(stored):
    ours = [dense("encoder_4", 2, 3), dense("dense_5", 2, 3)]
    with pytest.raises(ValueError) as error:
        assign_layer_weights(ours, stored)
    for name in (*stored, "encoder_4", "dense_5"):
        assert f"{name} [(" in str(error.value)
    assert not any(np.any(layer.bias) for layer in ours)
