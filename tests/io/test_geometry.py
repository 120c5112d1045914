"""Grids, resampling by header and displacements between grids: laws and independent references."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from nibabel.processing import resample_from_to

from hetmorph.io import (
    Grid,
    Transform,
    convert_displacement,
    from_slices,
    model_grid,
    resample,
    through_plane,
)
from tests.io.worlds import GRIDS_2D, GRIDS_3D, TURN, moving_of, ramps, smooth_transform

every_grid = pytest.mark.parametrize("grid", [*GRIDS_3D.values(), *GRIDS_2D.values()])
every_volume = pytest.mark.parametrize("grid", GRIDS_3D.values(), ids=GRIDS_3D.keys())


@every_grid
def test_index_and_world_are_inverse(grid, rng):
    index = rng.uniform(-5, 20, (30, grid.ndim))
    np.testing.assert_allclose(grid.index(grid.world(index)), index, atol=1e-9)
    if grid.ndim == 3:
        np.testing.assert_allclose(grid.world(index), nib.affines.apply_affine(grid.affine, index))


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1, np.nan, 1, 1]), "finite"),
        (np.diag([1, np.inf, 1, 1]), "finite"),
        (np.diag([1, 0, 1, 1]), "parallel or zero"),
        (np.eye(3), "finite affine"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "parallel"),
    ],
)
def test_an_affine_that_places_no_voxels_is_refused(affine, message):
    with pytest.raises(ValueError, match=message):
        Grid((3, 4, 5), affine)


def test_a_plane_needs_no_third_axis():
    grid = Grid((3, 4), np.diag([2.0, 3, 0, 1]))
    np.testing.assert_allclose(grid.affine[:3, 2], [0, 0, 1])
    assert grid.spacing == (2, 3)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASL", "PIR"])
@every_volume
def test_reorienting_moves_voxels_and_changes_none(grid, orientation, rng):
    array = rng.integers(0, 1000, grid.shape).astype(np.int16)
    turned = model_grid(grid, orientation=orientation)
    assert nib.aff2axcodes(turned.affine) == tuple(orientation)
    there = resample(array, grid, turned)
    expected = nib.as_closest_canonical(nib.Nifti1Image(array, grid.affine)) if orientation == "RAS" else None
    assert there.dtype == np.int16
    assert sorted(there.ravel()) == sorted(array.ravel())
    if expected is not None:
        np.testing.assert_array_equal(there, expected.dataobj)
        np.testing.assert_allclose(turned.affine, expected.affine)
    np.testing.assert_array_equal(resample(there, turned, grid), array)


@every_grid
def test_resampling_finds_the_same_place(grid):
    # ramps of the world: a linear image on the source must be the same linear image on the target
    target = moving_of(grid)
    world = grid.world(grid.indices()).astype(np.float64)
    where = grid.index(target.world(target.indices()))
    inside = ((where > 2) & (where < np.array(grid.shape) - 3)).all(-1)
    assert inside.any()
    for axis in range(3):
        there = resample(world[..., axis], grid, target, outside=0)
        expected = target.world(target.indices())[..., axis]
        np.testing.assert_allclose(there[inside], expected[inside], atol=1e-3)


@every_volume
def test_linear_resampling_equals_nibabel(grid, rng):
    array = rng.normal(size=grid.shape)
    target = Grid((10, 12, 7), grid.affine @ from_matvec(TURN * 0.6, [2.1, 1.3, 1.7]))
    ours = resample(array, grid, target)
    theirs = resample_from_to(nib.Nifti1Image(array, grid.affine), (target.shape, target.affine), order=1, cval=0)
    where = grid.index(target.world(target.indices()))
    inside = ((where > 0) & (where < np.array(grid.shape) - 1)).all(-1)
    outside = ((where < -0.6) | (where > np.array(grid.shape) - 0.4)).any(-1)
    np.testing.assert_allclose(ours[inside], theirs.get_fdata()[inside], atol=1e-4)
    assert (ours[outside] == 0).all()
    assert inside.any() and outside.any()


def test_a_coarser_grid_averages_and_a_finer_one_does_not(rng):
    grid = Grid((32, 32, 4), np.eye(4))
    checks = np.indices(grid.shape).sum(0) % 2 * 1.0
    coarse = model_grid(grid, spacing=(2, 2, None))
    assert coarse.shape == (16, 16, 4)
    np.testing.assert_allclose(resample(checks, grid, coarse)[2:-2, 2:-2], 0.5, atol=0.02)
    finer = model_grid(grid, spacing=0.5)
    assert resample(checks, grid, finer).max() > 0.95
    shifted = Grid((8, 8, 4), np.diag([4.0, 4, 1, 1]))  # whole steps: not a plain reordering
    np.testing.assert_allclose(resample(checks, grid, shifted)[1:-1, 1:-1], 0.5, atol=0.02)


@every_volume
def test_the_model_sees_the_same_centre_and_all_of_the_image(grid):
    for options in ({"spacing": 1.3}, {"shape": (8, 20, 8)}, {"spacing": (1, None, 2), "shape": (None, 7, None)}):
        seen = model_grid(grid, **options)
        middles = [one.world((np.array(one.shape) - 1) / 2) for one in (grid, seen)]
        np.testing.assert_allclose(*middles, atol=1e-9)
    covering = model_grid(grid, spacing=1.3)
    corners = covering.index(grid.world(grid.corners()))
    assert corners.min() > -0.5 - 1e-6 and (corners < np.array(covering.shape) - 0.5 + 1e-6).all()


def test_the_slice_axis_comes_last():
    grid = Grid((6, 30, 40), np.diag([8.0, 1.5, 1.5, 1]))
    assert through_plane(grid) == 0
    stack = model_grid(grid, slice_axis=through_plane(grid))
    assert stack.shape == (30, 40, 6) and stack.spacing == (1.5, 1.5, 8)
    assert through_plane(GRIDS_3D["plain"]) == 2
    array = np.random.default_rng(0).normal(size=grid.shape)
    np.testing.assert_array_equal(resample(array, grid, stack), np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    "options",
    [
        {"orientation": "RAS", "slice_axis": 1},
        {"orientation": "XYZ"},
        {"orientation": "RA"},
        {"orientation": "RRS"},
        {"slice_axis": 3},
        {"spacing": (1, 1)},
        {"spacing": 0},
        {"spacing": np.nan},
        {"shape": (4, 0, 4)},
    ],
)
def test_impossible_model_grids_are_refused(options):
    with pytest.raises(ValueError):
        model_grid(GRIDS_3D["plain"], **options)


@every_grid
def test_a_displacement_on_another_grid_is_the_same_mapping(grid, rng):
    # a field linear in the index is the same function on every grid: exact wherever the source has voxels
    n = grid.ndim
    matrix, shift = rng.normal(0, 0.05, (n, n)), rng.normal(0, 1, n)
    transform = Transform(grid.indices() @ matrix.T + shift, grid)
    target = moving_of(grid)
    there = transform.on(target)
    where = grid.index(target.world(target.indices()))
    inside = ((where >= 0) & (where <= np.array(grid.shape) - 1)).all(-1)
    expected = grid.world(where + where @ matrix.T + shift)
    got = target.world(target.indices() + there.displacement)
    assert inside.any()
    np.testing.assert_allclose(got[inside], expected[inside], atol=2e-5)


@every_volume
def test_a_displacement_comes_back_unchanged_from_a_reordered_grid(grid, rng):
    transform = smooth_transform(rng, grid)
    turned = model_grid(grid, orientation="PIR")
    back = transform.on(turned).on(grid)
    np.testing.assert_allclose(back.displacement, transform.displacement, atol=1e-5)


@every_grid
def test_a_fine_grid_of_the_model_loses_little(grid, rng):
    transform = smooth_transform(rng, grid)
    fine = model_grid(grid, spacing=[s / 4 for s in grid.spacing])
    back = transform.on(fine).on(grid)
    assert np.abs(back.displacement - transform.displacement).max() < 0.12 * np.abs(transform.displacement).max()


def test_zero_and_constant_displacements_stay_what_they_are():
    grid = GRIDS_3D["oblique flipped permuted"]
    target = moving_of(grid)
    assert not convert_displacement(np.zeros((*grid.shape, 3), np.float32), grid, target).any()
    moved = Transform(np.zeros((*grid.shape, 3)) + [1, -2, 0.5], grid).on(target)
    np.testing.assert_allclose(moved.displacement @ target.linear.T - grid.linear @ [1, -2, 0.5], 0, atol=1e-5)


def test_slices_become_a_volume_without_motion_across(rng):
    slices = [rng.normal(size=(5, 4, 2)) for _ in range(3)]
    volume = from_slices(slices)
    assert volume.shape == (5, 4, 3, 3)
    np.testing.assert_array_equal(volume[:, :, 1, :2], slices[1])
    assert not volume[..., 2].any()


def test_images_that_do_not_overlap_are_refused():
    grid = GRIDS_3D["plain"]
    away = Grid(grid.shape, from_matvec(np.eye(3), [1000, 0, 0]))
    with pytest.raises(ValueError, match="do not overlap"):
        resample(np.zeros(grid.shape), grid, away)


def test_planes_apart_are_refused():
    one, other = (Grid((5, 6), from_matvec(turn, [0, 0, 0])) for turn in (np.eye(3), TURN))
    with pytest.raises(ValueError, match="different planes"):
        resample(np.zeros((5, 6)), one, other)


def test_wrong_shapes_are_refused(rng):
    grid = GRIDS_3D["plain"]
    with pytest.raises(ValueError, match="expected an array"):
        resample(np.zeros((3, 4, 5)), grid, moving_of(grid))
    with pytest.raises(ValueError, match="expected a displacement"):
        convert_displacement(np.zeros((*grid.shape, 2)), grid, moving_of(grid))
    with pytest.raises(ValueError, match="as many axes"):
        resample(np.zeros(grid.shape), grid, GRIDS_2D["plain"])
    with pytest.raises(ValueError, match="one of"):
        resample(np.zeros(grid.shape), grid, moving_of(grid), method="best")


def test_frames_are_resampled_together(rng):
    grid = GRIDS_3D["oblique"]
    cine = rng.normal(size=(*grid.shape, 3)).astype(np.float32)
    target = moving_of(grid)
    together = resample(cine, grid, target)
    for t in range(3):
        np.testing.assert_array_equal(together[..., t], resample(cine[..., t], grid, target))
    assert len(ramps(grid)) == 3


def test_slab_by_slab_is_the_same(rng, monkeypatch):
    from hetmorph.io import geometry, warp_image

    grid = GRIDS_3D["oblique"]
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    array = rng.normal(size=moving.shape)

    def everything():
        there = resample(array, moving, grid)
        return there, transform.on(moving).displacement, warp_image(transform, array, moving)

    whole = everything()
    monkeypatch.setattr(geometry, "_SLAB", 3 * grid.shape[1] * grid.shape[2])
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("spacing", "message"), [(0.001, "makes 15000 × 15000 .* voxels"), (5000, "a single voxel")])
def test_a_spacing_that_cannot_be_meant_is_refused(spacing, message):
    grid = Grid((10, 10, 8), np.diag([1.5, 1.5, 2.0, 1.0]))
    with pytest.raises(ValueError, match=message):
        model_grid(grid, spacing)
    assert model_grid(grid, 0.5).shape == (30, 30, 32) and model_grid(grid, 7.5).shape == (2, 2, 3)
    assert model_grid(Grid((10, 10, 1), grid.affine), 2.0).shape[2] == 1  # one slice stays one
