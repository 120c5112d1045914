"""Values of an image between its voxels, in numpy and scipy: positions in double precision, without TensorFlow."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from scipy import ndimage

METHODS = ("linear", "nearest", "cubic", "sinc")
_RADIUS = 5  # of the window of the sinc, voxels, as of SimpleITK
# Points of which the sinc's neighbours are gathered at once: they shall stay in the processor's cache.
_TOGETHER = 2**13
_SNAP = 1e-6  # voxels; what is an edge must not depend on the rounding of affines in float32


def pull(array: np.ndarray, positions: np.ndarray, method: str = "linear", outside: float | None = None) -> np.ndarray:
    """Values of an image at voxel positions.

    Args:
        array: `[*S]` or `[*S, C]`.
        positions: `[*T, N]`, voxels of the array.
        method: as `sampler`.
        outside: value more than half a voxel outside; None repeats the edge.

    Returns:
        `[*T]` or `[*T, C]`; of the array's own type for "nearest", else float32, or float64 as the array.

    Raises:
        ValueError: unknown method.
    """
    return sampler(array, positions.shape[-1], method, outside)(positions)


def sampler(
    array: np.ndarray, ndim: int, method: str = "linear", outside: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of positions; what can be computed once for all of them is.

    Beyond the centres of the outermost voxels, the image goes on with their values.

    Args:
        array: `[*S]` or `[*S, C]`.
        ndim: number of the spatial axes.
        method: "linear"; "nearest"; "cubic", the interpolating cubic B-spline; "sinc", a Lanczos-windowed sinc of 5
            voxels to either side, its weights brought to a sum of 1.
        outside: value more than half a voxel outside; None repeats the edge.

    Raises:
        ValueError: unknown method.

    References:
        Unser et al., IEEE TPAMI 1991, doi:10.1109/34.75515 (cubic). Meijering et al., Medical Image Analysis 2001,
        doi:10.1016/S1361-8415(00)00040-8 (sinc).
    """
    if method not in METHODS:
        raise ValueError(f"interpolation must be one of {', '.join(METHODS)}, received {method!r}")
    shape = array.shape[:ndim]
    channels = array.reshape(*shape, -1)
    between = {"linear": _spline, "cubic": _spline, "nearest": _nearest, "sinc": _sinc}[method]
    values_at = between(channels, 3 if method == "cubic" else 1) if between is _spline else between(channels)

    def values(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions, float)
        flat = positions.reshape(-1, ndim)
        found = values_at(np.clip(flat, 0, np.array(shape) - 1))
        if outside is not None:
            found[~inside(flat, shape)] = outside
        return found.reshape(*positions.shape[:-1], *array.shape[ndim:])

    return values


def inside(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Whether points `[..., N]` lie in an image, whose outermost voxels reach half a voxel beyond their centres."""
    half, within = 0.5 + _SNAP, True
    for axis, size in enumerate(shape):
        along = points[..., axis]
        within &= (along >= -half) & (along <= size - 1 + half)
    return within


def _kind(array: np.ndarray) -> type:
    """The type of what lies between voxels."""
    return np.float64 if array.dtype == np.float64 else np.float32


def _nearest(array: np.ndarray):
    def values(positions: np.ndarray) -> np.ndarray:
        return array[tuple(np.rint(positions).astype(np.intp).T)]

    return values


def _spline(array: np.ndarray, order: int):
    kind, parts = _kind(array), list(np.moveaxis(array, -1, 0))
    if order > 1:
        parts = [ndimage.spline_filter(part.astype(float), order, mode="mirror") for part in parts]
    parts = [part.astype(kind) if part.dtype in (bool, np.float16) else part for part in parts]

    def values(positions: np.ndarray) -> np.ndarray:
        found = np.empty((len(positions), len(parts)), kind)
        for channel, part in enumerate(parts):
            found[:, channel] = ndimage.map_coordinates(
                part, positions.T, output=kind, order=order, mode="mirror" if order > 1 else "nearest", prefilter=False
            )
        return found

    return values


def _sinc(array: np.ndarray):
    kind, taps = _kind(array), np.arange(1 - _RADIUS, _RADIUS + 1)
    upper = np.array(array.shape[:-1]) - 1

    def some(positions: np.ndarray) -> np.ndarray:
        low = np.floor(positions).astype(np.intp)
        distances = (positions - low)[..., None] - taps
        weights = np.sinc(distances) * np.sinc(distances / _RADIUS)
        weights /= weights.sum(-1, keepdims=True)
        voxels = np.clip(low[..., None] + taps, 0, upper[:, None])  # [P, N, taps]
        found = np.zeros((len(positions), array.shape[-1]))
        *rows, last = range(len(upper))
        for corner in product(range(len(taps)), repeat=len(rows)):
            row = tuple(voxels[:, axis, tap, None] for axis, tap in zip(rows, corner, strict=True))
            weight = np.prod([weights[:, axis, tap] for axis, tap in zip(rows, corner, strict=True)], axis=0)
            found += weight[:, None] * np.einsum("ptc,pt->pc", array[(*row, voxels[:, last])], weights[:, last])
        return found.astype(kind)

    def values(positions: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [some(positions[first : first + _TOGETHER]) for first in range(0, len(positions), _TOGETHER)]
        )

    return values
