import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hetmorph.metrics import asd, assd, hausdorff, hausdorff95, surface, surface_distances
from tests.reference_metrics import directed_distances, sitk_hausdorff

METRICS = [hausdorff, hausdorff95, assd, asd]
MASKS = arrays(bool, (6, 7))
SPACINGS = {2: [(1.0, 1.0), (0.7, 1.9)], 3: [(1.0, 1.0, 1.0), (0.8, 1.5, 6.0)]}
CASES = [(shape, spacing) for shape in [(14, 11), (6, 8, 7)] for spacing in SPACINGS[len(shape)]]


def two_blobs(rng, shape):
    """Two ragged, partly hollow masks that overlap in part."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), -1)
    radius = np.linalg.norm(grid, axis=-1) + 0.2 * rng.random(shape)
    return (radius < 0.9) & (radius > 0.35), np.linalg.norm(grid - 0.25, axis=-1) < 0.7


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_agrees_with_the_full_table_of_distances(rng, shape, spacing):
    a, b = two_blobs(rng, shape)
    to_b, to_a = directed_distances(a, b, spacing), directed_distances(b, a, spacing)
    assert hausdorff(a, b, spacing) == pytest.approx(max(to_b.max(), to_a.max()))
    percentiles = [np.percentile(d, 95) for d in (to_b, to_a)]
    assert hausdorff95(a, b, spacing) == pytest.approx(max(percentiles))
    assert assd(a, b, spacing) == pytest.approx(np.concatenate([to_b, to_a]).mean())
    assert asd(a, b, spacing) == pytest.approx(to_b.mean())


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_the_map_has_the_distances_where_they_are(rng, shape, spacing):
    a, b = two_blobs(rng, shape)
    distances = surface.surface_distance_map(a, b, spacing)
    known = np.isfinite(distances)
    np.testing.assert_array_equal(known, a & ~ndimage.binary_erosion(a))
    np.testing.assert_allclose(np.sort(distances[known]), np.sort(surface_distances(a, b, spacing)[0]))
    np.testing.assert_allclose(
        distances[known], ndimage.distance_transform_edt(ndimage.binary_erosion(b) | ~b, spacing)[known]
    )
    assert np.isnan(surface.surface_distance_map(a, np.zeros(shape, bool))).all()


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_hausdorff_agrees_with_simpleitk(rng, shape, spacing):
    a, b = two_blobs(rng, shape)
    assert hausdorff(a, b, spacing) == pytest.approx(sitk_hausdorff(a, b, spacing), rel=1e-5)


@given(MASKS, MASKS)
@settings(max_examples=40, deadline=None)
def test_symmetric_but_for_the_one_way_distance(a, b):
    assume(a.any() and b.any())
    for metric in (hausdorff, hausdorff95, assd):
        assert metric(a, b) == pytest.approx(metric(b, a))
    assert asd(a, b) == pytest.approx(surface_distances(b, a)[1].mean())


@given(MASKS)
@settings(max_examples=30, deadline=None)
def test_zero_to_itself(mask):
    assume(mask.any())
    assert [metric(mask, mask) for metric in METRICS] == [0, 0, 0, 0]


@given(MASKS, MASKS, st.tuples(st.integers(0, 4), st.integers(0, 4)))
@settings(max_examples=30, deadline=None)
def test_moving_both_masks_changes_nothing(a, b, shift):
    assume(a.any() and b.any())
    moved = []
    for mask in (a, b):
        room = np.zeros((14, 15), bool)
        room[1 + shift[0] : 7 + shift[0], 1 + shift[1] : 8 + shift[1]] = mask
        moved.append(room)
    still = [np.pad(mask, 4) for mask in (a, b)]
    for metric in METRICS:
        assert metric(*moved) == pytest.approx(metric(*still))


@given(MASKS, MASKS, st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_distances_scale_with_the_spacing(a, b, factor):
    assume(a.any() and b.any())
    for metric in METRICS:
        assert metric(a, b, (factor, factor)) == pytest.approx(factor * metric(a, b))


@given(MASKS, MASKS)
@settings(max_examples=30, deadline=None)
def test_maximum_bounds_the_robust_and_the_mean_distances(a, b):
    assume(a.any() and b.any())
    assert hausdorff(a, b) >= hausdorff95(a, b)
    assert hausdorff(a, b) >= assd(a, b)


def test_a_shifted_square_is_as_far_as_the_shift():
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[3:10, 3:10] = True
    b[8:15, 3:10] = True
    assert hausdorff(a, b) == 5
    assert hausdorff(a, b, (2.0, 1.0)) == 10


def test_one_stray_voxel_moves_the_maximum_only():
    a = np.zeros((40, 40), bool)
    a[10:30, 10:30] = True
    b = a.copy()
    b[39, 39] = True
    assert hausdorff(a, b) == pytest.approx(np.hypot(10, 10))
    assert hausdorff95(a, b) == 0
    assert asd(a, b) == 0, "from the truth, a surplus of the prediction does not count"
    assert asd(b, a) > 0


def test_the_hole_of_a_ring_is_surface():
    disc = np.hypot(*(np.indices((31, 31)) - 15)) < 12
    ring = disc & (np.hypot(*(np.indices((31, 31)) - 15)) > 6)
    assert hausdorff(disc, ring) > 4


def test_the_border_of_the_image_counts_as_outside():
    centre = np.zeros((3, 3))
    centre[1, 1] = 1
    to_centre, _ = surface_distances(np.ones((3, 3)), centre)
    assert sorted(to_centre) == pytest.approx([1] * 4 + [np.sqrt(2)] * 4)


def test_single_voxels():
    a, b = np.zeros((5, 5, 5)), np.zeros((5, 5, 5))
    a[0, 0, 0] = b[3, 4, 0] = 1
    assert [metric(a, b, (1, 1, 2)) for metric in METRICS] == [5, 5, 5, 5]


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_mask_has_no_distance(metric):
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    for pair in [(empty, full), (full, empty), (empty, empty)]:
        assert np.isnan(metric(*pair))


@pytest.mark.parametrize("spacing", [(1,), (1, 0), (1, -1), (1, np.nan), (1, 1, 1), 1.0])
def test_refuses_a_spacing_that_does_not_fit(spacing):
    with pytest.raises(ValueError, match="2 positive numbers"):
        hausdorff(np.ones((3, 3)), np.ones((3, 3)), spacing)


@pytest.mark.parametrize("metric", METRICS)
def test_refuses_soft_masks_and_nan(metric):
    for bad in (np.full((3, 3), 0.3), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="binary"):
            metric(np.ones((3, 3)), bad)
