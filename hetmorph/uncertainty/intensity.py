"""Maps that one registration gives: the predicted noise, and how unlike the images are after it."""

import time

import numpy as np
from scipy import ndimage

from hetmorph.evaluation import wrap
from hetmorph.uncertainty.result import INTENSITY, NO_UNIT, UncertaintyMap

SCALE = 1.5  # voxels, of the Gaussian window of a local correlation
_FLAT = 1e-8  # product of the variances of two images in [0, 1] below which they are flat


def variance_uncertainty(model, moving, fixed) -> UncertaintyMap:
    """σ_I, the predicted standard deviation of the noise of the fixed image.

    Args:
        model: with a variance network, anything `evaluation.wrap` takes.
        moving, fixed: `[*S]`, intensities in [0, 1].

    Raises:
        ValueError: a model without variance, or images that do not fit.

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """

    def sigma(prediction, _):
        if prediction.log_variance is None:
            raise ValueError(
                "this model predicts no variance; those of the objectives het, het-ncc, het-z, nll and beta-nll do"
            )
        return np.exp(0.5 * prediction.log_variance)

    return from_one("variance", model, moving, fixed, sigma)


def residual_uncertainty(model, moving, fixed) -> UncertaintyMap:
    """|fixed − moved|: costs nothing and needs no model of uncertainty; what others have to beat.

    Arguments as `variance_uncertainty`.
    """
    return from_one("residual", model, moving, fixed, lambda prediction, fixed: np.abs(fixed - prediction.moved))


def dissimilarity_uncertainty(model, moving, fixed, scale: float = SCALE) -> UncertaintyMap:
    """√((1 − c)/2), c the correlation of the moved and the fixed image round each voxel.

    0 where they are alike up to brightness and contrast, 1 where they are opposite, √½ where there is nothing to
    compare. A voxel by itself agrees with many others; the pattern round it tells more than `residual` does.

    Args:
        model, moving, fixed: as for `variance_uncertainty`.
        scale: standard deviation of the Gaussian window, voxels.

    Raises:
        ValueError: a scale that is not positive, or images that do not fit.
    """
    if not scale > 0:
        raise ValueError(f"expected a scale above 0 voxels, received {scale}")

    def values(prediction, fixed):
        return np.sqrt((1 - correlation(prediction.moved, fixed, scale)) / 2)

    return from_one("dissimilarity", model, moving, fixed, values, NO_UNIT)


def correlation(one, other, scale: float = SCALE) -> np.ndarray:
    """Correlation in a Gaussian window, from -1 to 1; 0 where an image is flat.

    Args:
        one, other: `[*S]`, intensities in [0, 1].
        scale: standard deviation of the window, voxels.
    """

    def mean(values):
        return ndimage.gaussian_filter(values, scale)

    one, other = (np.asarray(image, np.float64) for image in (one, other))
    covariance = mean(one * other) - mean(one) * mean(other)
    variances = (mean(one**2) - mean(one) ** 2) * (mean(other**2) - mean(other) ** 2)
    return np.clip(covariance / np.sqrt(np.maximum(variances, _FLAT)), -1, 1)


def from_one(name: str, model, moving, fixed, values, unit: str = INTENSITY) -> UncertaintyMap:
    """The map that a function of the prediction and the fixed image makes of one registration.

    Args:
        name: the name of the map.
        model, moving, fixed: as for `variance_uncertainty`.
        values: the function; it returns `[*S]`.
        unit: unit of its values.
    """
    start = time.perf_counter()
    std = values(wrap(model)(moving, fixed), np.asarray(fixed, np.float32)).astype(np.float32)
    if not np.isfinite(std).all():
        raise ValueError(f"{name}: the model answered with NaN or infinity")
    return UncertaintyMap(
        name, std, np.ones(std.shape, bool), unit, None, n=1, passes=1, seconds=time.perf_counter() - start
    )
