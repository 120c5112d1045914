"""Smooth bounds on a network's output."""

import keras

from hetmorph.configured import Configured


@keras.saving.register_keras_serializable("hetmorph")
class SoftBound(Configured, keras.layers.Layer):
    """Bound a tensor to (low, high), near the identity in the middle: `c + h·tanh(x/h)`.

    An input of 0, where a freshly initialised network starts, maps to the centre c = (low + high)/2; h is half the
    range. Unlike clipping it never loses the gradient.

    Args:
        low, high: open bounds of the output.
    """

    def __init__(self, low: float, high: float, **kwargs):
        super().__init__(**kwargs)
        if not low < high:
            raise ValueError(f"SoftBound needs low < high, got {low} and {high}")
        self.low, self.high = float(low), float(high)

    def call(self, x):
        half = (self.high - self.low) / 2
        return (self.low + self.high) / 2 + half * keras.ops.tanh(x / half)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
