"""Layers of neurite that VoxelMorph's template and instance models need, reloadable and valid in any call."""

import keras
import numpy as np
import tensorflow as tf

from hetmorph.voxelmorph.original import ne


@keras.saving.register_keras_serializable("hetmorph")
class LocalParamWithInput(ne.layers.LocalParamWithInput):
    """A trainable tensor, repeated for each sample of the input and otherwise independent of it.

    Args:
        shape: shape of the tensor, without batch.
        initializer: initial value.
        mult: the output is the weight times this factor, which scales its learning rate.

    Reference:
        Dalca et al., NeurIPS 2019, arXiv:1908.02738.
    """

    def __init__(self, shape, initializer="RandomNormal", mult=1.0, **kwargs):
        # The original's constructor prints an advice that no longer holds.
        keras.layers.Layer.__init__(self, **kwargs)
        self.shape = tuple(int(size) for size in shape)
        self.initializer = keras.initializers.get(initializer)
        self.biasmult = mult

    def value(self) -> tf.Tensor:
        """The tensor, without batch."""
        return tf.convert_to_tensor(self.kernel) * tf.cast(self.biasmult, self.kernel.dtype)

    def call(self, x):
        value = tf.cast(self.value(), self.compute_dtype)
        return tf.repeat(value[None], tf.shape(x)[0], axis=0)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "shape": self.shape, "initializer": initializer, "mult": self.biasmult}


class _Stream(keras.layers.Layer):
    """What the two running statistics share: the shape of the state and the moment of its update."""

    # Running sums over thousands of samples need more than half precision.
    def __init__(self, cap=100, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if not cap > 0:
            raise ValueError(f"cap must be positive, got {cap}")
        self.cap = float(cap)

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise ValueError(f"{type(self).__name__} keeps one value a voxel and needs a known size, got {input_shape}")
        self._add_state(tuple(input_shape[1:]))
        self.built = True

    def call(self, x, training=None):
        if training and self.trainable:
            # The new value itself, not the variable it is kept in: a penalty on it has to reach the inputs.
            statistic, count = self._update(x)
        else:
            statistic, count = tf.convert_to_tensor(self._statistic()), self.count
        filled = tf.minimum(1.0, count / self.cap)
        return tf.repeat((filled * statistic)[None], tf.shape(x)[0], axis=0)

    def get_config(self):
        return {**super().get_config(), "cap": self.cap}

    def _state(self, name: str, shape):
        return self.add_weight(name=name, shape=shape, initializer="zeros", trainable=False)

    def _batch_mean_update(self, x):
        """New mean and count; a sample weighs at least 1/cap however many came before."""
        batch = tf.cast(tf.shape(x)[0], tf.float32)
        count = self.count + batch
        weight = batch / tf.minimum(count, self.cap)
        return self.mean * (1 - weight) + tf.reduce_mean(x, axis=0) * weight, count


@keras.saving.register_keras_serializable("hetmorph")
class MeanStream(_Stream, ne.layers.MeanStream):
    """Running mean of the inputs over training, `[B, ...]` → the same mean for each sample.

    The output grows with min(1, count / cap), so that a penalty on it starts gently.

    Args:
        cap: number of samples that the mean remembers.

    Reference:
        Dalca et al., NeurIPS 2019, arXiv:1908.02738.
    """

    def _add_state(self, shape):
        self.mean = self._state("mean", shape)
        self.count = self._state("count", [1])

    def _statistic(self):
        return self.mean

    def _update(self, x):
        mean, count = self._batch_mean_update(x)
        self.mean.assign(mean)
        self.count.assign(count)
        return mean, count

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class CovStream(_Stream, ne.layers.CovStream):
    """Running second moment E[x·xᵀ] of the flattened inputs over training, `[B, ...]` → `[B, V, V]`.

    Not centred, as in neurite. The output grows with min(1, count / cap).

    Args:
        cap: number of samples that the statistic remembers.

    Reference:
        Dalca et al., NeurIPS 2019, arXiv:1908.02738.
    """

    def _add_state(self, shape):
        self.mean = self._state("mean", shape)
        size = int(np.prod(shape))
        self.cov = self._state("cov", [size, size])
        self.count = self._state("count", [1])

    def _statistic(self):
        return self.cov

    def _update(self, x):
        mean, count = self._batch_mean_update(x)
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        before = tf.minimum(self.count, self.cap)
        # The first sample alone would divide by zero.
        samples = tf.maximum(before + tf.cast(tf.shape(x)[0], tf.float32) - 1, 1.0)
        cov = (self.cov * (before - 1) + tf.matmul(flat, flat, transpose_a=True)) / samples
        self.cov.assign(cov)
        self.mean.assign(mean)
        self.count.assign(count)
        return cov, count

    def compute_output_shape(self, input_shape):
        size = int(np.prod(input_shape[1:]))
        return (input_shape[0], size, size)
