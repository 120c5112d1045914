"""Noise of known strength that differs from place to place, as a receiver coil leaves it.

Reference: Gudbjartsson and Patz, Magn. Reson. Med. 34, 1995, https://doi.org/10.1002/mrm.1910340618
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, optimize

from hetmorph.data.pair import Pair, foreground

LOWEST, HIGHEST = 0.2, 2.5
_CONTRAST = 1.5
_SMOOTHNESS = 1 / 6


def rician(image: np.ndarray, sigma: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of a complex signal with independent noise in both channels: |A + σ(n₁ + i·n₂)|.

    Args:
        image: noiseless magnitude A, any shape and unit.
        sigma: standard deviation σ of either channel, the image's unit.
        rng: source of n₁ and n₂.

    Returns:
        Array of the image's shape, ≥ 0, not clipped.
    """
    real = image + sigma * rng.standard_normal(image.shape)
    return np.hypot(real, sigma * rng.standard_normal(image.shape))


def noise_map(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws how the noise is spread: smooth, mean 1, within 0.2 … 2.5.

    It grows with the distance from a coil at a random place and waves besides, over lengths of a sixth of
    the image.

    Args:
        shape: voxels of the image along each axis.
        rng: another state draws another map.

    Returns:
        float64 array of that shape.
    """
    waves = ndimage.gaussian_filter(rng.standard_normal(shape), [length * _SMOOTHNESS for length in shape])
    coil = rng.uniform(0, 1, len(shape))
    places = np.meshgrid(*[(np.arange(length) + 0.5) / length for length in shape], indexing="ij")
    far = sum((place - one) ** 2 for place, one in zip(places, coil, strict=True))
    pattern = _CONTRAST * _standardised(_standardised(waves) + _standardised(far))
    wanted = (1 - LOWEST) / (HIGHEST - LOWEST)

    def share(offset: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(pattern + offset)))

    # the offset that makes the mean exactly 1; the share is within 0 … 1 whatever the pattern
    offset = optimize.brentq(lambda value: share(value).mean() - wanted, -30, 30, xtol=1e-12)
    return LOWEST + (HIGHEST - LOWEST) * share(offset)


def add_rician(pairs: Pair | Sequence[Pair], level: float, seed: int = 0) -> Pair | list[Pair]:
    """Adds Rician noise of σ(x) = level · map(x), see `noise_map`, to both images.

    The map is the same for moving and fixed (it belongs to the scanner), the draws are independent. Where
    noise raises intensities above 1, both images and σ are divided by the highest: nothing is clipped, the
    noise stays Rician and `sigma` stays in the images' unit.

    Args:
        pairs: one pair or several, without noise of known strength yet.
        level: mean of σ in units of the images' range [0, 1]; 0 returns the pairs as they are.
        seed: map and draws follow from (seed, case_id) alone.

    Returns:
        The same with noisy images, `sigma` and `foreground`, that of the images before; everything else is kept.

    Raises:
        ValueError: the level is negative or not finite, or a pair has a `sigma` already.

    Example:
        >>> noisy = add_rician(pairs, 0.05)
        >>> noisy[0].sigma.shape == noisy[0].fixed.shape
        True
    """
    if not 0 <= level < np.inf:
        raise ValueError(f"expected a noise level of at least 0, received {level}.")
    if not isinstance(pairs, Pair):
        return [add_rician(pair, level, seed) for pair in pairs]
    if level == 0:
        return pairs
    if pairs.sigma is not None:
        raise ValueError(f"{pairs.case_id}: has noise of known strength already; add noise to clean images.")
    rng = generator("noise", seed, pairs.case_id)
    sigma = level * noise_map(pairs.moving.shape, rng)
    moving, fixed = (rician(image, sigma, rng) for image in (pairs.moving, pairs.fixed))
    highest = max(1.0, moving.max(), fixed.max())
    arrays = {"moving": moving, "fixed": fixed, "sigma": sigma}
    arrays = {name: (one / highest).astype(np.float32) for name, one in arrays.items()}
    return dataclasses.replace(pairs, **arrays, foreground=foreground(pairs))


def generator(purpose: str, seed: int, case_id: str) -> np.random.Generator:
    """Random numbers that follow from these three alone."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{case_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-12)
