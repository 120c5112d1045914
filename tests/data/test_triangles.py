"""Triangles and circles: where they are, and that they are the original's."""

import numpy as np
import pytest

from hetmorph.data import load
from hetmorph.data.triangles import SHAPES, draw, shape
from tests.golden import icon_recipes as recipes
from tests.networks.models import GOLDEN


@pytest.mark.parametrize("hollow", [False, True])
def test_they_are_the_originals(hollow):
    """Whose filled ones go from −1 to 1; half a thousandth is what half precision keeps of them."""
    with np.load(GOLDEN / "icon.npz") as arrays:
        expected = arrays["hollow" if hollow else "filled"]
    drawn = zip(*recipes.shapes_drawn(8, len(expected)), strict=True)
    images = [draw(*one, size=expected.shape[1:], hollow=hollow)[0] for one in drawn]
    np.testing.assert_allclose(images, expected if hollow else (expected + 1) / 2, atol=1e-3)


def test_areas_are_those_of_circles_and_triangles():
    for triangle, area in ((False, np.pi), (True, 3 * np.sqrt(3) / 4)):
        for size in ((129, 129), (129, 201), (201, 129)):
            image, labels = draw((0.5, 0.5), 0.3, 0.4, triangle, size)
            assert labels.sum() == pytest.approx(area * (0.3 * 128) ** 2, rel=0.01)
            center = np.argwhere(labels).mean(0)
            np.testing.assert_allclose(center, (np.array(size) - 1) / 2, atol=0.5)
            np.testing.assert_array_equal(image > 0.5, labels == 1)


def test_of_hollow_ones_the_contour_is_bright_and_the_label_the_inside():
    image, labels = draw((0.5, 0.5), 0.3, 0.0, False, (128, 128), hollow=True)
    assert image[64, 64] < 1e-3 and labels[64, 64] == 1 and image.max() > 0.9
    filled, inside = draw((0.5, 0.5), 0.3, 0.0, False, (128, 128))
    np.testing.assert_array_equal(labels, inside)
    assert filled[64, 64] > 0.999


def test_half_are_triangles_and_each_is_seen():
    shapes = [shape(number) for number in range(SHAPES)]
    assert np.mean([one["triangle"] for one in shapes]) == pytest.approx(0.5, abs=0.05)
    assert shape(3) == shapes[3] != shape(3, seed=1)
    for one in shapes[:50]:
        image, labels = draw(**one, size=(32, 32))
        assert image.min() >= 0 and image.max() <= 1 and 20 < labels.sum() < 600


def test_as_a_set_they_are_pairs_of_shapes():
    loaded = load("triangles", split="test", size=(16, 24))
    assert {name: len(part) for name, part in loaded.splits.items()} == {"train": 750, "val": 100, "test": 150}
    assert len(loaded.pairs) == 150 and loaded.main == "shape"
    pair = loaded.pairs[0]
    assert pair.moving.shape == (16, 24) and set(np.unique(pair.fixed_labels)) == {0, 1}
    hollow = load("triangles-hollow", split="test", size=(16, 24)).pairs[0]
    assert hollow.case_id == pair.case_id and not np.allclose(hollow.fixed, pair.fixed)
    np.testing.assert_array_equal(hollow.fixed_labels, pair.fixed_labels)


@pytest.mark.parametrize("size", [(7, 64), (64,)])
def test_impossible_requests_are_refused(size):
    with pytest.raises(ValueError, match="at least 8 voxels"):
        draw((0.5, 0.5), 0.3, 0.0, False, size)
