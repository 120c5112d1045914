"""Random transforms: what they are at any point, within which limits, and in which order they compose."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import BSpline as Reference

from hetmorph.data.transforms import (
    FAMILIES,
    BSpline,
    Composition,
    Family,
    Rotation,
    Scale,
    Shear,
    Translation,
    displacement_of,
    family,
)
from hetmorph.io.geometry import grid_points
from hetmorph.transforms.sampling import inside

SHAPES = [(33, 40), (17, 20, 24)]


def parts(one, ndims):
    """Matrix, and image of the origin, of an affine map."""
    origin = one(np.zeros((1, ndims)))[0]
    return (one(np.eye(ndims)) - origin).T, origin


def draws(which, shape, count=200):
    rng = np.random.default_rng(0)
    return [which.draw(rng, shape) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
def test_translations_reach_their_share_of_each_axis(shape):
    ndims = len(shape)
    matrices, shifts = zip(*(parts(one, ndims) for one in draws(Translation(0.1), shape)), strict=True)
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(ndims), np.shape(matrices)), atol=1e-12)
    largest = np.abs(shifts).max(0)
    assert (largest <= 0.1 * np.array(shape)).all() and (largest > 0.09 * np.array(shape)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("which", [Shear(0.1), Scale(0.5, 1.5), Rotation(30)])
def test_linear_maps_keep_the_middle_and_their_limits(shape, which):
    ndims, centre = len(shape), (np.array(shape) - 1) / 2
    for one in draws(which, shape, 50):
        np.testing.assert_allclose(one(centre[None])[0], centre, atol=1e-12)
        matrix, _ = parts(one, ndims)
        if isinstance(which, Shear):
            np.testing.assert_allclose(np.diag(matrix), 1)
            assert np.abs(matrix - np.eye(ndims)).max() <= 0.1
        elif isinstance(which, Scale):
            np.testing.assert_allclose(matrix, matrix[0, 0] * np.eye(ndims), atol=1e-12)
            assert 0.5 <= matrix[0, 0] <= 1.5
        else:
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(ndims), atol=1e-12)
            assert np.linalg.det(matrix) > 0
            cosine = (np.trace(matrix) - (ndims == 3)) / 2
            assert cosine >= np.cos(np.deg2rad(30)) - 1e-9


def test_rotations_in_space_have_axes_of_any_direction():
    matrices = np.array([parts(one, 3)[0] for one in draws(Rotation(30), (9, 9, 9), 50)])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(matrices[:, i, j]).max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_splines_are_cubic_b_splines_anywhere(rng, shape):
    """Against scipy's, one axis after the other, at points between the voxels."""
    spacing = 6.0
    one = BSpline(spacing, 3.0).draw(rng, shape)
    points = rng.uniform(0, np.array(shape) - 1, (50, len(shape)))
    counts = [int(np.ceil((size - 1) / spacing)) + 3 for size in shape]
    coefficients = one._coefficients.reshape(len(shape), *counts)
    bump = Reference.basis_element(np.arange(-2, 3), extrapolate=False)
    for point, moved in zip(points, one(points), strict=True):
        expected = coefficients
        for x, count in zip(point, counts, strict=True):
            expected = np.tensordot(expected, np.nan_to_num(bump(x / spacing - np.arange(-1, count - 1))), (1, 0))
        np.testing.assert_allclose(moved - point, expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_splines_on_the_grid_are_those_at_its_points(rng, shape):
    one, points = BSpline(5.0, 2.0).draw(rng, shape), grid_points(shape)
    np.testing.assert_allclose(displacement_of(one, points), one(points) - points, atol=1e-5)
    assert np.abs(displacement_of(one, points)).max() <= 2.0


def test_splines_hold_the_border_beyond_it_and_do_not_jump(rng):
    one = BSpline(5.0, 2.0).draw(rng, (21, 21))
    border, beyond = np.array([[20.0, 8.0]]), np.array([[27.0, 8.0]])
    np.testing.assert_allclose(one(beyond) - beyond, one(border) - border, atol=1e-12)
    line = np.stack([np.linspace(-3, 23, 2000), np.full(2000, 7.7)], -1)
    assert np.abs(np.diff(one(line) - line, axis=0)).max() < 0.05


def test_a_spline_below_0_4_of_its_spacing_does_not_fold():
    points = grid_points((40, 40))
    for one in draws(BSpline(8.0, 3.1), (40, 40), 20):
        moved = one(points)
        jacobian = np.stack([np.stack(np.gradient(moved[..., d]), -1) for d in range(2)], -2)
        assert np.linalg.det(jacobian).min() > 0


class Fixed(Family):
    def __init__(self, function):
        self.function = function

    def draw(self, rng, shape):
        return self.function


def test_the_last_of_a_composition_is_applied_first():
    twice, further = Fixed(lambda points: 2 * points), Fixed(lambda points: points + 1)
    point = np.array([[3.0, 5.0]])
    assert Composition((twice, further)).draw(None, (9, 9))(point).tolist() == [[8, 12]]
    assert Composition((further, twice)).draw(None, (9, 9))(point).tolist() == [[7, 11]]
    assert family([twice, further]).draw(None, (9, 9))(point).tolist() == [[8, 12]]


@pytest.mark.parametrize("shape", SHAPES)
def test_affine_maps_composed_at_once_are_those_one_after_the_other(shape):
    families = (Translation(0.1), Rotation(20), BSpline(6, 2), Shear(0.2), Scale(0.5, 2))
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 15, (20, len(shape)))
    whole = Composition(families).draw(np.random.default_rng(3), shape)
    rng, expected = np.random.default_rng(3), points
    for one in reversed([each.draw(rng, shape) for each in families]):
        expected = one(expected)
    np.testing.assert_allclose(whole(points), expected, atol=1e-10)


def test_an_image_is_perturbed_by_the_outer_map_first(rng):
    """(A∘τ₁)∘τ₂ = A∘(τ₁∘τ₂), up to interpolating twice."""
    image = ndimage.gaussian_filter(rng.normal(size=(40, 40)), 3)
    outer = Fixed(lambda points: points + (4, -3))
    inner = Fixed(Composition((Rotation(20), BSpline(10, 3))).draw(rng, (40, 40)))

    def pulled(image, which):
        where = np.moveaxis(which.draw(None, None)(grid_points((40, 40))), -1, 0)
        return ndimage.map_coordinates(image, where, order=3, mode="nearest")

    inner_part = (slice(8, 32), slice(8, 32))
    once = pulled(image, Composition((outer, inner)))[inner_part]
    np.testing.assert_allclose(once, pulled(pulled(image, outer), inner)[inner_part], atol=0.01 * np.ptp(image))
    assert np.abs(once - pulled(pulled(image, inner), outer)[inner_part]).max() > 0.05 * np.ptp(image)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_named_family_is_drawn_from_its_seed_in_2_d_and_3_d(name):
    for shape in SHAPES:
        points = grid_points(shape)
        first, again, other = (family(name).draw(np.random.default_rng(seed), shape)(points) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-3 and np.isfinite(first).all()


def test_the_outermost_voxels_reach_half_a_voxel_out():
    points = np.array([[-0.5, 0.0], [-0.51, 0.0], [3.5, 4.0], [3.0, 4.51], [np.nan, 1.0]])
    assert inside(points, (4, 5)).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("bad", ["wobble", 3, (), None])
def test_what_is_no_family_is_refused(bad):
    with pytest.raises(ValueError, match="transforms must be a Family"):
        family(bad)


def test_a_map_to_nowhere_is_refused():
    points = grid_points((4, 4))
    with pytest.raises(ValueError, match="with NaN or infinity"):
        displacement_of(lambda points: points * np.nan, points)
    with pytest.raises(ValueError, match=r"finite points of that shape, got \(4, 4\)"):
        displacement_of(lambda points: points[..., 0], points)
    with pytest.raises(ValueError, match="2-D and 3-D"):
        Rotation().draw(np.random.default_rng(0), (4,))
