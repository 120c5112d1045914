"""Tensors of a model that a loss function may use while the model trains."""

from collections.abc import Callable

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
        return tf.convert_to_tensor(self._read(), dtype=dtype, name=name)
