"""Objects that are saved by the arguments that they were made of."""

import json

import keras
import numpy as np
import pytest

from hetmorph.configured import Configured


@keras.saving.register_keras_serializable("tests")
class Scaled(Configured, keras.layers.Layer):
    def __init__(self, factor, sizes=(), **kwargs):
        super().__init__(**kwargs)
        self.factor, self.sizes = factor, sizes


@keras.saving.register_keras_serializable("tests")
class Around(Scaled):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner


def test_arguments_of_all_constructors_and_layers_among_them_come_back():
    layer = Around(Scaled(np.float32(0.5), name="inside"), factor=np.array([1, 2]), sizes=(3, 4), name="outside")
    stored = json.loads(json.dumps(layer.get_config()))
    again = Around.from_config(stored)
    assert (again.name, again.inner.name, again.inner.factor) == ("outside", "inside", 0.5)
    assert (again.factor, again.sizes) == ([1, 2], [3, 4])
    assert again.get_config() == layer.get_config()


def test_an_argument_that_is_no_attribute_is_told_at_once():
    class Forgetful(Configured):
        def __init__(self, weight):
            pass

    with pytest.raises(AttributeError, match="weight"):
        Forgetful(1).get_config()
