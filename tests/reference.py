"""Independent numpy/scipy references of the kernels: nothing here uses hetmorph or TensorFlow."""

import numpy as np
from scipy import ndimage


def positions(displacement):
    """Absolute positions `[N, *S]` of one displacement `[*S, N]`."""
    grid = np.meshgrid(*[np.arange(n) for n in displacement.shape[:-1]], indexing="ij")
    return np.stack([g + displacement[..., d] for d, g in enumerate(grid)]).astype(np.float64)


def warp(image, displacement, order=1, cval=None):
    """One image `[*S, C]` at displaced positions; the edge repeats unless `cval` is given."""
    where = positions(displacement)
    size = np.array(image.shape[:-1]).reshape(-1, *[1] * (where.ndim - 1))
    inside = np.all((where >= 0) & (where <= size - 1), axis=0)
    channels = [
        ndimage.map_coordinates(image[..., c].astype(np.float64), where, order=order, mode="nearest")
        for c in range(image.shape[-1])
    ]
    moved = np.stack(channels, axis=-1)
    return moved if cval is None else np.where(inside[..., None], moved, cval)


def flow(velocity, point, steps=4000):
    """Where a point is after unit time in a velocity field given as a function, by many small Euler steps."""
    point = np.array(point, np.float64)
    for _ in range(steps):
        point = point + velocity(point) / steps
    return point


def smooth_field(rng, shape, amplitude, sigma=4.0):
    """Random smooth field `[*S, N]` whose largest component is `amplitude`."""
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), sigma) for _ in shape], axis=-1)
    return (amplitude * field / np.abs(field).max()).astype(np.float32)


def conserved(moved, displacement):
    """A moved image `[*S]` that keeps its mass, as unigradicon 1.0.6 has it: times the determinants of the cells.

    By the edges at their last corner in 3-D, at their first in 2-D, and without the last voxel along each axis.
    """
    x = positions(displacement)
    if x.ndim == 4:
        a = x[:, 1:, 1:, 1:] - x[:, :-1, 1:, 1:]
        b = x[:, 1:, 1:, 1:] - x[:, 1:, :-1, 1:]
        c = x[:, 1:, 1:, 1:] - x[:, 1:, 1:, :-1]
        return np.sum(np.cross(a, b, axis=0) * c, axis=0) * moved[:-1, :-1, :-1]
    a, b = x[:, 1:, :-1] - x[:, :-1, :-1], x[:, :-1, 1:] - x[:, :-1, :-1]
    return (a[0] * b[1] - a[1] * b[0]) * moved[:-1, :-1]
