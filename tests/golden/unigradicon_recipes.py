"""Sizes, places and intensities of the pair that the originals register, the same for script and tests."""

import numpy as np

from tests.golden.icon_recipes import images, jitter

SIZE = (22, 18, 20)  # of the network, (X, Y, Z)
FEATURES = [[2, 3], [3, 2]]
WINDOW = (-700.0, 900.0)
QUANTILES = (0.05, 0.9)
SIMILARITIES = ("lncc", "lncc2", "mind")
UPDATES, RATE = 3, 2e-5  # of an optimisation; at a larger rate the original itself goes elsewhere in float64
DICE_WEIGHT = 0.7
OPTIMISED = (*SIMILARITIES, "mind dice", "lncc mass")  # with labels, and with mass that is kept


def _affine(angle, spacing, origin):
    """RAS+ mm, turned about the third axis and once about the first."""
    c, s = np.cos(angle), np.sin(angle)
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned * spacing, origin
    return affine


AFFINES = {"moving": _affine(0.3, (2.0, 1.5, 2.5), (-20, 10, 5)), "fixed": _affine(-0.2, (1.5, 1.5, 3.0), (4, -30, 12))}
SHAPES = {"moving": (19, 27, 16), "fixed": (25, 21, 14)}


def volume(role):
    """An image of Hounsfield units, `[X, Y, Z]` int16."""
    smooth = images(SHAPES[role], seed={"moving": 71, "fixed": 72}[role], count=1)[0]
    return np.round(2400 * smooth - 1200).astype("int16")


def noise():
    """Of the points of the inverse consistency, `[X, Y, Z, 3]`, components in the order (Z, Y, X)."""
    return jitter(SIZE[::-1], seed=73).T


def labels(role):
    """Three structures, of which the images share two, on the grid of the network, `[X, Y, Z]` uint8."""
    result, shift = np.zeros(SIZE, "uint8"), {"moving": 0, "fixed": 2}[role]
    result[3 + shift : 11 + shift, 4:12, 5:15] = 1
    result[12 + shift : 18 + shift, 6:14, 4:12] = 3
    result[:3, :4, :5] = {"moving": 4, "fixed": 5}[role]
    return result


def mask(role):
    """Not 0 in a box, `[X, Y, Z]` uint8."""
    result = np.zeros(SHAPES[role], "uint8")
    result[3:-4, 2:-3, 1:-2] = 2
    return result
