import io

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from hetmorph.viz.rasters import LEVELS, NOTHING, SPECIAL, Scale, png, reduced, spread


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 33)])
def test_a_png_is_read_back_by_another_library(rng, shape):
    entries, palette = rng.integers(0, 256, shape).astype(np.uint8), rng.integers(0, 256, (256, 3)).astype(np.uint8)
    read = imread(io.BytesIO(png(entries, palette)))
    np.testing.assert_array_equal(np.rint(read[..., :3] * 255), palette[entries])
    np.testing.assert_array_equal(read[..., 3] == 0, entries == NOTHING)


def test_colours_are_those_of_the_map():
    scale = Scale(-2, 2, "RdBu_r", "")
    values = np.linspace(-2, 2, 50)[None]
    expected = colormaps["RdBu_r"]((values + 2) / 4)[..., :3]
    assert np.abs(scale.palette()[scale.index(values)] / 255 - expected).max() < 0.02


def test_what_lies_beyond_or_is_not_known():
    scale = Scale(1, 3, "viridis", "")
    np.testing.assert_array_equal(
        scale.index(np.array([0, 1, 3, 9, np.nan, np.inf])), [0, 0, LEVELS - 1, LEVELS - 1, NOTHING, NOTHING]
    )


def test_a_logarithmic_scale_has_one_in_its_middle_and_folds_in_their_own_colour():
    scale = Scale(0.25, 4, "PuOr", "", centre=1.0, logarithmic=True)
    index = scale.index(np.array([0.5, 1, 2, 0, -3, np.nan])).astype(int)
    assert index[0] + index[2] == pytest.approx(LEVELS - 1, abs=1) and abs(index[1] - (LEVELS - 1) / 2) <= 0.5
    assert [*index[3:]] == [SPECIAL, SPECIAL, NOTHING]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_blocks_are_means_without_what_is_not_known(rng, factor):
    values = rng.normal(size=(6 * factor, 4 * factor))
    values[:factor, :factor] = np.nan
    values[-1, -1] = np.nan
    got = reduced(values, factor)
    assert got.shape == (6, 4) and np.isnan(got[0, 0])
    for i, j in ((2, 1), (5, 3)):
        block = values[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
        if np.isfinite(block).any():
            assert got[i, j] == pytest.approx(np.nanmean(block))


def test_a_last_block_that_is_not_full_repeats_its_border():
    np.testing.assert_array_equal(reduced(np.array([[1.0, 2, 5]]), 2), [[1.5, 5]])
    np.testing.assert_array_equal(reduced(np.array([[1.0, 2, 5]]), 2, np.min), [[1, 5]])


def test_limits_of_maps_without_spread():
    assert spread([None, np.full(3, np.nan)], 0, 100) == (0, 1)
    low, high = spread([np.full((2, 2), 3.0)], 1, 99)
    assert low == 3 < high
