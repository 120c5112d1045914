"""Whether a registration follows motion: 0 is measured for one that does, else the motion."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest

from hetmorph import data
from hetmorph.evaluation.motions import departure, framed, overlap, shifted, turned
from hetmorph.io.chain import Linear


@pytest.fixture
def pair(rng):
    images = dict(zip(("moving", "fixed"), rng.uniform(0.1, 1, (2, 12, 10)).astype("float32"), strict=True))
    plain = data.load("phantom", split="test", size=(32, 32)).pairs[0]
    labels = dict.fromkeys(("moving_labels", "fixed_labels", "displacement", "sigma", "foreground"))
    return framed(dataclasses.replace(plain, **images, **labels), 6)


def standing(moving, fixed):
    return SimpleNamespace(displacement=np.zeros((*moving.shape, moving.ndim)))


def following(moving, fixed):
    """From the middle of what is not 0 of either image."""
    middles = [np.argwhere(image).mean(0) for image in (moving, fixed)]
    return SimpleNamespace(displacement=np.broadcast_to(middles[0] - middles[1], (*moving.shape, moving.ndim)))


def test_an_image_is_moved_by_whole_voxels():
    image = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(shifted(image, (1, -1)), [[0, 4, 5, 6], [0, 8, 9, 10], [0, 0, 0, 0]])
    np.testing.assert_array_equal(shifted(image, (0, 9)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="whole voxels"):
        shifted(image, (0.5, 0))


def test_an_image_is_turned_about_its_middle():
    image = np.zeros((5, 5), np.float32)
    image[4, 2] = 1.0  # at the end of the first axis
    np.testing.assert_allclose(turned(image, 90)[2, 4], 1, atol=1e-6)
    smooth = np.exp(-np.sum((np.indices((31, 31)) - [[[12]], [[18]]]) ** 2, 0) / 20)
    np.testing.assert_allclose(turned(turned(smooth, 30), -30), smooth, atol=0.05)
    labels = np.pad(np.full((9, 9), 7, np.uint8), 5)
    assert set(np.unique(turned(labels, 33))) == {0, 7} and turned(labels, 33).dtype == np.uint8
    volume = np.stack([image, 2 * image], -1)
    np.testing.assert_allclose(turned(volume, 40)[..., 1], 2 * turned(image, 40), atol=1e-6)


def test_what_stands_still_follows_both_images_together_alone(pair):
    assert departure(standing, pair, (3, -2), (3, -2)) == 0
    assert departure(standing, pair, (3, -2), (0, 2)) == pytest.approx(5)


def test_what_follows_departs_from_nothing(pair):
    assert departure(following, pair, (3, -2), (-5, 6)) < 1e-9
    assert departure(following, pair, (3, -2), (0, 0), following(pair.moving, pair.fixed).displacement) < 1e-9


def test_the_overlap_is_that_of_the_moved_labels(pair):
    labels = np.zeros(pair.moving.shape, "uint8")
    labels[10:14, 9:13], labels[5, 5] = 1, 2
    labelled = dataclasses.replace(pair, fixed=pair.moving, moving_labels=labels, fixed_labels=labels)
    by = {by: functools.partial(shifted, by=by) for by in ((4, -2), (2, 0), (0, 0))}
    assert overlap(following, labelled, by[4, -2], [1, 2]) == pytest.approx(1)
    assert overlap(standing, labelled, by[2, 0], [1]) == pytest.approx(0.5)
    assert np.isnan(overlap(standing, labelled, by[0, 0], [7]))
    shift = Linear(np.eye(4) - 2 * pair.spacing[0] * np.eye(4)[:, :1] * np.eye(4)[3])
    assert overlap(standing, labelled, by[2, 0], [1, 2], lambda moving, fixed: shift) == pytest.approx(1)
    assert overlap(standing, labelled, functools.partial(turned, degrees=180), [2]) == 0
