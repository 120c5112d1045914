"""Images of random contrast from label maps, to train networks without images."""

import keras
import numpy as np
import tensorflow as tf

from hetmorph.configured import plain
from hetmorph.ops import fields
from hetmorph.ops.warp import warp
from hetmorph.voxelmorph.original import ne


@keras.saving.register_keras_serializable("hetmorph")
class LabelsToImage(keras.layers.Layer):
    """Deform a label map at random and paint it: neurite's `labels_to_image` as one layer that can be saved.

    Each label gets a random mean and standard deviation; the image is blurred, multiplied by a smooth bias field,
    normalised to [0, 1] and exponentiated at random. New draws at every call, in training and at inference.

    Input `[B, *in_shape, 1]`; output the list `[image, labels]`, then velocity and displacement if asked for. Labels
    are one-hot float32, or the label values as int32.

    Args:
        in_shape, in_label_list, …: as `neurite.models.labels_to_image`, whose defaults they have.
        seeds: dictionary of integers per stage ("warp", "mean", "std", "noise", "background", "blur", "bias",
            "gamma", "dc_offset") that repeat a stage's draws from program start to program start.

    Reference:
        Hoffmann et al., IEEE TMI 2022, doi:10.1109/TMI.2021.3116879.
    """

    def __init__(
        self,
        in_shape,
        in_label_list,
        out_label_list=None,
        out_shape=None,
        num_chan=1,
        mean_min=None,
        mean_max=None,
        std_min=None,
        std_max=None,
        zero_background=0.2,
        warp_res=(16,),
        warp_std=0.5,
        warp_modulate=True,
        bias_res=40,
        bias_std=0.3,
        bias_modulate=True,
        blur_std=1,
        blur_modulate=True,
        normalize=True,
        gamma_std=0.25,
        dc_offset=0,
        one_hot=True,
        seeds=None,
        return_vel=False,
        return_def=False,
        **kwargs,
    ):
        arguments = {k: v for k, v in locals().items() if k not in ("self", "kwargs", "__class__")}
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.arguments = {key: plain(value) for key, value in arguments.items()}
        self.shape = tuple(int(n) for n in (in_shape if out_shape is None else out_shape))
        self.in_labels = np.unique(in_label_list).astype(int)
        self.ranges = _intensity_ranges(len(self.in_labels), mean_min, mean_max, std_min, std_max)
        if (return_vel or return_def) and not warp_std > 0:
            raise ValueError(f"return_vel and return_def need a deformation, got warp_std={warp_std}")
        self.out_lut, self.nb_out = _output_table(self.in_labels, out_label_list, one_hot)

    def get_config(self):
        return {**super().get_config(), **self.arguments}

    def compute_output_shape(self, input_shape):
        grid = (input_shape[0], *self.shape)
        half = (input_shape[0], *(n // 2 for n in self.shape), len(self.shape))
        shapes = [(*grid, self._get("num_chan")), (*grid, self.nb_out)]
        extra = [(half, "return_vel"), ((*grid, len(self.shape)), "return_def")]
        return [*shapes, *(shape for shape, flag in extra if self._get(flag))]

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape(inputs.shape)
        dtypes = ["float32", "float32" if self._get("one_hot") else "int32", "float32", "float32"]
        return [keras.KerasTensor(s, dtype=d) for s, d in zip(shapes, dtypes, strict=False)]

    def call(self, labels):
        indices = tf.gather(self._input_table(), tf.cast(labels, tf.int32))
        indices, velocity, displacement = self._deform(indices)
        image = self._intensities(indices)
        image = self._blur(image)
        image = self._bias(image)
        image = self._contrast(image)
        labels = tf.gather(tf.constant(self.out_lut, tf.int32), indices)
        if self._get("one_hot"):
            labels = tf.one_hot(labels[..., 0], self.nb_out)
        extra = [(velocity, "return_vel"), (displacement, "return_def")]
        return [image, labels, *(value for value, flag in extra if self._get(flag))]

    def _get(self, name: str):
        return self.arguments[name]

    def _seed(self, stage: str):
        return (self._get("seeds") or {}).get(stage)

    def _input_table(self) -> tf.Tensor:
        table = np.zeros(self.in_labels.max() + 1, np.int32)
        table[self.in_labels] = np.arange(len(self.in_labels))
        return tf.constant(table)

    def _deform(self, indices):
        """Label indices on the output grid, and the velocity and displacement that took them there."""
        if not self._get("warp_std") > 0:
            return _fit(indices, self.shape), None, None
        half = (*(n // 2 for n in self.shape), len(self.shape))
        # The velocity lives on a grid of half the resolution, and so do its scales.
        velocity = self._smooth_noise(indices, half, np.asarray(self._get("warp_res")) / 2, "warp")
        displacement = fields.rescale(fields.integrate(velocity, 5), 2)
        displacement = _fit(displacement, self.shape, edge=True)
        moved = warp(_fit(indices, self.shape), displacement, "nearest", fill_value=0)
        return moved, velocity, displacement

    def _smooth_noise(self, like, shape, scales, stage: str):
        """One sum of Gaussian noises of several resolutions per sample, `[B, *shape]`."""
        std = self._get(f"{stage}_std")
        smallest = 0 if self._get(f"{stage}_modulate") else std

        def draw(_):
            return _perlin(shape, np.atleast_1d(scales), smallest, std, self._seed(stage))

        return tf.map_fn(draw, like, fn_output_signature=tf.TensorSpec(shape, tf.float32))

    def _intensities(self, indices):
        batch, channels, count = tf.shape(indices)[0], self._get("num_chan"), len(self.in_labels)
        mean_low, mean_high, std_low, std_high = self.ranges
        shape = (batch, channels, count)
        mean = mean_low + (mean_high - mean_low) * tf.random.uniform(shape, seed=self._seed("mean"))
        std = std_low + (std_high - std_low) * tf.random.uniform(shape, seed=self._seed("std"))
        # [B, channels, labels] and [B, *S, 1] to [B, *S, channels]
        mean, std = (_paint(tf.transpose(x, [0, 2, 1]), indices) for x in (mean, std))
        # One noise for all channels, as in neurite.
        image = tf.random.normal(tf.shape(indices), seed=self._seed("noise")) * std + mean
        if self._get("zero_background") > 0:
            shape = (batch, *[1] * len(self.shape), channels)
            flip = tf.random.uniform(shape, seed=self._seed("background")) < self._get("zero_background")
            image *= 1.0 - tf.cast((indices == 0) & flip, tf.float32)
        return image

    def _blur(self, image):
        std = self._get("blur_std")
        if not std > 0:
            return image
        half = int(round(3 * std))
        offset = tf.range(-half, half + 1, dtype=tf.float32)
        random = np.random.default_rng(self._seed("blur"))
        kernels = []
        for _ in self.shape:
            width = std
            if self._get("blur_modulate"):
                width = tf.random.uniform([], 1e-6, std, seed=_op_seed(random, self._seed("blur")))
            kernel = tf.exp(-0.5 * tf.square(offset / width))
            kernels.append(kernel / tf.reduce_sum(kernel))
        return ne.utils.separable_conv(image, kernels, batched=True)

    def _bias(self, image):
        if not self._get("bias_std") > 0:
            return image
        return image * tf.exp(self._smooth_noise(image, (*self.shape, 1), self._get("bias_res"), "bias"))

    def _contrast(self, image):
        image = tf.clip_by_value(image, 0, 255)
        axes = list(range(1, len(image.shape)))
        one = (tf.shape(image)[0], *[1] * len(self.shape), self._get("num_chan"))
        if self._get("normalize"):
            low, high = (f(image, axes, keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
            image = tf.math.divide_no_nan(image - low, high - low)
        if self._get("gamma_std") > 0:
            gamma = tf.random.normal(one, stddev=self._get("gamma_std"), seed=self._seed("gamma"))
            image = tf.pow(image, tf.exp(gamma))
        if self._get("dc_offset") > 0:
            image += tf.random.uniform(one, maxval=self._get("dc_offset"), seed=self._seed("dc_offset"))
        return image


def _intensity_ranges(count: int, mean_min, mean_max, std_min, std_max) -> list[tf.Tensor]:
    """Bounds of mean and standard deviation of each label's intensity; the first label is the background."""
    given = (mean_min, mean_max, std_min, std_max)
    default = ([0] + [25] * (count - 1), [225] * count, [0] + [5] * (count - 1), [25] * count)
    return [np.asarray(d if g is None else g, np.float32) for g, d in zip(given, default, strict=True)]


def _output_table(in_labels, out_label_list, one_hot: bool) -> tuple[np.ndarray, int]:
    """Output label, or its channel (−1 for none), of each input index; and the number of channels."""
    if out_label_list is None:
        out_label_list = in_labels
    if not isinstance(out_label_list, dict):
        out_label_list = {label: label for label in np.asarray(out_label_list).tolist()}
    out_label_list = {int(k): int(v) for k, v in out_label_list.items()}
    table = np.array([out_label_list.get(int(label), 0) for label in in_labels])
    if not one_hot:
        return table, 1
    channels = sorted(set(out_label_list.values()))
    return np.array([channels.index(v) if v in channels else -1 for v in table]), len(channels)


def _paint(values, indices):
    """Values `[B, labels, channels]` at indices `[B, *S, 1]`."""
    return tf.gather(values, indices[..., 0], axis=1, batch_dims=1)


def _fit(tensor, shape, edge: bool = False):
    """Crop or pad the spatial axes of `[B, *S, C]` symmetrically to `shape`; with `edge`, repeat the border."""
    have = tensor.shape[1:-1]
    if tuple(have) == tuple(shape):
        return tensor
    start = [max(0, (h - w) // 2) for h, w in zip(have, shape, strict=True)]
    window = tuple(slice(s, s + min(h, w)) for s, h, w in zip(start, have, shape, strict=True))
    tensor = tensor[(slice(None), *window)]
    missing = [max(0, w - h) for h, w in zip(have, shape, strict=True)]
    padding = [[0, 0], *[[0, m] if edge else [m // 2, m - m // 2] for m in missing], [0, 0]]
    return tf.pad(tensor, padding, mode="SYMMETRIC" if edge else "CONSTANT")


def _perlin(shape, scales, min_std, max_std, seed):
    """Sum of Gaussian noises drawn at 1/scale of the resolution and upsampled linearly, `shape`."""
    random = np.random.default_rng(seed)
    total = tf.zeros(shape)
    for scale in scales:
        coarse = [int(np.ceil(n / scale)) for n in shape[:-1]]
        std = tf.random.uniform([], min_std, max_std, seed=_op_seed(random, seed)) if max_std > min_std else max_std
        noise = tf.random.normal((*coarse, shape[-1]), stddev=std, seed=_op_seed(random, seed))
        if scale != 1:
            noise = ne.utils.resize(noise, [n / c for n, c in zip(shape[:-1], coarse, strict=True)])
        total += noise
    return total


def _op_seed(random: np.random.Generator, seed: int | None) -> int | None:
    """Seed of the next operation of a stage; a stage without a seed follows the global one."""
    return None if seed is None else int(random.integers(np.iinfo(np.int32).max))
