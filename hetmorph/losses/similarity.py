"""How unlike two images are: mean squares, local and global correlation, a robust difference, mutual information.

`.loss(y_true, y_pred)` goes into `compile` and gives one number per sample, so that sample weights, uneven batches and
several replicas are right. `voxelwise` is the map `[B, *S, C]` behind it, for objectives that weight voxels.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, as_real, per_sample, positive, require_rank
from hetmorph.ops.smoothing import beyond, gaussian
from hetmorph.ops.windows import box_sum

WIDEST_SMOOTHING = 32  # of kernels several hundred voxels wide TensorFlow's convolution aborts the process
_LNCC_CUT = 2.0  # standard deviations
_CONSTANT = 1e-7  # variance of an image, in squares of intensity
_NOTHING = 1e-6  # voxels


@keras.saving.register_keras_serializable("hetmorph")
class MSE(SerializableLoss):
    """Mean squared intensity difference over a noise variance: mean((y − ŷ)²) / σ².

    Args:
        image_sigma: noise standard deviation σ of the images, in intensity units.
        smoothing: standard deviation, in voxels, of a Gaussian that smooths y − ŷ before it is squared. For noisy
            images: interpolation averages the noise of a moved image, most of all half-way between voxels, and mean
            squares reward a displacement for that instead of for the anatomy. The smoothed noise is hardly averaged
            any further.

    Example:
        >>> model.compile("adam", loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.01])
    """

    def __init__(self, image_sigma: float = 1.0, smoothing: float = 0.0):
        self.image_sigma = positive(image_sigma, "image_sigma")
        if not 0 <= smoothing <= WIDEST_SMOOTHING:
            raise ValueError(f"smoothing must be 0 to {WIDEST_SMOOTHING} voxels, got {smoothing!r}")
        self.smoothing = float(smoothing)

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """(y − ŷ)² / σ² of images, their difference smoothed.

        Args:
            y_true, y_pred: `[B, *S, C]`.
            weight: `[B, *S, 1]`, not negative: what is smoothed are the voxels that count alone.
        """
        y_true, y_pred = as_real(y_true, y_pred)
        residual = y_true - y_pred
        if weight is None or not self.smoothing:
            smoothed = gaussian(residual, self.smoothing)
        else:
            sums, share, _ = _gaussian_means(residual, tf.cast(weight, residual.dtype), self.smoothing, 3.0)
            smoothed = tf.math.divide_no_nan(sums, share)
        return tf.square(smoothed) / self.image_sigma**2


@keras.saving.register_keras_serializable("hetmorph")
class NCC(SerializableLoss):
    """Local squared normalised cross-correlation, negated.

    cc = cov(y, ŷ)² / (var(y)·var(ŷ)) in a window around each voxel; numerator and variances are kept above `eps`.

    Args:
        win: window side in voxels, or one per axis; 9 by default.
        eps: lower bound of covariance and variances.
        signed: correlation itself instead of its square.

    Reference:
        Avants et al., Medical Image Analysis 2008, doi:10.1016/j.media.2007.06.004.
    """

    def __init__(self, win=None, eps: float = 1e-5, signed: bool = False):
        if win is not None and not all(int(side) == side and side >= 1 for side in np.ravel(win)):
            raise ValueError(f"the window of NCC must have whole sides of at least one voxel, got {win!r}")
        self.win, self.eps, self.signed = win, eps, signed

    def ncc(self, Ii, Ji, weight=None) -> tf.Tensor:
        """Local correlation of two images, `[B, *S, 1]`; a window that leaves them meets zeros there.

        Args:
            Ii, Ji: `[B, *S, C]`.
            weight: `[B, *S, 1]`, not negative: windows of voxels that count alone.
        """
        Ii, Ji = as_real(Ii, Ji)
        cross, var_i, var_j = _local_covariances(Ii, Ji, self._window(require_rank(Ji, "NCC")), self.eps, weight)
        if self.signed:
            return tf.clip_by_value(cross / tf.sqrt(var_i * var_j + self.eps), -1.0, 1.0)
        return tf.minimum((cross / var_i) * (cross / var_j), 1.0)

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """−cc, `[B, *S, 1]`; arguments as of `ncc`."""
        return -self.ncc(y_true, y_pred, weight)

    def _loss(self, y_true, y_pred, reduce="mean"):
        return -per_sample(self.ncc(y_true, y_pred), reduce)

    def _window(self, ndims: int) -> list[int]:
        if isinstance(self.win, (list, tuple, np.ndarray)):
            if len(self.win) != ndims:
                raise ValueError(f"NCC window {list(self.win)} has {len(self.win)} axes, the images have {ndims}")
            return [int(w) for w in self.win]
        return [9 if self.win is None else int(self.win)] * ndims


def _local_covariances(a: tf.Tensor, b: tf.Tensor, window: list[int], eps: float, weight=None) -> list[tf.Tensor]:
    """Covariance and variances of two images in a window round each voxel, summed, `[B, *S, 1]`, at least `eps`.

    Squares of intensities far from zero, such as CT + 1024, leave nothing of a variance in float32. Those of
    differences from each image's mean do, and what the mean adds where a window leaves the image is known.
    """
    channels, ones = b.shape[-1], tf.ones_like(b[:1, ..., :1])
    mean_a, mean_b = (_mean(image, weight) for image in (a, b))
    a, b = a - mean_a, b - mean_b
    parts = [tf.reduce_sum(part, -1, keepdims=True) for part in (a, b, a * b, a * a, b * b)]
    inside, size = box_sum(ones, window) * channels, math.prod(window) * channels
    if weight is not None:
        weight = tf.cast(weight, b.dtype)
        parts = [weight * part for part in parts]
        size = size - inside
        inside = box_sum(weight, window) * channels
        size += inside
    # One by one: of several channels at once the sums, and their gradients, take far longer.
    sum_a, sum_b, ab, aa, bb = (box_sum(part, window) for part in parts)
    # Where the weights are 0 all over a window, there is nothing to divide by.
    outside = 1 - inside / size if weight is None else 1 - tf.math.divide_no_nan(inside, size)
    size = size if weight is None else tf.maximum(size, _NOTHING)

    def covariance(product, sums, means):
        """Σ(x − x̄)(y − ȳ) over the window, x̄ and ȳ the means with the zeros outside."""
        (x, y), (mean_x, mean_y) = sums, means
        return product - x * y / size + outside * (mean_x * y + mean_y * x + inside * mean_x * mean_y)

    def variance(square, total, mean):
        # Below the rounding of the sum of squares there is no variance to be seen.
        return tf.maximum(covariance(square, (total, total), (mean, mean)), tf.maximum(eps, 1e-7 * square))

    cross = tf.maximum(covariance(ab, (sum_a, sum_b), (mean_a, mean_b)), eps)
    return [cross, variance(aa, sum_a, mean_a), variance(bb, sum_b, mean_b)]


@keras.saving.register_keras_serializable("hetmorph")
class LNCC(SerializableLoss):
    """Local normalised cross-correlation in a Gaussian window: 1 − mean(cc), 0 to 2.

    cc = cov(y, ŷ) / √((var y + ε)·(var ŷ + ε)) with moments weighted by a Gaussian cut off at two standard deviations,
    of which what leaves the image meets zeros. Contrasts of opposite sign do not match, as they do for `SquaredLNCC`.

    Args:
        sigma: standard deviation of the window, voxels.
        eps: ε, in squares of intensity.

    Reference:
        Tian et al., GradICON: approximate diffeomorphisms via gradient inverse consistency, CVPR 2023,
        arXiv:2206.05897 (σ = 5).
    """

    def __init__(self, sigma: float = 5.0, eps: float = 1e-5):
        self.sigma, self.eps = positive(sigma, "sigma"), positive(eps, "eps")
        if sigma > WIDEST_SMOOTHING:
            raise ValueError(f"sigma must be at most {WIDEST_SMOOTHING} voxels, got {sigma!r}")

    def correlation(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """cc of images, each channel by itself, `[B, *S, C]`.

        Args:
            y_true, y_pred: `[B, *S, C]`.
            weight: `[B, *S, 1]`, not negative: windows of voxels that count alone.
        """
        a, b = as_real(y_true, y_pred)
        require_rank(b, type(self).__name__)
        cross, var_a, var_b = _gaussian_covariances(a, b, self.sigma, weight)
        return cross * tf.math.rsqrt((tf.nn.relu(var_a) + self.eps) * (tf.nn.relu(var_b) + self.eps))

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """1 − cc, `[B, *S, C]`; arguments as of `correlation`."""
        return 1.0 - self.correlation(y_true, y_pred, weight)


@keras.saving.register_keras_serializable("hetmorph")
class SquaredLNCC(LNCC):
    """Local correlation squared, 1 − mean(cc²): contrasts may be of opposite sign, as between modalities.

    Arguments as `LNCC`.

    Reference:
        Demir et al., multiGradICON: a foundation model for multimodal medical image registration, WBIR 2024,
        arXiv:2408.00221.
    """

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """1 − cc², `[B, *S, C]`; arguments as of `correlation`."""
        return 1.0 - tf.square(self.correlation(y_true, y_pred, weight))


def _gaussian_covariances(a: tf.Tensor, b: tf.Tensor, sigma: float, weight=None) -> list[tf.Tensor]:
    """Covariance and variances of two images in a Gaussian window, `[B, *S, C]`, of differences from each mean.

    As in `_local_covariances`, what the means add where the window leaves the image is known.
    """
    mean_a, mean_b = (_mean(x, weight, _spatial(x)) for x in (a, b))
    a, b = a - mean_a, b - mean_b
    products = tf.concat([a, b, a * b, a * a, b * b], axis=0)
    if weight is None:
        smoothed, outside = gaussian(products, sigma, _LNCC_CUT), beyond(a, sigma, _LNCC_CUT)
    else:
        weight = tf.cast(weight, b.dtype)
        sums, share, outside = _gaussian_means(
            products, tf.tile(weight, [5] + [1] * (b.shape.rank - 1)), sigma, _LNCC_CUT
        )
        smoothed = tf.math.divide_no_nan(sums, share)
        share = tf.split(share, 5)[0]
        outside = tf.math.divide_no_nan(outside, share)
    of_a, of_b, ab, aa, bb = tf.split(smoothed, 5)

    def covariance(product, x, y, mean_x, mean_y):
        return product - x * y + outside * (mean_x * y + mean_y * x + (1 - outside) * mean_x * mean_y)

    return [
        covariance(ab, of_a, of_b, mean_a, mean_b),
        covariance(aa, of_a, of_a, mean_a, mean_a),
        covariance(bb, of_b, of_b, mean_b, mean_b),
    ]


def _gaussian_means(values: tf.Tensor, weight: tf.Tensor, sigma: float, cut: float) -> list[tf.Tensor]:
    """Weighted sums in a Gaussian window, the share of it that counts, zeros outside the image included, and theirs."""
    outside = beyond(values, sigma, cut)
    return [gaussian(weight * values, sigma, cut), gaussian(weight, sigma, cut) + outside, outside]


def _mean(image: tf.Tensor, weight, axes=None) -> tf.Tensor:
    """Mean of each sample over the axes, all by default, of what counts; without gradient, broadcastable."""
    axes = list(range(1, image.shape.rank)) if axes is None else axes
    if weight is None:
        return tf.stop_gradient(tf.reduce_mean(image, axes, keepdims=True))
    weight = tf.cast(weight, image.dtype) * tf.ones_like(image)
    sums = (tf.reduce_sum(values, axes, keepdims=True) for values in (weight * image, weight))
    return tf.stop_gradient(tf.math.divide_no_nan(*sums))


@keras.saving.register_keras_serializable("hetmorph")
class GlobalNCC(SerializableLoss):
    """Normalised cross-correlation of whole images, 1 − cov(y, ŷ) / (σ_y·σ_ŷ), each channel by itself; 0 to 2.

    A constant image correlates with none: 1.
    """

    def _loss(self, y_true, y_pred):
        return self._of(y_true, y_pred, None)

    def within(self, y_true, y_pred, weight) -> tf.Tensor:
        """The same of the voxels that count.

        Args:
            y_true, y_pred: images `[B, *S, C]`.
            weight: `[B, *S, 1]`, not negative.
        """
        y_true, weight, y_pred = as_real(y_true, weight, y_pred)
        return self._of(y_true, y_pred, weight * tf.ones_like(y_pred))

    def _of(self, y_true, y_pred, weight):
        require_rank(y_pred, "GlobalNCC")

        def mean(x, **how):
            if weight is None:
                return tf.reduce_mean(x, _spatial(x), **how)
            return tf.math.divide_no_nan(*(tf.reduce_sum(w, _spatial(x), **how) for w in (weight * x, weight)))

        a, b = (x - mean(x, keepdims=True) for x in (y_true, y_pred))
        cross, var_a, var_b = (mean(x) for x in (a * b, a * a, b * b))
        # Below it there is only the rounding of a constant image.
        return 1.0 - tf.reduce_mean(cross * tf.math.rsqrt((var_a + _CONSTANT) * (var_b + _CONSTANT)), axis=-1)


def _spatial(image: tf.Tensor) -> list[int]:
    return list(range(1, image.shape.rank - 1))


@keras.saving.register_keras_serializable("hetmorph")
class TukeyBiweight(SerializableLoss):
    """Squared difference that saturates: ρ(e) = c²/2·(1 − (1 − e²/c²)³) for |e| ≤ c, and c²/2 beyond.

    Args:
        c: difference above which a voxel counts as an outlier, in intensity units.

    Reference:
        Reuter et al., NeuroImage 2010, doi:10.1016/j.neuroimage.2010.07.020.
    """

    def __init__(self, c: float = 0.5):
        self.c = positive(c, "c")

    def voxelwise(self, y_true, y_pred) -> tf.Tensor:
        """ρ(y − ŷ) of images `[B, *S, C]`."""
        y_true, y_pred = as_real(y_true, y_pred)
        square = self.c**2
        ratio = tf.minimum(tf.square(y_true - y_pred) / square, 1.0)
        return square / 2 * (1.0 - (1.0 - ratio) ** 3)


@keras.saving.register_keras_serializable("hetmorph")
class MutualInformation(SerializableLoss):
    """Negative mutual information of two one-channel images, from soft histograms, per sample.

    Args:
        bin_centers: centres of the intensity bins; by default `nb_bins` from minimum to maximum of each image.
        nb_bins: number of bins, 16 by default; not together with `bin_centers`.
        soft_bin_alpha: width of a soft bin, exp(−α·(x − centre)²).
        min_clip, max_clip: intensities are clipped to this range.

    Reference:
        Hoffmann et al., IEEE TMI 2022, doi:10.1109/TMI.2021.3116879.
    """

    def __init__(self, bin_centers=None, nb_bins=None, soft_bin_alpha=None, min_clip=None, max_clip=None):
        if bin_centers is not None and nb_bins is not None:
            raise ValueError(f"give bin_centers or nb_bins, got both: {bin_centers} and {nb_bins}")
        if nb_bins is not None and nb_bins < 2:
            raise ValueError(f"mutual information needs at least 2 bins, got {nb_bins!r}")
        self.bin_centers = None if bin_centers is None else [float(c) for c in bin_centers]
        self.nb_bins, self.min_clip, self.max_clip = nb_bins, min_clip, max_clip
        self.soft_bin_alpha = None if soft_bin_alpha is None else float(soft_bin_alpha)

    def _loss(self, y_true, y_pred):
        return self._of(y_true, y_pred, None)

    def within(self, y_true, y_pred, weight) -> tf.Tensor:
        """The same of the voxels that count.

        Args:
            y_true, y_pred: images `[B, *S, 1]`.
            weight: `[B, *S, 1]`, not negative; where it is 0, a voxel enters neither histograms nor bins.
        """
        y_true, weight, y_pred = as_real(y_true, weight, y_pred)
        return self._of(y_true, y_pred, tf.reshape(weight, [tf.shape(weight)[0], -1, 1]))

    def _of(self, y_true, y_pred, weight):
        if y_true.shape[-1] not in (1, None) or y_pred.shape[-1] not in (1, None):
            raise ValueError(f"mutual information needs one-channel images, got {y_true.shape} and {y_pred.shape}")
        tiny = keras.backend.epsilon()
        a, b = self._memberships(y_true, weight), self._memberships(y_pred, weight)
        counted = [m if weight is None else weight * m for m in (a, b)]
        joint = _distribution(tf.matmul(counted[0], b, transpose_a=True), tiny)
        of_a, of_b = (_distribution(tf.reduce_sum(m, axis=1, keepdims=True), tiny) for m in counted)
        independent = tf.matmul(of_a, of_b, transpose_a=True)
        return -tf.reduce_sum(joint * tf.math.log(joint / (independent + tiny) + tiny), axis=[1, 2])

    def _memberships(self, image, weight) -> tf.Tensor:
        """How much each voxel belongs to each bin, `[B, voxels, bins]`; `weight` `[B, voxels, 1]` or None."""
        flat = tf.reshape(image, [tf.shape(image)[0], -1, 1])
        if self.bin_centers is not None:
            centers = tf.constant(self.bin_centers, flat.dtype)[None, None]
        else:
            low, high = (reduce(flat, axis=1, keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
            if weight is not None:
                highest, lowest = tf.where(weight > 0, flat, high), tf.where(weight > 0, flat, low)
                low, high = tf.reduce_min(highest, 1, keepdims=True), tf.reduce_max(lowest, 1, keepdims=True)
            centers = low + (high - low) * tf.linspace(tf.zeros([], flat.dtype), 1.0, self.nb_bins or 16)
        low = -np.inf if self.min_clip is None else self.min_clip
        high = np.inf if self.max_clip is None else self.max_clip
        return tf.exp(-self._alpha() * tf.square(tf.clip_by_value(flat, low, high) - centers))

    def _alpha(self) -> float:
        if self.soft_bin_alpha is not None:
            return self.soft_bin_alpha
        between = 1 / ((self.nb_bins or 16) - 1) if self.bin_centers is None else np.mean(np.diff(self.bin_centers))
        return float(1 / (2 * (0.5 * between) ** 2))


def _distribution(counts: tf.Tensor, tiny: float) -> tf.Tensor:
    """Counts `[B, K, L]` of each sample, divided by their sum."""
    return counts / (tf.reduce_sum(counts, axis=[1, 2], keepdims=True) + tiny)
