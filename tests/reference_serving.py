"""Warping with scipy, one image and one channel at a time."""

import numpy as np
from scipy.ndimage import map_coordinates


def warp_reference(image, displacement, method):
    """moved(x) = image(x + u(x)); outside the image the nearest edge voxel."""
    moved = np.empty_like(image)
    for b in range(len(image)):
        grid = np.indices(image.shape[1:-1])
        location = grid + np.moveaxis(displacement[b], -1, 0)
        for c in range(image.shape[-1]):
            order = {"linear": 1, "nearest": 0}[method]
            moved[b, ..., c] = map_coordinates(image[b, ..., c], location, order=order, mode="nearest")
    return moved
