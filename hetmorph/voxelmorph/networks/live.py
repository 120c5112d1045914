"""Tensors of a model that a loss function may use while the model trains."""

from collections.abc import Callable

import keras
import tensorflow as tf


class LiveTensor:
    """The present value of a tensor, read anew each time TensorFlow converts this object.

    Keras 2 losses could use the model's symbolic tensors, such as a template or a hyperparameter. Keras 3 losses
    cannot. This object goes where such a tensor went: `lambda _, y_pred: mse(model.references.atlas_tensor, y_pred)`.

    Args:
        read: function without arguments that returns the value.
        shape: its shape, None where unknown.
    """

    def __init__(self, read: Callable[[], tf.Tensor], shape: tuple):
        self._read = read
        self.shape = tf.TensorShape(shape)
        self.dtype = tf.float32

    def __tf_tensor__(self, dtype=None, name=None) -> tf.Tensor:
        # numpy generators yield float64, which Keras 2 cast to the type of the model's input.
        return tf.convert_to_tensor(tf.cast(self._read(), self.dtype), dtype=dtype, name=name)


class LiveInput(LiveTensor):
    """What the running step feeds into one of a model's inputs.

    Args:
        tensor: the input.
        position: its place among the model's inputs.
    """

    def __init__(self, tensor: keras.KerasTensor, position: int):
        super().__init__(self._running, tensor.shape)
        self._name, self._position = tensor._keras_history.operation.name, position
        self._value = None

    def remember(self, inputs) -> None:
        """Take the value from what the model is called with."""
        by_name = isinstance(inputs, dict)
        value = inputs[self._name] if by_name else tf.nest.flatten(inputs)[self._position]
        if not isinstance(value, keras.KerasTensor):
            self._value = value

    def _running(self):
        if self._value is None:
            raise ValueError(f"{self._name} has a value in losses only, while the model trains")
        return self._value
