"""Independent references: plain loops and SimpleITK, no code shared with hetmorph."""

import itertools

import numpy as np
import SimpleITK as sitk


def surface_points(mask):
    """Voxels of the mask with a face neighbour outside it, one voxel at a time."""
    mask = np.asarray(mask, bool)
    points = []
    for index in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = index.copy()
            neighbour[axis] += step
            outside = not 0 <= neighbour[axis] < mask.shape[axis]
            if outside or not mask[tuple(neighbour)]:
                points.append(index)
                break
    return np.array(points)


def directed_distances(a, b, spacing):
    """Every surface voxel of a to its nearest surface voxel of b, by the full table of distances."""
    difference = (surface_points(a)[:, None] - surface_points(b)[None]) * np.asarray(spacing, float)
    return np.sqrt((difference**2).sum(-1)).min(1)


def surface_mask(mask):
    result = np.zeros(np.shape(mask), np.uint8)
    result[tuple(surface_points(mask).T)] = 1
    return result


def sitk_image(mask, spacing=None):
    image = sitk.GetImageFromArray(np.asarray(mask, np.uint8))
    if spacing is not None:
        image.SetSpacing([float(s) for s in reversed(spacing)])
    return image


def sitk_dice(a, b):
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(sitk_image(a), sitk_image(b))
    return measure.GetDiceCoefficient()


def sitk_hausdorff(a, b, spacing):
    """SimpleITK measures between sets of voxels: given surfaces, it measures between surfaces."""
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(sitk_image(surface_mask(a), spacing), sitk_image(surface_mask(b), spacing))
    return measure.GetHausdorffDistance()


def sparsification_by_removal(error, uncertainty, steps):
    """Remove voxels one fraction after the other, literally; uncertainties must be distinct."""
    order = np.argsort(-np.ravel(uncertainty))
    error = np.ravel(error)
    return np.array([np.delete(error, order[: k * error.size // steps]).mean() for k in range(steps)])
