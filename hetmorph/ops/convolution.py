"""Convolution and pooling of a U-Net, arranged to need less work than their definitions."""

import itertools

import tensorflow as tf

from hetmorph.ops import xla
from hetmorph.ops.grid import spatial_shape

_INPUT_GRADIENT = {2: tf.raw_ops.Conv2DBackpropInput, 3: tf.raw_ops.Conv3DBackpropInputV2}
_FILTER_GRADIENT = {2: tf.raw_ops.Conv2DBackpropFilter, 3: tf.raw_ops.Conv3DBackpropFilterV2}
_LANES = 16  # float32 numbers of a vector register: oneDNN rounds output channels up to them


def convolve(image: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution ("same", stride 1) of `[B, *S, C]` with an odd-sized `[…, C, F]`: `[B, *S, F]`."""
    ndims = image.shape.rank - 2
    if ndims == 1:
        return tf.nn.conv1d(image, kernel, 1, "SAME")
    options = {"strides": [1] * (ndims + 2), "padding": "SAME"}

    @tf.custom_gradient
    def apply(image, kernel):
        def gradients(upstream):
            of_image = _INPUT_GRADIENT[ndims](
                input_sizes=tf.shape(image), filter=kernel, out_backprop=upstream, **options
            )
            return of_image, _kernel_gradient(image, upstream, kernel.shape, options)

        return tf.nn.convolution(image, kernel, padding="SAME"), gradients

    return apply(image, kernel)


def _kernel_gradient(image: tf.Tensor, upstream: tf.Tensor, shape: tf.TensorShape, options: dict) -> tf.Tensor:
    """Gradient of the kernel. Up to a reflection both images play the same part in it; to oneDNN they do not."""
    ndims = image.shape.rank - 2
    *widths, inputs, outputs = shape
    if inputs * _rounded_up(outputs) <= outputs * _rounded_up(inputs):
        return _FILTER_GRADIENT[ndims](input=image, filter_sizes=shape, out_backprop=upstream, **options)
    exchanged = _FILTER_GRADIENT[ndims](
        input=upstream, filter_sizes=[*widths, outputs, inputs], out_backprop=image, **options
    )
    reflected = tf.reverse(exchanged, list(range(ndims)))
    return tf.transpose(reflected, [*range(ndims), ndims + 1, ndims])


def _rounded_up(channels: int) -> int:
    return -(-channels // _LANES) * _LANES


@tf.custom_gradient
def add_bias(image: tf.Tensor, bias: tf.Tensor):
    """`image + bias` along the channels."""

    def gradients(upstream):
        # Reshaped, because TensorFlow would merge this sum into the kernel's gradient, where oneDNN takes far longer.
        rows = tf.reshape(upstream, [-1, bias.shape[0]])
        return upstream, tf.raw_ops.BiasAddGrad(out_backprop=rows)

    return tf.nn.bias_add(image, bias), gradients


def leaky_relu(image: tf.Tensor, slope: float) -> tf.Tensor:
    """`max(x, slope · x)` for a positive slope, whose gradient needs the result only: the input's memory is freed."""

    @tf.custom_gradient
    def apply(image):
        result = tf.nn.leaky_relu(image, slope)
        return result, lambda upstream: tf.raw_ops.LeakyReluGrad(gradients=upstream, features=result, alpha=slope)

    return apply(image)


def convolve_upsampled(
    coarse: tf.Tensor, fine: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factor: int
) -> tf.Tensor:
    """Convolution ("same", stride 1) of `[repeat(coarse, factor), fine]`, concatenated along the channels.

    The repeated voxels share products: a 3-wide kernel on voxels repeated twice is a transposed convolution of stride
    2 with a 4-wide kernel, 4 products an axis for two outputs where the definition takes 6. Neither the repeated
    nor the concatenated image exists in memory.

    Args:
        coarse: `[B, *S, C]`.
        fine: `[B, *(factor·S), D]`.
        kernel: `[3, …, C + D, F]`, the axes of the image first.
        bias: `[F]`, or None.
        factor: repetitions along each axis.

    Returns:
        `[B, *(factor·S), F]`.
    """
    channels = coarse.shape[-1]
    of_coarse, of_fine = kernel[..., :channels, :], kernel[..., channels:, :]
    ndims = coarse.shape.rank - 2
    transposed = (tf.nn.conv1d_transpose, tf.nn.conv2d_transpose, tf.nn.conv3d_transpose)[ndims - 1]
    shape = [tf.shape(fine)[0], *spatial_shape(fine), kernel.shape[-1]]
    result = transposed(coarse, _repeated_kernel(of_coarse, factor), shape, factor, "SAME")
    # The bias belongs to this convolution, which adds it on the way, and not to the sum, which would be copied.
    of_fine = convolve(fine, of_fine)
    return result + (of_fine if bias is None else add_bias(of_fine, bias))


def _repeated_kernel(kernel: tf.Tensor, factor: int) -> tf.Tensor:
    """Transposed kernel, `factor` + 2 wide, that does what `kernel` does on voxels repeated `factor` times."""
    ndims = kernel.shape.rank - 2
    kernel = kernel[(slice(None, None, -1),) * ndims]  # not tf.reverse: OpenVINO reads it for one axis only
    for axis in range(ndims):
        shifts = []
        for shift in range(factor):
            padding = [[0, 0]] * kernel.shape.rank
            padding[axis] = [shift, factor - 1 - shift]
            shifts.append(tf.pad(kernel, padding))
        kernel = tf.add_n(shifts)
    return tf.transpose(kernel, [*range(ndims), ndims + 1, ndims])


def max_pool(image: tf.Tensor, factor: int) -> tf.Tensor:
    """Largest value of each block of `factor` voxels along each axis, `[B, *(S // factor), C]`.

    TensorFlow's gradient visits every voxel by itself on the CPU and takes as long as a convolution. Where kernels are
    compiled (`xla.compiled_kernels`) and the blocks fill the image, the gradient is one vectorised comparison, with
    TensorFlow's rule for equal voxels: the first of them gets the gradient in 1-D and 2-D, all of them in 3-D.
    """
    ndims = image.shape.rank - 2

    def pool(x):
        # The layout is spelt out because the eager gradient in 3-D fails without.
        return tf.nn.max_pool(x, factor, factor, "VALID", ("NWC", "NHWC", "NDHWC")[ndims - 1])

    sizes = image.shape[1:-1]
    if not (xla.active() and sizes.is_fully_defined() and all(size % factor == 0 for size in sizes)):
        return pool(image)

    @tf.custom_gradient
    def apply(image):
        pooled = pool(image)
        adjoint = _to_every_maximum if ndims == 3 else _to_first_maximum
        return pooled, lambda upstream: xla.run(adjoint, image, pooled, upstream, factor=factor)

    return apply(image)


def _to_every_maximum(image: tf.Tensor, pooled: tf.Tensor, upstream: tf.Tensor, factor: int) -> tf.Tensor:
    blocks = _blocks(image, factor)
    spread = tf.where(blocks == _as_blocks(pooled), _as_blocks(upstream), tf.zeros([], image.dtype))
    return tf.reshape(spread, tf.shape(image))


def _to_first_maximum(image: tf.Tensor, pooled: tf.Tensor, upstream: tf.Tensor, factor: int) -> tf.Tensor:
    ndims = image.shape.rank - 2
    blocks = _blocks(image, factor)
    places = list(itertools.product(range(factor), repeat=ndims))
    first = tf.fill(tf.shape(pooled), len(places))
    for number, place in reversed(list(enumerate(places))):
        inside = tuple(part for index in place for part in (slice(None), index))
        first = tf.where(blocks[(slice(None), *inside)] == pooled, number, first)
    axes = [tf.reshape(tf.range(factor), [-1] + [1] * (2 * (ndims - 1 - axis) + 1)) for axis in range(ndims)]
    numbers = sum(axis * factor ** (ndims - 1 - position) for position, axis in enumerate(axes))
    spread = tf.where(_as_blocks(first) == numbers, _as_blocks(upstream), tf.zeros([], image.dtype))
    return tf.reshape(spread, tf.shape(image))


def _blocks(image: tf.Tensor, factor: int) -> tf.Tensor:
    """`[B, n₁, factor, n₂, factor, …, C]`: each axis split into blocks."""
    split = [part for size in image.shape[1:-1] for part in (size // factor, factor)]
    return tf.reshape(image, [-1, *split, image.shape[-1]])


def _as_blocks(pooled: tf.Tensor) -> tf.Tensor:
    """A pooled image in the rank of `_blocks`, one voxel a block."""
    split = [part for size in pooled.shape[1:-1] for part in (size, 1)]
    return tf.reshape(pooled, [-1, *split, pooled.shape[-1]])
