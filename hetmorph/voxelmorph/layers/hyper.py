"""Layers whose weights are computed by a hypernetwork, one set for each sample.

Subclasses of neurite's, with its weights and names; registered, for 1-D to 3-D, any spatial size and mixed precision.
"""

import keras
import tensorflow as tf

from hetmorph.voxelmorph.original import ne


def _convolve_sample(layer, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Convolution of one sample `[*S, C]` with its own kernel, and its own bias if there is one."""
    features, kernel, *bias = inputs
    # TensorFlow's eager gradient of a 3-D convolution needs the layout spelled out.
    layout = ("NWC", "NHWC", "NDHWC")[len(features.shape) - 2]
    result = tf.nn.convolution(
        features[None], kernel, layer.strides, layer.padding.upper(), layout, dilations=layer.dilation_rate
    )[0]
    return result + bias[0] if layer.use_bias else result


class _HyperConvMixin:
    """Replaces the convolution of a neurite hyperconvolution by one that needs no spatial size in advance."""

    rank: int

    def _build_conv_op(self, input_shape):
        # neurite fixes the spatial size here.
        pass

    def _convolve_batch(self, inputs):
        return _convolve_sample(self, inputs)

    def call(self, inputs):
        inputs = [tf.cast(x, self.compute_dtype) for x in self._weighted(inputs)]
        outputs = tf.map_fn(self._convolve_batch, inputs, fn_output_signature=self.compute_dtype)
        return self.activation(outputs)

    def _weighted(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        grid = [
            None if size is None else self._output_size(size, axis) for axis, size in enumerate(input_shape[0][1:-1])
        ]
        return (input_shape[0][0], *grid, self.filters)

    def _output_size(self, size: int, axis: int) -> int:
        extent = (self.kernel_size[axis] - 1) * self.dilation_rate[axis]
        size = size if self.padding == "same" else size - extent
        return -(-size // self.strides[axis])

    def get_config(self):
        config = super().get_config()
        del config["rank"]  # fixed by the class, which refuses it
        return config


class _FromDenseMixin(_HyperConvMixin):
    """Kernel and bias from the hypernetwork's last layer, by one dense map each."""

    def _weighted(self, inputs):
        features, hyper = inputs
        weights = [self._dense(hyper, self.hyperkernel)]
        if self.use_bias:
            weights.append(self._dense(hyper, self.hyperbias))
        return [features, *weights]

    def _dense(self, hyper, params):
        kernel, bias, activation, target_shape = params
        result = tf.matmul(hyper, tf.cast(kernel, hyper.dtype))
        if bias is not None:
            result += tf.cast(bias, hyper.dtype)
        return tf.reshape(activation(result), [-1, *target_shape])


_register = keras.saving.register_keras_serializable("hetmorph")


@_register
class HyperConv1D(_HyperConvMixin, ne.layers.HyperConv):
    """1-D convolution of `[features, kernel, bias]` with a kernel per sample."""

    def __init__(self, *args, **kwargs):
        super().__init__(1, *args, **kwargs)


@_register
class HyperConv2D(_HyperConvMixin, ne.layers.HyperConv2D):
    """2-D convolution of `[features, kernel, bias]` with a kernel per sample: `[B, 3, 3, C, filters]`."""


@_register
class HyperConv3D(_HyperConvMixin, ne.layers.HyperConv3D):
    """3-D convolution of `[features, kernel, bias]` with a kernel per sample."""


@_register
class HyperConv1DFromDense(_FromDenseMixin, ne.layers.HyperConvFromDense):
    """1-D hyperconvolution of `[features, hypernetwork output]`."""

    def __init__(self, *args, **kwargs):
        super().__init__(1, *args, **kwargs)


@_register
class HyperConv2DFromDense(_FromDenseMixin, ne.layers.HyperConv2DFromDense):
    """2-D hyperconvolution of `[features, hypernetwork output]`.

    Reference:
        Hoopes et al., MELBA 2022, arXiv:2203.16680.
    """


@_register
class HyperConv3DFromDense(_FromDenseMixin, ne.layers.HyperConv3DFromDense):
    """3-D hyperconvolution of `[features, hypernetwork output]`."""


class _HyperDenseMixin:
    """A dense layer with its own weights for each sample, as one batched product."""

    def call(self, inputs):
        features, kernel, *bias = self._weighted(inputs)
        result = tf.einsum("bi,bio->bo", features, tf.cast(kernel, features.dtype))
        if self.use_bias:
            result += tf.cast(bias[0], features.dtype)
        return self.activation(result)

    def _weighted(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], self.units)


@_register
class HyperDense(_HyperDenseMixin, ne.layers.HyperDense):
    """Dense layer on `[features, kernel, bias]` with weights per sample."""


@_register
class HyperDenseFromDense(_HyperDenseMixin, ne.layers.HyperDenseFromDense):
    """Dense layer on `[features, hypernetwork output]`."""

    _weighted = _FromDenseMixin._weighted
    _dense = _FromDenseMixin._dense
