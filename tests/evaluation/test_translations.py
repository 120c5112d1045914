"""Whether a registration follows translations: 0 is measured for one that does, else the motion."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from hetmorph import data
from hetmorph.evaluation.translations import departure, framed, overlap, shifted


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
    assert overlap(following, labelled, (4, -2), [1, 2]) == pytest.approx(1)
    assert overlap(standing, labelled, (2, 0), [1]) == pytest.approx(0.5)
    assert np.isnan(overlap(standing, labelled, (0, 0), [7]))
