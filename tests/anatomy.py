"""Images of one made-up anatomy, a function of the place in millimetres, so that every grid shows the same."""

import numpy as np

from hetmorph.io import Image


def intensity(places, centre=(0.0, 0.0, 0.0), size=12.0):
    """Smooth structures about a centre, `[…]` of places `[…, 3]` in RAS+ mm."""
    x = (np.asarray(places) - centre) / size
    wave = np.sin(2.1 * x[..., 0] + 0.3) * np.cos(1.7 * x[..., 1]) + 0.5 * np.sin(1.3 * x[..., 2] + x[..., 0])
    return 100 * np.exp(-(x**2).sum(-1) / 3) * (1.5 + wave)


def middle(grid):
    return grid.world((np.array(grid.shape) - 1) / 2)


def extent(grid):
    return np.array(grid.spacing) @ np.array(grid.shape) / grid.ndim


def image(grid, shift=(0.0, 0.0, 0.0), about=None, path="image.nii.gz", oriented=True, dtype=np.float32):
    """The anatomy on a grid, moved by `shift` mm; it lies about the middle of `about`, as a rule the fixed grid."""
    about = about or grid
    values = intensity(grid.world(grid.indices()), middle(about) + shift, extent(about) / 3)
    return Image(values.astype(dtype), grid.spacing, grid.affine, oriented, path)


def labels(grid, shift=(0.0, 0.0, 0.0), about=None, path="labels.nii.gz"):
    """A ball (3) in a shell (2) of the anatomy."""
    about = about or grid
    distance = np.linalg.norm(grid.world(grid.indices()) - middle(about) - shift, axis=-1) / extent(about)
    values = np.select([distance < 0.15, distance < 0.3], [3, 2], 0).astype(np.uint8)
    return Image(values, grid.spacing, grid.affine, True, path)
