"""Layers of the template and atlas models: Gaussian label likelihoods, and an image made from a segmentation."""

import math

import keras
import numpy as np
import tensorflow as tf

# Smallest probability whose logarithm is taken.
EPSILON = 1e-7


@keras.saving.register_keras_serializable("hetmorph")
class ScaleAndShift(keras.layers.Layer):
    """`scale · x + shift`, with a constant shift per channel.

    Args:
        scale: factor.
        shift: one number per channel.
    """

    def __init__(self, scale: float, shift, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.shift = np.asarray(shift, np.float32)

    def call(self, x):
        return self.scale * x + tf.cast(self.shift, x.dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "shift": self.shift.tolist()}


@keras.saving.register_keras_serializable("hetmorph")
class GaussianLogLikelihood(keras.layers.Layer):
    """log N(x; μ, σ²) of inputs `[image, mean, log_variance]`, broadcast against each other.

    −½·((x − μ)/σ)² − ½·log σ² − ½·log 2π
    """

    def call(self, inputs):
        image, mean, log_variance = inputs
        squared = tf.square(image - mean) * tf.exp(-log_variance)
        return -0.5 * (squared + log_variance + math.log(2 * math.pi))

    def compute_output_shape(self, input_shape):
        image, mean, _ = input_shape
        return (*image[:-1], mean[-1])


@keras.saving.register_keras_serializable("hetmorph")
class LogJoint(keras.layers.Layer):
    """log p(x | label) + log p(label), from inputs `[log_likelihood, label probabilities]`, `[B, *S, labels]`."""

    def call(self, inputs):
        log_likelihood, prior = inputs
        return log_likelihood + tf.math.log(prior + EPSILON)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable("hetmorph")
class LogSumExp(keras.layers.Layer):
    """log Σ exp(x) over the channels, without overflow: `[B, *S, C]` to `[B, *S, 1]`."""

    def call(self, x):
        return tf.reduce_logsumexp(x, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)


@keras.saving.register_keras_serializable("hetmorph")
class SoftmaxLabels(keras.layers.Layer):
    """Softmax of all channels but the first, which is an image: `[B, *S, 1 + labels]` to `[B, *S, labels]`."""

    def call(self, x):
        return tf.nn.softmax(x[..., 1:])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] - 1)


@keras.saving.register_keras_serializable("hetmorph")
class ReplaceFirstChannel(keras.layers.Layer):
    """Inputs `[image, tensor]`: the tensor with its first channel replaced by the one-channel image."""

    def call(self, inputs):
        image, tensor = inputs
        return tf.concat([image, tensor[..., 1:]], axis=-1)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1])
