"""Random affine maps of training pairs, as those of uniGradICON: axes change places, and each image is bent by its own.

In coordinates from -1 to 1 along each axis the map of an image is x ↦ P·x + σ·(G·x + g), P the same random exchange of
axes with as many voxels for both images, G and g independent standard normal numbers for each. Flips, which belong to
it, are drawn by the pipeline.

Reference: Tian et al., uniGradICON: a foundation model for medical image registration, MICCAI 2024, arXiv:2403.05780.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hetmorph.ops import xla
from hetmorph.ops.grid import identity_grid
from hetmorph.ops.interpolation import pull
from hetmorph.ops.warp import warp

LARGEST = 0.2  # of σ: beyond, a map may turn an image inside out
SIDES = ("moving", "fixed")


def random_maps(orders: tf.Tensor, noise: tf.Tensor, shape: tuple[int, ...], strength: float) -> tuple:
    """Maps of voxels, for both images of each pair.

    Args:
        orders: `[B, N]` random numbers in [0, 1), whose order is that of the axes.
        noise: `[B, 2, N, N + 1]` standard normal numbers, the last column of the shift.
        shape: spatial sizes.
        strength: σ.

    Returns:
        Matrices `[B, 2, N, N]` and shifts `[B, 2, N]`: a voxel x of the result is at A·x + b in the image.
    """
    sizes = tf.constant(shape, tf.float32)
    linear = _exchange(orders, shape)[:, None] + strength * noise[..., :-1]
    matrix = linear * sizes[:, None] / sizes
    middle = (sizes - 1) / 2
    shift = middle + strength * noise[..., -1] * sizes / 2 - tf.linalg.matvec(matrix, middle)
    return matrix, shift


def move_arrays(arrays: tf.Tensor, names: Sequence[str], maps: tuple) -> tf.Tensor:
    """Images, linear between voxels, and masks and labels, of the nearest one; edges are repeated.

    Args:
        arrays: `[B, *S, C]`.
        names: the names of the channels, the two images first; each says whose it is, as in "mask_moving".
        maps: the result of `random_maps`.
    """
    moved = {}
    for side, name in enumerate(SIDES):
        own = [one[:, side] for one in maps]
        image, *others = [channel for channel, whose in enumerate(names) if name in whose]
        moved[image] = xla.run(_linear, arrays[..., image, None], *own)[..., 0]
        if others:
            part = _nearest(tf.gather(arrays, others, axis=-1), *own)
            moved |= dict(zip(others, tf.unstack(part, axis=-1), strict=True))
    return tf.stack([moved[channel] for channel in range(len(names))], -1)


def _linear(images: tf.Tensor, matrix: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    return pull(images, _places(matrix, shift, images.shape[1:-1]), relative=False)


def _nearest(images: tf.Tensor, matrix: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    shape = images.shape[1:-1]
    return warp(images, _places(matrix, shift, shape) - np.stack(np.indices(shape, np.float32), -1), "nearest")


def move_points(points: tf.Tensor, maps: tuple) -> tf.Tensor:
    """Where points of the images are in the result.

    Args:
        points: `[B, P, 2N]` voxels, of the moving and of the fixed image; NaN stays.
        maps: the result of `random_maps`.
    """
    if not points.shape[1]:
        return points
    matrix, shift = maps
    sides = [
        tf.linalg.matvec(tf.linalg.inv(matrix[:, side])[:, None], own - shift[:, None, side])
        for side, own in enumerate(tf.split(points, 2, -1))
    ]
    return tf.concat(sides, -1)


def _exchange(orders: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Random permutation matrices `[B, N, N]`, which exchange axes of one length only."""
    kinds = sorted(set(shape))
    groups = np.array([kinds.index(length) for length in shape], np.float32)
    sorted_axes = np.argsort(groups, kind="stable")
    # Sorted by their group first, the axes of a group come to the places that its axes have, in random order.
    drawn = tf.argsort(orders + groups, axis=-1)
    return tf.one_hot(tf.gather(drawn, np.argsort(sorted_axes), axis=-1), len(shape))


def _places(matrix: tf.Tensor, shift: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Where the voxels of the result are in the image, `[B, *S, N]`.

    Axis by axis, most of it on less than the whole grid: a product of matrices at every voxel takes ten times as long.
    """
    among = (-1, *(1,) * len(shape))
    grid = identity_grid(list(shape))
    places = []
    for row, place in zip(tf.unstack(matrix, axis=1), tf.unstack(shift, axis=-1), strict=True):
        place = tf.reshape(place, among)
        for factor, along in zip(tf.unstack(row, axis=-1), grid, strict=True):
            place += tf.reshape(factor, among) * along
        places.append(place)
    return tf.stack(places, -1)
