"""VoxelMorph's losses, serialisable, in half precision and for sizes unknown until run time.

Each is a subclass of the original and gives its numbers. `.loss(y_true, y_pred)` goes into `compile`; `voxelwise`
is the map `[B, *S, C]` that the loss reduces, for objectives that weight voxels.
"""

import keras
import numpy as np
import tensorflow as tf

from hetmorph.compat import ne, vxm
from hetmorph.losses.serializable import SerializableLoss, as_real, require_rank
from hetmorph.ops.smoothing import gaussian

WIDEST_SMOOTHING = 32  # of kernels several hundred voxels wide TensorFlow's convolution aborts the process


def _reduce(values: tf.Tensor, reduce: str | None, axis: list[int] | None, what: str) -> tf.Tensor:
    if reduce is None:
        return values
    functions = {"mean": tf.reduce_mean, "max": tf.reduce_max}
    if reduce not in functions:
        raise ValueError(f"{what} can be reduced by 'mean', 'max' or None, got {reduce!r}")
    return functions[reduce](values, axis=axis)


def _positive(value: float, name: str) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value


@keras.saving.register_keras_serializable("hetmorph")
class MSE(SerializableLoss, vxm.losses.MSE):
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
        super().__init__(image_sigma=_positive(image_sigma, "image_sigma"))
        if not 0 <= smoothing <= WIDEST_SMOOTHING:
            raise ValueError(f"smoothing must be 0 to {WIDEST_SMOOTHING} voxels, got {smoothing!r}")
        self.smoothing = float(smoothing)

    def voxelwise(self, y_true, y_pred) -> tf.Tensor:
        """(y − ŷ)² / σ² of images `[B, *S, C]`, their difference smoothed."""
        y_true, y_pred = as_real(y_true, y_pred)
        return tf.square(gaussian(y_true - y_pred, self.smoothing)) / self.image_sigma**2

    def _loss(self, y_true, y_pred, reduce="mean"):
        return _reduce(self.voxelwise(y_true, y_pred), reduce, None, "MSE")

    def get_config(self):
        return {"image_sigma": self.image_sigma, "smoothing": self.smoothing}


@keras.saving.register_keras_serializable("hetmorph")
class NCC(SerializableLoss, vxm.losses.NCC):
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
        super().__init__(win=win, eps=eps, signed=signed)

    def ncc(self, Ii, Ji) -> tf.Tensor:
        """Local correlation `[B, *S, 1]` of two images `[B, *S, C]`."""
        Ii, Ji = as_real(Ii, Ji)
        # The original writes the window of the first image it sees into the object; a fresh one per call does not.
        single = vxm.losses.NCC(self._window(require_rank(Ji, "NCC")), self.eps, self.signed)
        return single.ncc(Ii, Ji)

    def voxelwise(self, y_true, y_pred) -> tf.Tensor:
        """−cc, `[B, *S, 1]`."""
        return -self.ncc(y_true, y_pred)

    def _loss(self, y_true, y_pred, reduce="mean"):
        axes = list(range(1, len(y_pred.shape)))
        return -_reduce(self.ncc(y_true, y_pred), reduce, axes, "NCC")

    def _window(self, ndims: int) -> list[int]:
        if isinstance(self.win, (list, tuple, np.ndarray)):
            if len(self.win) != ndims:
                raise ValueError(f"NCC window {list(self.win)} has {len(self.win)} axes, the images have {ndims}")
            return [int(w) for w in self.win]
        return [9 if self.win is None else int(self.win)] * ndims

    def get_config(self):
        win = [int(w) for w in self.win] if isinstance(self.win, (list, tuple, np.ndarray)) else self.win
        return {"win": win, "eps": self.eps, "signed": self.signed}


@keras.saving.register_keras_serializable("hetmorph")
class TukeyBiweight(SerializableLoss, vxm.losses.TukeyBiweight):
    """Squared difference that saturates: ρ(e) = c²/2·(1 − (1 − e²/c²)³) for |e| ≤ c, and c²/2 beyond.

    Args:
        c: difference above which a voxel counts as an outlier, in intensity units.

    Reference:
        Reuter et al., NeuroImage 2010, doi:10.1016/j.neuroimage.2010.07.020.
    """

    def __init__(self, c: float = 0.5):
        super().__init__(c=_positive(c, "c"))
        self.c = c

    def voxelwise(self, y_true, y_pred) -> tf.Tensor:
        """ρ(y − ŷ) of images `[B, *S, C]`."""
        y_true, y_pred = as_real(y_true, y_pred)
        ratio = tf.minimum(tf.square(y_true - y_pred) / self.csq, 1.0)
        return self.csq / 2 * (1.0 - (1.0 - ratio) ** 3)

    def _loss(self, y_true, y_pred):
        return tf.reduce_mean(self.voxelwise(y_true, y_pred))

    def get_config(self):
        return {"c": self.c}


@keras.saving.register_keras_serializable("hetmorph")
class Dice(SerializableLoss, vxm.losses.Dice):
    """Negative soft Dice of probability maps `[B, *S, labels]`: −mean(2·Σy·ŷ / Σ(y + ŷ)).

    A label absent from both maps counts as 0, as in VoxelMorph.
    """

    def _loss(self, y_true, y_pred):
        require_rank(y_pred, "Dice")
        return vxm.losses.Dice.loss(self, y_true, y_pred)

    def get_config(self):
        return {}


@keras.saving.register_keras_serializable("hetmorph")
class Grad(SerializableLoss, vxm.losses.Grad):
    """Smoothness of a field: mean absolute or squared forward difference, averaged over the axes, per sample.

    An axis of a single voxel has no differences and counts as smooth.

    Args:
        penalty: "l1" (absolute) or "l2" (squared).
        loss_mult: factor on the loss, e.g. the downsampling factor of the field.
        vox_weight: weight of each voxel's difference, broadcastable to the field `[B, *S, N]`.
    """

    def __init__(self, penalty: str = "l1", loss_mult: float | None = None, vox_weight=None):
        if penalty not in ("l1", "l2"):
            raise ValueError(f"penalty must be 'l1' or 'l2', got {penalty!r}")
        if vox_weight is not None and not tf.is_tensor(vox_weight):
            vox_weight = np.asarray(vox_weight, np.float32)
        super().__init__(penalty=penalty, loss_mult=loss_mult, vox_weight=vox_weight)

    def _loss(self, _, y_pred):
        require_rank(y_pred, "Grad")
        size = tf.abs if self.penalty == "l1" else tf.square
        per_axis = [self._sample_mean(size(difference)) for difference in self._diffs(y_pred)]
        smoothness = tf.add_n(per_axis) / len(per_axis)
        return smoothness if self.loss_mult is None else smoothness * self.loss_mult

    @staticmethod
    def _sample_mean(values: tf.Tensor) -> tf.Tensor:
        count = tf.cast(tf.reduce_prod(tf.shape(values)[1:]), values.dtype)
        total = tf.reduce_sum(values, axis=list(range(1, len(values.shape))))
        return total / tf.maximum(count, 1.0)

    def get_config(self):
        weight = None if self.vox_weight is None else np.asarray(self.vox_weight).tolist()
        return {"penalty": self.penalty, "loss_mult": self.loss_mult, "vox_weight": weight}


@keras.saving.register_keras_serializable("hetmorph")
class KL(SerializableLoss, vxm.losses.KL):
    """Kullback–Leibler divergence of a predicted velocity distribution from a smooth prior.

    ½·N·(mean(λ·D·exp(log σ²) − log σ²) + λ·½·mean‖∇μ‖²), D the number of grid neighbours of a voxel.
    The field `[B, *S, 2N]` holds μ, then log σ².

    Args:
        prior_lambda: precision λ of the prior.
        flow_vol_shape: spatial size of the field; taken from the field itself where None.

    Reference:
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """

    def __init__(self, prior_lambda: float, flow_vol_shape=None):
        super().__init__(prior_lambda=_positive(prior_lambda, "prior_lambda"), flow_vol_shape=flow_vol_shape)

    def _loss(self, _, y_pred):
        ndims = require_rank(y_pred, "KL")
        if y_pred.shape[-1] != 2 * ndims:
            raise ValueError(f"KL needs a field with {2 * ndims} channels (mean, log σ²), got shape {y_pred.shape}")
        self._check_size(y_pred.shape[1:-1])
        mean, log_variance = y_pred[..., :ndims], y_pred[..., ndims:]
        # The original computes D once and keeps the tensor, which belongs to the graph of that first call.
        degree = neighbours(tf.shape(y_pred)[1:-1], ndims, y_pred.dtype)
        spread = tf.reduce_mean(self.prior_lambda * degree * tf.exp(log_variance) - log_variance)
        return 0.5 * ndims * (spread + self.prior_lambda * self.prec_loss(mean))

    def _check_size(self, shape: tf.TensorShape) -> None:
        if self.flow_vol_shape is not None and not shape.is_compatible_with(tuple(self.flow_vol_shape)):
            raise ValueError(f"KL was made for fields of size {tuple(self.flow_vol_shape)}, got {tuple(shape)}")

    def get_config(self):
        shape = self.flow_vol_shape
        shape = None if shape is None else [None if d is None else int(d) for d in shape]
        return {"prior_lambda": self.prior_lambda, "flow_vol_shape": shape}


def neighbours(shape: tf.Tensor, ndims: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Number of grid neighbours of each voxel of a grid, `[1, *shape, 1]`."""
    count = tf.zeros(tf.concat([[1], shape, [1]], axis=0), dtype)
    for axis in range(ndims):
        position = tf.range(shape[axis])
        along = tf.cast(position > 0, dtype) + tf.cast(position < shape[axis] - 1, dtype)
        count += tf.reshape(along, [-1 if i == axis + 1 else 1 for i in range(ndims + 2)])
    return count


@keras.saving.register_keras_serializable("hetmorph")
class MutualInformation(SerializableLoss, vxm.losses.MutualInformation):
    """Negative mutual information of two one-channel images, from soft histograms, per sample.

    Args:
        bin_centers: centres of the intensity bins; by default `nb_bins` from minimum to maximum of the batch.
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
        self._config = {
            "bin_centers": None if bin_centers is None else [float(c) for c in bin_centers],
            "nb_bins": nb_bins,
            "soft_bin_alpha": soft_bin_alpha if soft_bin_alpha is None else float(soft_bin_alpha),
            "min_clip": min_clip,
            "max_clip": max_clip,
        }
        if soft_bin_alpha is None:  # here, because the original prints the value it finds
            soft_bin_alpha = self._default_alpha(bin_centers, nb_bins or 16)
        centers = None if bin_centers is None else np.asarray(bin_centers, np.float32)
        super().__init__(centers, nb_bins, soft_bin_alpha, min_clip, max_clip)

    @staticmethod
    def _default_alpha(bin_centers, nb_bins: int) -> float:
        distance = 1 / (nb_bins - 1) if bin_centers is None else np.mean(np.diff(np.asarray(bin_centers, float)))
        return float(1 / (2 * (0.5 * distance) ** 2))

    def _soft_sim_map(self, x):
        # The original passes nb_bins beside bin_centers, which its own quantiser refuses.
        return ne.utils.soft_quantize(
            x,
            alpha=self.soft_bin_alpha,
            bin_centers=self.bin_centers,
            nb_bins=self.nb_bins if self.bin_centers is None else None,
            min_clip=self.min_clip,
            max_clip=self.max_clip,
        )

    def _loss(self, y_true, y_pred):
        if y_true.shape[-1] not in (1, None) or y_pred.shape[-1] not in (1, None):
            raise ValueError(f"mutual information needs one-channel images, got {y_true.shape} and {y_pred.shape}")
        return -self.volumes(y_true, y_pred)

    def get_config(self):
        return dict(self._config)
