"""Real anatomy with a known answer: the fixed image is the moving one, deformed by a field that is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from hetmorph import ops
from hetmorph.data.noise import generator
from hetmorph.data.pair import Pair

_SMOOTHNESS = 1 / 12
_MARGIN = 1 / 3
_STEPS = 5


def warp_known(pairs: Pair | Sequence[Pair], seed: int = 0, amplitude: float = 6.0) -> Pair | list[Pair]:
    """Replaces the fixed image by the moving one, warped: fixed(x) = moving(x + u(x)).

    u is the flow of a smooth random velocity at unit time, so it has an inverse and does not fold; it
    varies over about a twelfth of the image, is largest in its middle third and vanishes at its border.
    Interpolation is linear, hence `ops.warp` of the moving image by `displacement` gives the fixed one.
    Labels take the nearest value. Noise that the moving image has is carried along: what differs between
    the two is the motion alone, until `add_noise` adds some. Names stay: of a pair between subjects, `patient` is
    still the one whose image is replaced.

    Args:
        pairs: one pair or several.
        seed: u follows from (seed, case_id) alone.
        amplitude: bound on the displacement, voxels; it is nearly reached. Walls of the heart move by 5 to
            10 mm, hence 6 at 1.5 mm.

    Returns:
        The same with another `fixed`, `fixed_labels`, `mask_fixed` and `displacement`, and without `sigma`,
        `foreground`, landmarks and masks of artefacts.

    Raises:
        ValueError: the amplitude is not positive, or so large for the image that u might fold.
    """
    if not isinstance(pairs, Pair):
        return [warp_known(pair, seed, amplitude) for pair in pairs]
    # beyond this the velocity is steeper than the integration resolves
    reach = 0.1 * min(pairs.moving.shape)
    if not 0 < amplitude <= reach:
        raise ValueError(
            f"{pairs.case_id}: expected an amplitude above 0 and up to {reach:g} voxels, a tenth of the shorter side, "
            f"received {amplitude}."
        )
    velocity = _velocity(pairs.moving.shape, amplitude, generator("warp", seed, pairs.case_id))
    return warp_by(pairs, ops.fields.integrate(velocity[None].astype(np.float32), _STEPS).numpy()[0])


def warp_by(pair: Pair, displacement: np.ndarray) -> Pair:
    """Replaces the fixed image by the moving one, pulled through a displacement: fixed(x) = moving(x + u(x)).

    Args:
        pair: the pair.
        displacement: u, float32 `[*S, N]`, voxels, on the fixed grid.

    Returns:
        The same with another `fixed`, `fixed_labels`, `mask_fixed` and `displacement`, and without `sigma`,
        `foreground`, landmarks and masks of artefacts.
    """
    fixed = ops.warp(pair.moving[None, ..., None], displacement[None]).numpy()[0, ..., 0]
    return dataclasses.replace(
        pair,
        fixed=np.clip(fixed, 0, 1),
        fixed_labels=None if pair.moving_labels is None else _warped_labels(pair.moving_labels, displacement),
        displacement=displacement,
        sigma=None,
        foreground=None,
        mask_fixed=None if pair.mask_moving is None else _warped_labels(pair.mask_moving, displacement),
        points_moving=None,
        points_fixed=None,
        artefact_moving=None,
        artefact_fixed=None,
    )


def _velocity(shape: tuple[int, ...], amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random field `[*S, N]`, zero at the border, its longest vector `amplitude`."""
    smooth = [length * _SMOOTHNESS for length in shape]
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), smooth) for _ in shape], -1)
    for axis, length in enumerate(shape):
        inward = np.minimum(np.arange(length), np.arange(length)[::-1]) / (length * _MARGIN)
        ramp = np.clip(inward, 0, 1)
        field *= np.expand_dims(ramp * ramp * (3 - 2 * ramp), [one for one in range(len(shape) + 1) if one != axis])
    return amplitude * field / np.linalg.norm(field, axis=-1).max()


def _warped_labels(labels: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    moved = ops.warp(labels[None, ..., None].astype(np.int32), displacement[None], method="nearest")
    return moved.numpy()[0, ..., 0].astype(labels.dtype)
