"""Small made-up pairs and predictors with known answers."""

import functools

import numpy as np

from hetmorph import evaluation
from hetmorph.data import Pair
from hetmorph.evaluation import Prediction

HEART = {"labels": {"rv": 1, "myo": 2, "lv": 3}, "main": "myo"}
# Of hearts, unless a test says otherwise.
evaluate = functools.partial(evaluation.evaluate, **HEART)
evaluate_each = functools.partial(evaluation.evaluate_each, **HEART)
evaluate_pair = functools.partial(evaluation.evaluate_pair, **HEART)


def heart(size=32, centre=(14, 14), radius=(4, 8)):
    """Labels: a ring of myocardium (2) round a cavity (3), and a right ventricle (1) beside it."""
    y, x = np.indices((size, size))
    distance = np.hypot(y - centre[0], x - centre[1])
    labels = np.zeros((size, size), np.uint8)
    labels[np.hypot(y - centre[0], x - centre[1] - 10) < 5] = 1
    labels[distance < radius[1]] = 2
    labels[distance < radius[0]] = 3
    return labels


def image(labels):
    return np.array([0.0, 0.4, 0.7, 1.0], np.float32)[labels]


def pair(name="p1_s0", moving=None, fixed=None, patient="p1", **more):
    moving = heart() if moving is None else moving
    fixed = heart() if fixed is None else fixed
    return Pair(name, patient, 0, "NOR", image(moving), image(fixed), moving, fixed, (2.0, 0.5), **more)


def shifted_pair(shift=3, **more):
    """The fixed heart lies `shift` voxels further along axis 0: u = (−shift, 0) registers it exactly."""
    return pair("shifted", heart(), heart(centre=(14 + shift, 14)), **more)


def constant(displacement, log_variance=None):
    """Predictor of one vector everywhere; rolls the image, exact where nothing crosses the border."""

    def predict(moving, fixed):
        u = np.broadcast_to(np.float32(displacement), (*moving.shape, moving.ndim)).copy()
        moved = np.roll(moving, [-int(d) for d in displacement], range(moving.ndim))
        return Prediction(u, moved, log_variance, None if log_variance is None else np.ones_like(moving))

    return predict


def volume(shift=0, depth=8):
    """3-D pair: a heart in the inner slices of the last axis, `shift` voxels further along axis 0 when fixed."""
    labels = [np.zeros((32, 32, depth), np.uint8) for _ in range(2)]
    for values, centre in zip(labels, ((14, 14), (14 + shift, 14)), strict=True):
        values[..., 2:-1] = heart(centre=centre)[..., None]
    images = [image(values) for values in labels]
    return Pair("volume", "p1", None, None, *images, *labels, (2.0, 0.5, 5.0))
