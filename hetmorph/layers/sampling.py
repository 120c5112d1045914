"""Reparameterised sampling of a velocity field."""

import keras
import tensorflow as tf

from hetmorph.ops.draws import of_own_samples


@keras.saving.register_keras_serializable("hetmorph")
class SampleNormalLogVar(keras.layers.Layer):
    """Draw z = μ + exp(½ log σ²)·ε while training; return the mean μ at inference.

    The original samples at inference too, so that two predictions of one pair differ. Call with `training=True` to
    sample on purpose. The seed generator is part of the layer's state: a resumed training draws the same noise.

    Inputs `[mean, log_variance]`, each `[B, *S, N]`.

    Args:
        seed: seed of ε; None draws one.

    Reference:
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """

    def __init__(self, seed: int | None = None, **kwargs):
        keras.layers.Layer.__init__(self, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        mean, log_variance = inputs
        if not training:
            return mean
        noise = of_own_samples(
            lambda shape: keras.random.normal(shape, dtype=mean.dtype, seed=self.seed_generator), tf.shape(mean)
        )
        return mean + tf.exp(0.5 * log_variance) * noise

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**keras.layers.Layer.get_config(self), "seed": self.seed}
