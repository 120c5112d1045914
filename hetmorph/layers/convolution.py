"""Convolution and pooling layers of the U-Net: Keras' weights and results, in less time and memory."""

import keras
import tensorflow as tf

from hetmorph.ops import convolution


class _ChannelsLast:
    """Channels come last, whatever `image_data_format` says: elsewhere in the library they do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"data_format": "channels_last", **kwargs})


class _Conv(_ChannelsLast):
    """Keras' convolution with the gradients of `ops.convolution`, where its arguments allow."""

    def _is_plain(self) -> bool:
        ones = (*self.strides, *self.dilation_rate, self.groups)
        odd = all(width % 2 for width in self.kernel_size)
        return self.padding == "same" and self.data_format == "channels_last" and set(ones) == {1} and odd

    def call(self, inputs):
        if not self._is_plain():
            return super().call(inputs)
        result = convolution.convolve(inputs, tf.convert_to_tensor(self.kernel))
        bias = self._bias()
        return self.activation(result if bias is None else convolution.add_bias(result, bias))

    def _bias(self) -> tf.Tensor | None:
        return tf.convert_to_tensor(self.bias) if self.use_bias else None


@keras.saving.register_keras_serializable("hetmorph")
class Conv1D(_Conv, keras.layers.Conv1D):
    """1-D form of `Conv2D`."""


@keras.saving.register_keras_serializable("hetmorph")
class Conv2D(_Conv, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with gradients that take less time on a CPU; arguments and results are the same."""


@keras.saving.register_keras_serializable("hetmorph")
class Conv3D(_Conv, keras.layers.Conv3D):
    """3-D form of `Conv2D`."""


class _UpsampleConv(_Conv):
    """What `UpsampleConv1D` to `3D` share, ahead of Keras' convolution of that dimension in the MRO."""

    def __init__(self, filters, kernel_size=3, factor=2, **kwargs):
        kwargs.setdefault("padding", "same")
        super().__init__(filters, kernel_size, **kwargs)
        self.factor = factor
        if not self._is_plain() or set(self.kernel_size) != {3} or factor < 2:
            raise ValueError(
                f"{type(self).__name__} needs padding 'same', channels last, 3-wide kernels, no strides, dilation or "
                f"groups, and a factor of at least 2, got {self.get_config()}"
            )
        self.input_spec = None

    def build(self, input_shape):
        coarse, fine = input_shape
        sizes = zip(coarse[1:-1], fine[1:-1], strict=True)
        if any(None not in pair and pair[0] * self.factor != pair[1] for pair in sizes):
            raise ValueError(f"the fine image must be {self.factor} times the coarse one, got {coarse} and {fine}")
        super().build((*fine[:-1], coarse[-1] + fine[-1]))
        self.input_spec = None

    def call(self, inputs):
        coarse, fine = inputs
        kernel = tf.convert_to_tensor(self.kernel)
        return self.activation(convolution.convolve_upsampled(coarse, fine, kernel, self._bias(), self.factor))

    def compute_output_shape(self, input_shape):
        # Keras' own `build` asks with the shape of the concatenated image.
        fine = input_shape[1] if isinstance(input_shape[0], (list, tuple)) else input_shape
        return (*fine[:-1], self.filters)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("hetmorph")
class UpsampleConv1D(_UpsampleConv, keras.layers.Conv1D):
    """1-D form of `UpsampleConv2D`."""


@keras.saving.register_keras_serializable("hetmorph")
class UpsampleConv2D(_UpsampleConv, keras.layers.Conv2D):
    """`Conv2D(filters, 3, padding="same")` of `concatenate([UpSampling2D(factor)(coarse), fine])`.

    Weights and results (to rounding) are those of the three layers; about two thirds of the work in 2-D, one half in
    3-D, and neither intermediate image is kept for the gradient.

    Args:
        filters: output channels.
        kernel_size: 3.
        factor: repetitions of each voxel of the coarse image along each axis.
        kwargs: arguments of `keras.layers.Conv2D`.

    Inputs `[coarse, fine]`: `[B, *S, C]` and `[B, *(factor·S), D]`. Returns `[B, *(factor·S), filters]`.

    Example:
        >>> features = UpsampleConv2D(32)([coarse, skip])
    """


@keras.saving.register_keras_serializable("hetmorph")
class UpsampleConv3D(_UpsampleConv, keras.layers.Conv3D):
    """3-D form of `UpsampleConv2D`."""


class _MaxPooling(_ChannelsLast):
    """Gradient of `ops.convolution.max_pool` for Keras' pooling, where its arguments allow."""

    def call(self, inputs):
        factors = set(self.pool_size)
        plain = tuple(self.strides) == tuple(self.pool_size) and self.padding == "valid" and len(factors) == 1
        if not plain or self.data_format != "channels_last":
            return super().call(inputs)
        return convolution.max_pool(inputs, factors.pop())


@keras.saving.register_keras_serializable("hetmorph")
class MaxPooling1D(_MaxPooling, keras.layers.MaxPooling1D):
    """1-D form of `MaxPooling2D`."""


@keras.saving.register_keras_serializable("hetmorph")
class MaxPooling2D(_MaxPooling, keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` with a fast gradient in training steps; arguments and results are the same."""


@keras.saving.register_keras_serializable("hetmorph")
class MaxPooling3D(_MaxPooling, keras.layers.MaxPooling3D):
    """3-D form of `MaxPooling2D`."""


@keras.saving.register_keras_serializable("hetmorph")
class LeakyReLU(keras.layers.LeakyReLU):
    """`keras.layers.LeakyReLU` that does not keep its input for the gradient; arguments and results are the same."""

    def call(self, inputs):
        return convolution.leaky_relu(inputs, self.negative_slope) if self.negative_slope > 0 else super().call(inputs)
