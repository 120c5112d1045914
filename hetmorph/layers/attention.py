"""Layers of a Swin transformer on images of any size: self-attention within windows, shifted in every other block."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import initializers as KI
from keras import layers as KL

from hetmorph.configured import Configured
from hetmorph.ops.draws import of_own_samples
from hetmorph.ops.grid import crop_to, flat_voxels, identity_grid, missing, spatial_shape

# Added to the logits of voxels that do not belong together. As published: exp(-100) is 0 in float32.
EXCLUDED = -100.0


def window_partition(image: tf.Tensor, window: Sequence[int]) -> tf.Tensor:
    """Cut an image into windows, in the order of the array.

    Args:
        image: `[B, *S, C]`, each size a multiple of its window's.
        window: voxels per axis.

    Returns:
        `[B·nW, ∏window, C]`, the windows of a sample one after another.
    """
    sizes, ndims, channels = spatial_shape(image), len(window), image.shape[-1]
    split = [part for size, width in zip(sizes, window, strict=True) for part in (size // width, width)]
    outer, inner = range(1, 2 * ndims, 2), range(2, 2 * ndims + 1, 2)
    blocks = tf.transpose(tf.reshape(image, [-1, *split, channels]), [0, *outer, *inner, 2 * ndims + 1])
    return tf.reshape(blocks, [-1, math.prod(window), channels])


def window_reverse(windows: tf.Tensor, window: Sequence[int], sizes: Sequence) -> tf.Tensor:
    """Undo `window_partition`: `[B·nW, ∏window, C]` to `[B, *sizes, C]`."""
    ndims, channels = len(window), windows.shape[-1]
    counts = [size // width for size, width in zip(sizes, window, strict=True)]
    blocks = tf.reshape(windows, [-1, *counts, *window, channels])
    order = [axis for d in range(ndims) for axis in (1 + d, 1 + ndims + d)]
    return tf.reshape(tf.transpose(blocks, [0, *order, 2 * ndims + 1]), [-1, *sizes, channels])


def relative_positions(window: Sequence[int]) -> tf.Tensor:
    """Index of the offset from voxel j to voxel i of a window into the table of position biases, `[∏w, ∏w]`.

    Offsets −(w−1) … w−1 of every axis are counted in the order of the array.
    """
    coordinates = tf.stack([tf.reshape(c + tf.zeros(window, tf.int32), [-1]) for c in identity_grid(window, tf.int32)])
    offsets = coordinates[:, :, None] - coordinates[:, None, :]
    index = 0
    for offset, width in zip(tf.unstack(offsets), window, strict=True):
        index = index * (2 * width - 1) + offset + width - 1
    return index


def shift_regions(sizes: Sequence, window: Sequence[int]) -> tf.Tensor:
    """Which voxels of a cyclically shifted image were neighbours: a number for each region, `[nW, ∏window]`.

    After a shift by half a window the last windows hold voxels of both ends of the image.
    """
    regions = 0
    for place, size, width in zip(identity_grid(sizes, tf.int32), sizes, window, strict=True):
        last, wrapped = place >= size - width, place >= size - width // 2
        regions = 3 * regions + tf.cast(last, tf.int32) + tf.cast(wrapped, tf.int32)
    return window_partition(regions[None, ..., None], window)[..., 0]


@keras.saving.register_keras_serializable("hetmorph")
class WindowAttention(Configured, KL.Layer):
    """Multi-head self-attention of an image's voxels within windows, with a learned bias for each relative position.

    softmax(q·k / √D + bias) v, in float32 under any policy. The image is padded with zeros to whole windows, and
    cropped back. `shifted` moves the windows by half their size around the image's ends, so that neighbouring windows
    exchange what they know; voxels that meet only by going around are kept apart.

    Args:
        num_heads: attention heads; divides the channels.
        window_size: voxels per axis, at least 2 each.
        shifted: whether the windows are shifted.
        qkv_bias: whether queries, keys and values have a bias.

    Input and output `[B, *S, C]`.

    Example:
        >>> attended = WindowAttention(4, (8, 8), shifted=True)(features)

    Reference:
        Liu et al., ICCV 2021, doi:10.1109/ICCV48922.2021.00986.
    """

    def __init__(self, num_heads: int, window_size: Sequence[int], shifted: bool = False, qkv_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.window_size = num_heads, tuple(window_size)
        self.shifted, self.qkv_bias = shifted, qkv_bias
        if any(width < 2 for width in self.window_size):
            raise ValueError(f"window_size must be at least 2 voxels per axis, got {self.window_size}")

    def build(self, input_shape):
        channels = input_shape[-1]
        if len(input_shape) - 2 != len(self.window_size):
            raise ValueError(f"window_size {self.window_size} does not fit an image of shape {tuple(input_shape)}")
        if channels % self.num_heads:
            raise ValueError(f"num_heads must divide the {channels} channels of the image, got {self.num_heads}")
        self.qkv = dense(3 * channels, self, "qkv", use_bias=self.qkv_bias)
        self.projection = dense(channels, self, "projection")
        for layer in (self.qkv, self.projection):
            layer.build((None, channels))
        self.position_bias = self.add_weight(
            (math.prod(2 * width - 1 for width in self.window_size), self.num_heads),
            initializer=KI.TruncatedNormal(stddev=0.02),
            name="position_bias",
            autocast=False,
        )
        self.built = True

    def call(self, image):
        sizes, channels = spatial_shape(image), image.shape[-1]
        padded = pad_to_windows(image, self.window_size)
        padded_sizes = spatial_shape(padded)
        fits = padded is image
        shift, axes = [width // 2 for width in self.window_size], list(range(1, len(sizes) + 1))
        if self.shifted:
            padded = tf.roll(padded, [-s for s in shift], axes)
        windows = window_partition(padded, self.window_size)
        regions = shift_regions(padded_sizes, self.window_size) if self.shifted else None
        attended = tf.reshape(self._attend(windows, regions), [-1, math.prod(self.window_size), channels])
        result = window_reverse(attended, self.window_size, padded_sizes)
        if self.shifted:
            result = tf.roll(result, shift, axes)
        return result if fits else crop_to(result, sizes)

    def _attend(self, windows: tf.Tensor, regions: tf.Tensor | None) -> tf.Tensor:
        """Attention of all windows at once, `[B·nW, T, C]` to rows `[B·nW·T, C]`."""
        voxels, channels = windows.shape[1:]
        depth = channels // self.num_heads
        projected = tf.reshape(self.qkv(flat_voxels(windows)), [-1, voxels, 3, self.num_heads, depth])
        query, key, value = tf.unstack(tf.transpose(projected, [2, 0, 3, 1, 4]))
        logits = tf.cast(tf.matmul(query * depth**-0.5, key, transpose_b=True), tf.float32)
        logits += self._bias()
        if regions is not None:
            logits = _kept_apart(logits, regions)
        weights = tf.cast(tf.nn.softmax(logits), value.dtype)
        attended = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return self.projection(tf.reshape(attended, [-1, channels]))

    def _bias(self) -> tf.Tensor:
        """`[heads, T, T]`."""
        # Along the second axis, where the gradient of a gather is dense.
        return tf.gather(tf.transpose(self.position_bias), relative_positions(self.window_size), axis=1)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class DropPath(Configured, KL.Layer):
    """Stochastic depth: while training, leave a residual branch out for a sample with probability `rate`.

    What remains is divided by 1 − rate, so that the expectation is that of inference.

    Args:
        rate: probability, in [0, 1).
        seed: seed of the draws; the generator is part of the layer's state.

    Reference:
        Huang et al., ECCV 2016, doi:10.1007/978-3-319-46493-0_39.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1, got {rate}")
        self.rate, self.seed = rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        shape = [tf.shape(inputs)[0], *[1] * (inputs.shape.rank - 1)]
        drawn = of_own_samples(
            lambda some: keras.random.uniform(some, dtype="float32", seed=self.seed_generator), shape
        )
        kept = drawn >= self.rate
        return inputs * tf.cast(kept, inputs.dtype) / (1 - self.rate)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class SwinBlock(Configured, KL.Layer):
    """Transformer block: attention within windows, then two dense layers with GELU, each on a normalised residual.

    Args:
        num_heads, window_size, shifted, qkv_bias: as in `WindowAttention`.
        mlp_ratio: hidden features of the dense layers, in multiples of the channels.
        drop_path: probability that a sample skips a branch, see `DropPath`.

    Input and output `[B, *S, C]`.

    Reference:
        Liu et al., ICCV 2021, doi:10.1109/ICCV48922.2021.00986.
    """

    def __init__(
        self, num_heads, window_size, shifted=False, mlp_ratio=4, drop_path=0.0, qkv_bias=False, **kwargs
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.num_heads, self.window_size, self.shifted = num_heads, tuple(window_size), shifted
        self.mlp_ratio, self.drop_path, self.qkv_bias = mlp_ratio, drop_path, qkv_bias
        policy = {"dtype": self.dtype_policy}
        self.norm1, self.norm2 = layer_norm(self, "norm1"), layer_norm(self, "norm2")
        self.attention = WindowAttention(num_heads, window_size, shifted, qkv_bias, name="attention", **policy)
        self.dropping = DropPath(drop_path, name="drop_path", **policy)

    def build(self, input_shape):
        channels = input_shape[-1]
        hidden = int(channels * self.mlp_ratio)
        self.hidden = dense(hidden, self, "hidden", activation="gelu")  # exact, with the error function
        self.output_dense = dense(channels, self, "output")
        for layer in (self.norm1, self.norm2, self.attention):
            layer.build(input_shape)
        self.hidden.build((None, channels))
        self.output_dense.build((None, hidden))
        self.built = True

    def call(self, image, training=False):
        image += self.dropping(self.attention(self.norm1(image)), training=training)
        rows = self.output_dense(self.hidden(flat_voxels(self.norm2(image))))
        return image + self.dropping(tf.reshape(rows, tf.shape(image)), training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class PatchEmbed(Configured, KL.Layer):
    """Features of the patches of an image: one dense layer on the voxels of a patch, then layer normalisation.

    `[B, *S, C]` → `[B, *ceil(S / patch_size), embed_dim]`; the image is padded with zeros to whole patches.

    Args:
        embed_dim: features.
        patch_size: voxels per axis.

    Reference:
        Dosovitskiy et al., ICLR 2021, arXiv:2010.11929.
    """

    def __init__(self, embed_dim: int, patch_size: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.embed_dim, self.patch_size = embed_dim, patch_size
        self.projection = dense(embed_dim, self, "projection")
        self.norm = layer_norm(self, "norm")

    def build(self, input_shape):
        self.projection.build((None, self.patch_size ** (len(input_shape) - 2) * input_shape[-1]))
        self.norm.build((None, self.embed_dim))
        self.built = True

    def call(self, image):
        rows, grid = _as_patches(image, self.patch_size)
        return tf.reshape(self.norm(self.projection(rows)), [-1, *grid, self.embed_dim])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *_patches(input_shape[1:-1], self.patch_size), self.embed_dim)


@keras.saving.register_keras_serializable("hetmorph")
class PatchMerging(KL.Layer):
    """Halve the resolution: the 2ᴺ voxels of a block become one, their normalised features reduced to 2C by a matrix.

    `[B, *S, C]` → `[B, *ceil(S / 2), 2C]`; odd sizes are padded with a zero.

    Reference:
        Liu et al., ICCV 2021, doi:10.1109/ICCV48922.2021.00986.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        gathered = 2 ** (len(input_shape) - 2) * channels
        self.norm = layer_norm(self, "norm")
        self.reduction = dense(2 * channels, self, "reduction", use_bias=False)
        self.norm.build((None, gathered))
        self.reduction.build((None, gathered))
        self.built = True

    def call(self, image):
        rows, grid = _as_patches(image, 2)
        return tf.reshape(self.reduction(self.norm(rows)), [-1, *grid, 2 * image.shape[-1]])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *_patches(input_shape[1:-1], 2), 2 * input_shape[-1])


def pad_to_windows(image: tf.Tensor, window: Sequence[int]) -> tf.Tensor:
    """Append zeros to `[B, *S, C]` until each size is a multiple of its window's."""
    after = [missing(size, width) for size, width in zip(spatial_shape(image), window, strict=True)]
    if all(isinstance(a, int) and a == 0 for a in after):
        return image
    return tf.pad(image, [[0, 0], *[[0, a] for a in after], [0, 0]])


def dense(units: int, owner: KL.Layer, name: str, **kwargs) -> KL.Dense:
    """Dense layer of another layer, initialised as by the authors: uniform in ±1/√inputs."""
    uniform = KI.VarianceScaling(1 / 3, "fan_in", "uniform")
    return KL.Dense(units, kernel_initializer=uniform, name=name, dtype=owner.dtype_policy, **kwargs)


def layer_norm(owner: KL.Layer, name: str) -> KL.LayerNormalization:
    """Layer normalisation of another layer."""
    return KL.LayerNormalization(epsilon=1e-5, name=name, dtype=owner.dtype_policy)


def _kept_apart(logits: tf.Tensor, regions: tf.Tensor) -> tf.Tensor:
    """Logits `[B·nW, heads, T, T]` of voxels in different regions `[nW, T]` of a window, lowered."""
    apart = tf.where(regions[:, :, None] == regions[:, None, :], 0.0, EXCLUDED)
    heads, voxels = logits.shape[1:3]
    by_sample = tf.reshape(logits, [-1, tf.shape(regions)[0], heads, voxels, voxels])
    return tf.reshape(by_sample + apart[:, None], [-1, heads, voxels, voxels])


def _as_patches(image: tf.Tensor, size: int) -> tuple[tf.Tensor, list]:
    """The voxels of each patch as a row, `[B·nP, sizeᴺ·C]`, and the grid of the patches."""
    window = [size] * (image.shape.rank - 2)
    padded = pad_to_windows(image, window)
    rows = tf.reshape(window_partition(padded, window), [-1, math.prod(window) * image.shape[-1]])
    return rows, [s // size for s in spatial_shape(padded)]


def _patches(grid: Sequence[int | None], size: int) -> list[int | None]:
    return [None if d is None else -(-d // size) for d in grid]
