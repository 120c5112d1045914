import itertools
import re

import nibabel as nib
import numpy as np
import pytest

from hetmorph.viz.view import MOST_SLICES, view_of


def points(path):
    return [np.array([[*map(float, p.split(","))] for p in line.split("L")]) for line in path.split("M")[1:]]


def test_without_an_affine_axis_0_runs_across_and_axis_1_down(rng):
    image, volume = rng.normal(size=(5, 7)), rng.normal(size=(4, 5, 6))
    np.testing.assert_array_equal(view_of((5, 7), (1, 1)).picture(image, 0), image.T)
    view = view_of((4, 5, 6), (1, 1, 1))
    assert view.through == 2 and not view.sides
    np.testing.assert_array_equal(view.picture(volume, 3), volume[..., 3].T)


def test_slices_lie_along_the_widest_spacing_unless_told():
    assert view_of((4, 5, 6), (1, 8, 1)).through == 1
    assert view_of((4, 5, 6), (1, 8, 1), axis=0).through == 0


ORIENTATIONS = [*itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))]


@pytest.mark.parametrize("axis", range(3))
def test_pictures_are_turned_as_radiologists_read_from_any_orientation(rng, axis):
    """Against nibabel's canonical array: x to the right of the patient, y to anterior, z to superior."""
    canonical = rng.normal(size=(4, 5, 6))
    pictures = {
        0: lambda i: canonical[i, ::-1, ::-1].T,
        1: lambda i: canonical[::-1, i, ::-1].T,
        2: lambda i: canonical[::-1, ::-1, i].T,
    }
    sides = {0: "APSI", 1: "RLSI", 2: "RLAP"}
    for order, signs in ORIENTATIONS:
        transform = np.stack([np.array(order), np.array(signs)], 1).astype(float)
        values = nib.orientations.apply_orientation(canonical, transform)
        affine = nib.orientations.inv_ornt_aff(transform, canonical.shape)
        through = order[axis]
        view = view_of(values.shape, (1, 1, 1), affine, axis=through)
        index = 1 if signs[axis] == 1 else canonical.shape[axis] - 2
        np.testing.assert_array_equal(view.picture(values, index), pictures[axis](1))
        assert "".join(view.sides[side] for side in ("left", "right", "top", "bottom")) == sides[axis]


def test_an_image_of_a_known_orientation_is_lettered_too():
    view = view_of((5, 7), (1, 1), np.diag([-2.0, -2, 2, 1]))
    assert (view.sides["left"], view.sides["top"], view.flipped) == ("R", "A", (False, False))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]]
    assert sorted(view_of((5, 7), (1, 1), turn).sides["left"]) in (["A", "R"], ["P", "R"])


@pytest.mark.parametrize("affine", [None, np.diag([1.0, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]])
def test_points_are_placed_where_the_picture_shows_their_voxel(affine):
    shape, spacing = (5, 7), (2.0, 3.0)
    view = view_of(shape, spacing, affine)
    image = np.zeros(shape)
    image[1, 4] = 1
    (row,), (column,) = np.nonzero(view.picture(image, 0))
    plane = np.zeros(2)
    plane[:] = [(1, 4)[view.across], (1, 4)[view.down]]
    np.testing.assert_allclose(view.place(plane), (np.array([column, row]) + 0.5) * view.scale)
    assert view.unit_mm == 2 and sorted(view.scale) == [1, 1.5]
    np.testing.assert_allclose(view.size, np.array(view.picture(image, 0).shape[::-1]) * view.scale)


def test_a_contour_lies_where_the_values_pass_the_level():
    x = np.indices((9, 6))[0]
    (line,) = points(view_of((9, 6), (1, 1)).contour(x - 3.5, 0, 0.0))
    np.testing.assert_allclose(line[:, 0], 4.0)
    assert sorted(line[:, 1])[0] == 0.5 and sorted(line[:, 1])[-1] == 5.5
    assert view_of((9, 6), (1, 1)).contour(x + 1, 0, 0.0) == ""


def test_an_outline_is_closed_at_the_border_and_encloses_its_voxels():
    mask = np.zeros((12, 10), bool)
    mask[:5, 2:8] = True
    (line,) = points(view_of((12, 10), (1, 1)).outline(mask, 0))
    np.testing.assert_allclose(line[0], line[-1])
    x, y = line[:-1].T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert mask.sum() - 0.6 <= area <= mask.sum(), "the corners are cut"
    assert view_of((12, 10), (1, 1)).outline(np.zeros((12, 10), bool), 0) == ""


def test_the_grid_follows_the_displacement():
    view = view_of((16, 16), (1, 1))
    still, shifted = (points(view.grid(np.full((16, 16, 2), u, np.float32), 0)) for u in (0, (3, -1)))
    assert len(still) == 2 * 8 and view.step == 2
    np.testing.assert_allclose(still[1][:, 0], 2.5)
    for one, other in zip(still, shifted, strict=True):
        np.testing.assert_allclose(other - one, np.broadcast_to((3, -1), one.shape), atol=1e-6)


def test_slices_are_few_evenly_spread_and_within_the_region():
    region = np.zeros((20, 20, 60), bool)
    region[5, 5, 10:51] = True
    view = view_of(region.shape, (1, 1, 1), region=region, start=30)
    assert len(view.slices) == MOST_SLICES and (view.slices[0], view.slices[-1]) == (10, 50)
    assert set(np.diff(view.slices)) <= {2, 3} and abs(view.start - 30) <= 1
    assert len(view_of((250, 256, 60), (1, 1, 1)).slices) == 6
    assert view_of((20, 20, 3), (1, 1, 1)).slices == (0, 1, 2)
    assert len(view_of((2000, 2000, 60), (1, 1, 1)).slices) == 6


def test_no_path_holds_what_is_not_finite():
    field = np.zeros((8, 8, 2), np.float32)
    field[4, 4] = np.nan
    assert not re.search("nan|inf", view_of((8, 8), (1, 1)).grid(field, 0))
