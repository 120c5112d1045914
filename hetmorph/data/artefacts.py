"""Artefacts of known place and strength: what one image shows and the other does not, and no average takes away.

Each kind changes an image inside a mask alone, which is kept. It lies about a point of the middle half of the image,
where one looks. Place, form and draws follow from the seed, the case, the kind and the side, so that either image has
an artefact of its own, and they are the same at every level.

References:
    Gudbjartsson and Patz, Magn. Reson. Med. 34, 1995, doi:10.1002/mrm.1910340618 (the noise of a band).
    Wagner et al., IEEE Trans. Sonics Ultrason. 30, 1983, doi:10.1109/T-SU.1983.31404 (speckle).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from hetmorph.data.noise import add_rician, generator, rician
from hetmorph.data.pair import ARTEFACTS, Pair, foreground

STRENGTHS = (0.25, 0.5, 1.0)  # weak, medium, strong
SIDES = {"both": ("moving", "fixed"), "moving": ("moving",), "fixed": ("fixed",)}
RICIAN = "rician"
_RADII = 0.07, 0.13  # of a blob, shares of the image
_EDGE = 0.3  # share of a form over which it fades
_LOUDEST = 0.4  # σ in a band at level 1, of the intensity range
_GRAIN = 1.0  # of speckle, voxels


def void(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A blob without signal, as metal or air leave it: image · (1 − level · form).

    Args:
        image: `[*S]` in [0, 1].
        level: share of the signal that is lost in the middle.
        rng: place and form.

    Returns:
        `[*S]` in [0, 1], the image itself outside the form.
    """
    return image * (1 - level * _blob(image.shape, _point(image, rng, bright=True), rng))


def flow(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A bright blob, as blood that flows into a slice: image + level · form, at most 1. Arguments as `void`."""
    return np.minimum(image + level * _blob(image.shape, _point(image, rng, bright=False), rng), 1)


def ghost(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Copies of a bright part along one axis, as motion leaves them along that of phase encoding.

    The copies lie a fifth and two fifths of the axis away, both ways, and are added at `level` and half of it, at most
    1. Arguments as `void`.
    """
    part = image * _blob(image.shape, _point(image, rng, bright=True), rng, larger=1.5)
    axis, result = int(rng.integers(image.ndim)), image
    for number in (1, 2):
        far = max(1, round(number * image.shape[axis] / 5))
        for step in (-far, far):
            result = result + level / number * _shifted(part, step, axis)
    return np.minimum(result, 1)


def band(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A band of strong Rician noise across one axis, as at the edge of a coil, σ = 0.4 · level · form, at most 1.

    Arguments as `void`.
    """
    axis = int(rng.integers(image.ndim))
    length = image.shape[axis]
    middle, half = _point(image, rng)[axis], max(1.5, length * rng.uniform(*_RADII))
    form = _fading(np.abs(np.arange(length) - middle) / half)
    sigma = _LOUDEST * level * np.expand_dims(form, [other for other in range(image.ndim) if other != axis])
    return np.minimum(rician(image, sigma, rng), 1)


def speckle(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A sector of echo with speckle and a shadow: image · (1 + level · form · (s − 1)) · (1 − level · shadow).

    It is at most 1. The sector opens from the middle of a side. s is Rayleigh-distributed with mean 1; the shadow is
    the middle half of the sector, from a point of the middle half of the image on. Arguments as `void`.
    """
    axis = int(rng.integers(image.ndim))
    apex = (np.array(image.shape) - 1) / 2
    apex[axis] = -1.0 if rng.random() < 0.5 else image.shape[axis]
    towards = _point(image, rng) - apex
    reach = np.linalg.norm(towards)
    beams = np.stack(np.indices(image.shape), -1) - apex
    depth = np.linalg.norm(beams, axis=-1)
    angle = np.arccos(np.clip(beams @ towards / (depth * reach), -1, 1))
    half = rng.uniform(0.15, 0.3)
    form = _fading(angle / half)
    shadow = _fading(2 * angle / half) * np.clip((depth - reach) / (_EDGE * reach) + 1, 0, 1)
    real, imaginary = (ndimage.gaussian_filter(rng.standard_normal(image.shape), _GRAIN) for _ in range(2))
    grain = np.hypot(real, imaginary)
    grain /= max(grain.mean(), 1e-12)
    return np.minimum(image * (1 + level * form * (grain - 1)) * (1 - level * shadow), 1)


ARTEFACT_KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    one.__name__: one for one in (void, flow, ghost, band, speckle)
}
NOISE_KINDS = (RICIAN, *ARTEFACT_KINDS)


def add_artefact(
    pairs: Pair | Sequence[Pair], kind: str, level: float, seed: int = 0, into: str = "both"
) -> Pair | list[Pair]:
    """Adds an artefact of known place to one image or both.

    Args:
        pairs: one pair or several, without artefacts.
        kind: "void", "flow", "ghost", "band" or "speckle": the functions of this name in `hetmorph.data.artefacts`.
        level: strength, up to 1, the strongest; `STRENGTHS` are a weak, a medium and a strong one. 0 returns the pairs
            as they are.
        seed: the artefact follows from it, the case, the kind and the side.
        into: "moving", "fixed" or "both", each image then has its own.

    Returns:
        The same with changed images in [0, 1]; `artefact_moving` and `artefact_fixed` are true where theirs differs
        from what it was, and nowhere in an image that has none; `foreground` is that of the images before.

    Raises:
        ValueError: kind, side or level is none of the possible, or a pair has an artefact already.

    Example:
        >>> spoilt = add_artefact(pairs, "void", 0.5, into="moving")
        >>> spoilt[0].artefact_moving.any(), spoilt[0].artefact_fixed.any()
        (True, False)
    """
    if kind not in ARTEFACT_KINDS:
        raise ValueError(f"expected the kind of an artefact to be one of {tuple(ARTEFACT_KINDS)}, received {kind!r}.")
    if into not in SIDES:
        raise ValueError(f"expected an artefact to go into one of {tuple(SIDES)}, received {into!r}.")
    if not 0 <= level <= 1:
        raise ValueError(f"expected the level of an artefact within 0 … 1, received {level}.")
    if not isinstance(pairs, Pair):
        return [add_artefact(pair, kind, level, seed, into) for pair in pairs]
    if level == 0:
        return pairs
    if any(getattr(pairs, name) is not None for name in ARTEFACTS):
        raise ValueError(f"{pairs.case_id}: has an artefact already; add one to images without.")
    changed = {name: np.zeros(pairs.moving.shape, bool) for name in ARTEFACTS}
    for side in SIDES[into]:
        image, rng = getattr(pairs, side), generator(f"{kind} {side}", seed, pairs.case_id)
        spoilt = ARTEFACT_KINDS[kind](image.astype(np.float64), level, rng).astype(np.float32)
        changed |= {side: spoilt, f"artefact_{side}": spoilt != image}
    return dataclasses.replace(pairs, **changed, foreground=foreground(pairs))


def add_noise(
    pairs: Pair | Sequence[Pair], level: float, seed: int = 0, kind: str = RICIAN, into: str = "both"
) -> Pair | list[Pair]:
    """Adds noise of a kind by its name.

    Args:
        pairs: one pair or several.
        level: as of `add_rician` or of `add_artefact`; 0 returns the pairs as they are.
        seed: noise follows from it and the case.
        kind: "rician", or that of an artefact.
        into: "moving", "fixed" or "both", of an artefact; Rician noise belongs to the scanner of both.

    Returns:
        What `add_rician` or `add_artefact` does.

    Raises:
        ValueError: as they do, or an unknown kind, or Rician noise in one image alone.
    """
    check_noise(kind, into)
    return add_rician(pairs, level, seed) if kind == RICIAN else add_artefact(pairs, kind, level, seed, into)


def check_noise(kind: str, into: str) -> None:
    """Raise ValueError for a kind of noise that does not exist, or does not go into this image alone.

    Args:
        kind: one of `NOISE_KINDS`.
        into: "moving", "fixed" or "both".
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"expected the kind of noise to be one of {NOISE_KINDS}, received {kind!r}.")
    if into not in SIDES:
        raise ValueError(f"expected noise to go into one of {tuple(SIDES)}, received {into!r}.")
    if kind == RICIAN and into != "both":
        raise ValueError(f"expected {RICIAN} noise to go into 'both', it belongs to the scanner; received {into!r}.")


def _point(image: np.ndarray, rng: np.random.Generator, bright: bool | None = None) -> np.ndarray:
    """A voxel of the middle half, `[N]`; of its brighter or darker ones if asked for, where an artefact can be seen."""
    margins = [length // 4 for length in image.shape]
    middle = image[tuple(slice(m, length - m) for m, length in zip(margins, image.shape, strict=True))]
    allowed = np.ones(middle.shape, bool) if bright is None else (middle >= middle.mean()) == bright
    places = np.argwhere(allowed if allowed.any() else np.ones(middle.shape, bool))
    # a place by its share of the list, so that the draw takes one number, whatever the image
    return places[int(rng.random() * len(places))] + np.array(margins, float)


def _blob(shape: tuple[int, ...], middle: np.ndarray, rng: np.random.Generator, larger: float = 1.0) -> np.ndarray:
    """An ellipsoid: 1 inside, 0 outside, fading between."""
    radii = np.maximum(1.5, larger * rng.uniform(*_RADII, len(shape)) * shape)
    offsets = np.stack(np.indices(shape), -1) - middle
    return _fading(np.linalg.norm(offsets / radii, axis=-1))


def _fading(distance: np.ndarray) -> np.ndarray:
    """1 up to 0.7, 0 from 1 on."""
    return np.clip((1 - distance) / _EDGE, 0, 1)


def _shifted(image: np.ndarray, step: int, axis: int) -> np.ndarray:
    """The image `step` voxels further along an axis; 0 comes in."""
    places = np.arange(image.shape[axis]) - step
    inside = (places >= 0) & (places < image.shape[axis])
    taken = np.take(image, np.clip(places, 0, image.shape[axis] - 1), axis)
    return taken * np.expand_dims(inside, [other for other in range(image.ndim) if other != axis])
