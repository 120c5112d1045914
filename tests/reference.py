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
