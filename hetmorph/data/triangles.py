"""Triangles and circles that need no files: the toy problem of the ICON family, from each shape to another.

A point at the distance d outside a contour, in the unit square, has the intensity ½ − ½·tanh(40·d); of the hollow
ones, 1 − tanh²(40·d), so that the contour alone is bright. Half of the shapes are circles.

Reference: Greer et al., ICON: learning regular maps through inverse consistency, ICCV 2021, arXiv:2105.04459.
"""

from __future__ import annotations

import zlib
from functools import partial

import numpy as np

from hetmorph.data.dataset import Dataset, Found, Options, Subject

LABELS = {"shape": 1}
SHAPES = 1000
_SHARPNESS = 40
_LEAST = 8


def draw(
    center: tuple[float, float],
    radius: float,
    angle: float,
    triangle: bool,
    size: tuple[int, int] = (128, 128),
    hollow: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """One shape.

    Args:
        center: in the unit square, along the two axes of the image.
        radius: radius of the circle, or of the one through the corners of the triangle, as a share of the unit square.
        angle: by which the triangle is turned, radians.
        triangle: an equilateral one instead of a circle.
        size: voxels; the unit square spans the shorter side, and lies in the middle of the longer.
        hollow: the contour alone is bright.

    Returns:
        Image `[*S]` float32 in [0, 1], and where the shape is, `[*S]` uint8.

    Raises:
        ValueError: a side is shorter than 8 voxels.

    Example:
        >>> image, labels = draw((0.5, 0.5), 0.3, 0.0, triangle=True)
    """
    if len(size) != 2 or min(size) < _LEAST:
        raise ValueError(f"expected two sides of at least {_LEAST} voxels, received {tuple(size)}.")
    unit = min(size) - 1
    x, y = (0.5 + (np.arange(n) - (n - 1) / 2) / unit - c for n, c in zip(size, center, strict=True))
    x = x[:, None]
    distance = np.sqrt(x**2 + y**2)
    if triangle:
        third = 2 * np.pi / 3
        # The side that a direction meets is straight: its distance grows from the middle to the corners.
        distance = distance - radius * 0.5 / np.cos((np.arctan2(x, y) + angle) % third - third / 2)
    else:
        distance = distance - radius
    edge = np.tanh(_SHARPNESS * distance)
    image = 1 - edge**2 if hollow else (1 - edge) / 2
    return image.astype(np.float32), (distance < 0).astype(np.uint8)


def shape(number: int, seed: int = 0) -> dict:
    """What `draw` takes for one of the built-in shapes; the same for the same numbers.

    Args:
        number: which.
        seed: another seed gives other shapes.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"triangles"), number])
    return {
        "center": tuple(rng.uniform(0.4, 0.7, 2)),
        "radius": rng.uniform(0.2, 0.4),
        "angle": rng.uniform(0, 2 * np.pi),
        "triangle": bool(rng.integers(2)),
    }


def _read(number: int, options: Options, hollow: bool) -> Subject:
    image, labels = draw(**shape(number), size=options.size, hollow=hollow)
    return Subject(f"shape{number:04d}", image, labels, (1.0, 1.0))


def _dataset(name: str, hollow: bool) -> Dataset:
    return Dataset(
        name=name,
        labels=LABELS,
        main="shape",
        size=(128, 128),
        find=lambda _: Found({f"shape{number:04d}": number for number in range(SHAPES)}),
        read=partial(_read, hollow=hollow),
        between=True,
        files=False,
    )


DATASET, HOLLOW_DATASET = _dataset("triangles", False), _dataset("triangles-hollow", True)
