"""The affine stage: a known motion of an analytic anatomy is found to a part of a voxel, by its own kind."""

import dataclasses
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hetmorph.data import phantom
from hetmorph.evaluation import RegistrationFailed
from hetmorph.io import Chain, DataWarning, Grid, Image, Transform, resample
from hetmorph.io.chain import Linear
from hetmorph.io.itk import read_linear, write_linear
from hetmorph.registration import align, register
from hetmorph.registration.linear_search import Level
from tests import anatomy
from tests.io.worlds import TURN, moving_of

pytest.importorskip("SimpleITK")

VOLUME = Grid((24, 26, 20), np.diag([2.0, 2.0, 2.5, 1.0]))
PLANE = Grid((40, 36), np.diag([-1.5, -1.5, 1.0, 1.0]))
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN


def motion(grid, degrees=(0, 0, 0), shift=(0, 0, 0), stretch=1.0):
    """A matrix in the world, its rotation and stretch about the middle of a grid; `shift` in parts of the extent."""
    matrix, centre = np.eye(4), anatomy.middle(grid)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ (
        np.eye(3) * stretch if np.isscalar(stretch) else stretch
    )
    matrix[:3, 3] = centre + np.array(shift) * anatomy.extent(grid) - matrix[:3, :3] @ centre
    return matrix


def moved_by(matrix, grid, own=None):
    """The anatomy of a grid on its own grid, or another, as it looks after a motion."""
    own = own or grid
    places = Linear(np.linalg.inv(matrix)).world(own.world(own.indices().reshape(-1, own.ndim)))
    values = anatomy.intensity(places, anatomy.middle(grid), anatomy.extent(grid) / 5).reshape(own.shape)
    return Image(values.astype(np.float32), own.spacing, own.affine, True, "moving.nii.gz")


def fixed_of(grid):
    return dataclasses.replace(moved_by(np.eye(4), grid), path="fixed.nii.gz")


def error(found, matrix, grid):
    """Largest error in the anatomy, in voxels of the grid."""
    body = anatomy.labels(grid).array > 0
    places = grid.world(np.argwhere(body))
    apart = found.linear.world(places) - Linear(matrix).world(places)
    return np.linalg.norm(apart, axis=-1).max() / min(grid.spacing)


STRETCH = np.array([[1.12, 0.06, 0.0], [0.0, 0.93, 0.0], [0.0, 0.0, 1.0]])
MOTIONS = {
    "rigid": {"degrees": (0, 0, 25)},
    "similarity": {"degrees": (0, 0, -10), "shift": (0.06, -0.05, 0), "stretch": 1.1},
    "affine": {"degrees": (0, 0, 8), "shift": (-0.04, 0.06, 0), "stretch": STRETCH},
}


@pytest.mark.quick("rigid-2-D", "similarity-2-D", "affine-2-D", "affine-3-D")
@pytest.mark.parametrize("grid", [VOLUME, PLANE], ids=["3-D", "2-D"])
@pytest.mark.parametrize("kind", MOTIONS)
def test_a_motion_is_found_by_its_own_kind(kind, grid):
    parts = dict(MOTIONS[kind])
    if grid.ndim == 3:
        parts["degrees"] = np.add(parts["degrees"], (6, -5, 0))
    elif kind == "similarity":
        parts["stretch"] = np.diag([1.1, 1.1, 1.0])
    matrix = motion(grid, **parts)
    found = align(moved_by(matrix, grid), fixed_of(grid), kind)
    assert error(found, matrix, grid) < 0.3
    assert found.after > found.before + 0.1
    angle = np.degrees(Rotation.from_matrix(matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3]))).magnitude())
    assert kind == "affine" or abs(found.rotation_degrees - angle) < 1
    assert abs(found.scale - np.linalg.det(matrix[:3, :3]) ** (1 / grid.ndim)) < 0.03


@pytest.mark.parametrize("start", ["best", "centre"])
def test_a_shift_of_a_third_of_the_image(start):
    matrix = motion(VOLUME, shift=(0.3, 0.3, -0.3))
    found = align(moved_by(matrix, VOLUME), fixed_of(VOLUME), "rigid", start)
    assert error(found, matrix, VOLUME) < 0.3


@pytest.mark.quick("25-part0-mi", "-25-part1-correlation")
@pytest.mark.parametrize("metric", ["mi", "correlation"])
@pytest.mark.parametrize(("degrees", "part"), [(25, (0.3, 0)), (-25, (-0.3, 0)), (0, (0, 0.3)), (-25, (0.2, 0.2))])
def test_a_slice_far_away_of_which_a_part_is_lost(degrees, part, metric):
    """Neither from the headers nor from the centres of mass a gradient leads there, but from turns and shifts."""
    image, grid = phantom.generate(3).fixed, Grid((128, 128), np.diag([1.5, 1.5, 1.0, 1.0]))
    matrix = motion(grid, (0, 0, degrees))
    matrix[:2, 3] += 192 * np.array(part)
    fixed = Image(image, grid.spacing, grid.affine, True, "fixed.nii.gz")
    array = resample(image, grid, grid, through=Linear(np.linalg.inv(matrix)))
    found = align(dataclasses.replace(fixed, array=array, path="moving.nii.gz"), fixed, "rigid", metric=metric)
    places = grid.world(grid.corners() / 2 + 32)
    assert np.abs(found.linear.world(places) - Linear(matrix).world(places)).max() < 0.3


def test_images_that_do_not_meet_are_matched_by_their_centres():
    matrix, away = motion(VOLUME, (0, 0, 9), (3.0, 0, 0)), motion(VOLUME, shift=(3.0, 0, 0))
    own = Grid(VOLUME.shape, away @ VOLUME.affine)
    moving, fixed = moved_by(matrix, VOLUME, own), fixed_of(VOLUME)
    found = align(moving, fixed, "rigid")
    assert found.start == "centre" and error(found, matrix, VOLUME) < 0.3
    assert found.before == 1  # nothing in common
    with pytest.raises(RegistrationFailed, match=r"the rigid stage gets nowhere from its start \(header\)"):
        align(moving, fixed, "rigid", "header")


@pytest.mark.quick("mi")
@pytest.mark.parametrize("metric", ["mi", "correlation"])
def test_metrics(metric):
    """Mutual information does not mind an inverted contrast; neither minds one hot voxel."""
    matrix = motion(VOLUME, (5, -5, 12), (0.1, 0, 0.05))
    moving = moved_by(matrix, VOLUME)
    if metric == "mi":
        moving.array[:] = moving.array.max() - moving.array
    moving.array[1, 1, 1] = 1e5
    assert error(align(moving, fixed_of(VOLUME), "rigid", metric=metric), matrix, VOLUME) < 0.4


@pytest.mark.slow
def test_any_grids():
    """Oblique, flipped, permuted, another field of view; a sheared header, too, which ITK does not know."""
    grid = Grid(VOLUME.shape, OBLIQUE @ VOLUME.affine @ np.diag([1, -1, 1, 1]))
    own = moving_of(grid)
    shear = np.eye(4)
    shear[0, 1] = 0.2
    matrix = motion(grid, (5, 5, -15), (0.1, 0.05, 0))
    for other in (own, Grid(own.shape, own.affine @ shear)):
        assert error(align(moved_by(matrix, grid, other), fixed_of(grid), "rigid"), matrix, grid) < 0.4


@pytest.mark.quick("1", "3")
@pytest.mark.parametrize("slices", [1, 3, 6])
def test_a_stack_of_few_thick_slices(slices):
    """A single slice is aligned in its plane."""
    grid = Grid((40, 36, slices), np.diag([1.5, 1.5, 8.0, 1.0]))
    shift = np.array([0.1, -0.05, 0]) * 40 / anatomy.extent(grid)
    matrix = motion(grid, (0, 0, 20), shift)
    found = align(moved_by(matrix, grid), fixed_of(grid), "rigid")
    assert error(found, matrix, grid) < 0.5
    assert found.ndim == (2 if slices == 1 else 3)


def test_only_the_mask_counts():
    """What moves otherwise outside it is not followed."""
    matrix, body = motion(VOLUME, shift=(0.08, 0, 0)), motion(VOLUME, shift=(0.25, 0, 0))
    far = anatomy.extent(VOLUME) * np.array([0.9, 0, 0])
    grid = Grid((44, 26, 20), VOLUME.affine)

    def two(near, there):
        places = grid.world(grid.indices())
        parts = [
            anatomy.intensity(
                Linear(np.linalg.inv(m)).world((places - shift).reshape(-1, 3)), anatomy.middle(VOLUME), 8.0
            )
            for m, shift in ((near, 0), (there, far))
        ]
        return (parts[0] + 3 * parts[1]).reshape(grid.shape).astype(np.float32)

    fixed = Image(two(np.eye(4), np.eye(4)), grid.spacing, grid.affine, True, "fixed.nii.gz")
    moving = dataclasses.replace(fixed, array=two(matrix, body))
    mask = dataclasses.replace(fixed, array=(np.arange(44) < 18)[:, None, None] * np.ones(grid.shape, np.uint8))
    there = dataclasses.replace(mask, array=np.roll(mask.array, 2, 0) | mask.array)
    for masks in ({"mask": mask}, {"mask_moving": there}, {"mask": mask, "mask_moving": there, "start": "centre"}):
        found = align(moving, fixed, "rigid", **{"start": "header"} | masks)
        assert error(found, matrix, VOLUME) < 0.4, list(masks)
    assert error(align(moving, fixed, "rigid", "header"), matrix, VOLUME) > 2
    # After an earlier transform the mask of the moving image is where that brings the image.
    for earlier in (Chain([Linear(body)], grid), Chain([Linear(body)], grid).transform):
        found = align(moving, fixed, "rigid", mask_moving=there, initial=earlier)
        places = VOLUME.world(np.argwhere(anatomy.labels(VOLUME).array > 0))
        apart = found.initial.world(places) - Linear(matrix).world(places)
        assert np.abs(apart).max() < 0.4 * 2


def test_masks_that_hardly_meet_are_no_likeness():
    """A handful of voxels would look alike by chance."""
    pair = moved_by(motion(VOLUME, shift=(0.3, 0, 0)), VOLUME), fixed_of(VOLUME)
    part = dataclasses.replace(pair[1], array=anatomy.labels(VOLUME).array > 0)
    there = dataclasses.replace(part, array=np.roll(part.array, 7, 0))
    level = Level(pair[0].array, VOLUME, pair[1].array, VOLUME, part.array, there.array)
    away = motion(VOLUME, shift=(-0.25, 0, 0))
    for metric, nothing in (("mi", 1.0), ("correlation", 0.0)):
        assert level.score(away, metric) == nothing < level.score(np.eye(4), metric)


def test_a_mask_that_leaves_the_moving_image_is_no_likeness_where_they_meet():
    counts = np.zeros(PLANE.shape, bool)
    counts[:3, :3] = True
    array = fixed_of(PLANE).array
    level, away = Level(array, PLANE, array, PLANE, counts), np.eye(4)
    away[:3, 3] = PLANE.linear @ (-10, 0)
    for metric, nothing in (("mi", 1.0), ("correlation", 0.0)):
        assert level.score(away, metric, within=True) == nothing


def test_it_goes_on_from_an_earlier_transform():
    """From a linear one to one matrix of both; a displacement stays, and follows what is found."""
    matrix, fixed = motion(VOLUME, (0, 0, 70), (0.1, 0, 0)), fixed_of(VOLUME)
    moving = moved_by(matrix, VOLUME)
    near = motion(VOLUME, (0, 0, 60))
    found = align(moving, fixed, "rigid", initial=Chain([Linear(near)], VOLUME))
    assert found.start == "initial" and error(found, matrix, VOLUME) < 0.3
    index = VOLUME.indices()
    u = VOLUME.index(Linear(near).world(VOLUME.world(index).reshape(-1, 3))).reshape(index.shape) - index
    earlier = Transform(u, VOLUME)
    found = align(moving, fixed, "rigid", initial=earlier)
    assert found.linear.matrix is not matrix and found.initial.links[-1] is earlier
    places = VOLUME.world(np.argwhere(anatomy.labels(VOLUME).array == 3))
    assert np.abs(found.initial.world(places) - Linear(matrix).world(places)).max() < 0.3 * 2


@pytest.mark.slow
def test_the_same_each_time():
    pair = moved_by(motion(VOLUME, (0, 8, 0)), VOLUME), fixed_of(VOLUME)
    first, second = (align(*pair, "rigid").linear.matrix for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_cannot_be_better_is_kept():
    fixed = fixed_of(VOLUME)
    with pytest.warns(DataWarning, match="found nothing more alike than its start"):
        found = align(fixed, fixed, "affine")
    np.testing.assert_array_equal(found.linear.matrix, np.eye(4))
    assert found.start == "header" and found.before == found.after == pytest.approx(2)


def test_register_composes_both_and_interpolates_once():
    matrix, fixed = motion(VOLUME, (0, 0, 20), (0.1, 0, 0)), fixed_of(VOLUME)
    moving = moved_by(matrix, VOLUME)
    result = register(moving, fixed, "undeformed", affine="rigid")
    assert error(result.affine, matrix, VOLUME) < 0.3
    places = VOLUME.world(VOLUME.indices()).reshape(-1, 3)
    np.testing.assert_allclose(result.transform.world(places), result.affine.linear.world(places), atol=1e-3)
    inner = (slice(5, -5),) * 3
    assert np.abs(result.moved - fixed.array)[inner].mean() < 0.2 * np.abs(moving.array - fixed.array)[inner].mean()
    back = result.inverse().transform
    np.testing.assert_allclose(back.world(places), result.affine.linear.inverse().world(places), atol=1e-3)


@pytest.mark.parametrize("grid", [VOLUME, PLANE], ids=["3-D", "2-D"])
@pytest.mark.parametrize("suffix", [".mat", ".tfm", ".txt", ".h5"])
def test_a_matrix_goes_to_a_file_and_back(tmp_path, grid, suffix):
    turn = (4, 5, 6) if grid.ndim == 3 else (0, 0, 6)
    matrix = motion(grid, turn, (0.1, 0.2, 0))
    np.testing.assert_allclose(read_linear(write_linear(tmp_path / f"x{suffix}", matrix, grid.ndim)), matrix, atol=1e-9)


def test_refusals():
    fixed, single = fixed_of(VOLUME), Grid((24, 26, 1), VOLUME.affine)
    empty = dataclasses.replace(fixed, array=np.zeros(VOLUME.shape, np.uint8), path="mask.nii.gz")
    apart = dataclasses.replace(empty, array=empty.array + 1, affine=motion(VOLUME, shift=(5, 0, 0)) @ VOLUME.affine)
    line = Grid((24, 1, 1), VOLUME.affine)
    high = Grid((24, 26, 1), VOLUME.affine + np.eye(4)[:, [0, 1, 3, 2]] * [[0], [0], [90], [0]])
    for arguments, message in (
        ({"moving": dataclasses.replace(fixed, array=np.ones(VOLUME.shape))}, "the moving image is constant"),
        ({"mask": empty}, "mask.nii.gz: the mask is empty"),
        ({"mask_moving": empty}, "mask.nii.gz: the mask is empty"),
        ({"mask": apart}, "do not overlap"),
        ({"moving": moved_by(np.eye(4), VOLUME, single)}, "moving.nii.gz: is a single slice, fixed.nii.gz a volume"),
        ({"moving": moved_by(np.eye(4), VOLUME, line)}, "two axes of more than one voxel"),
        (
            {"moving": moved_by(np.eye(4), VOLUME, high), "fixed": moved_by(np.eye(4), VOLUME, single)},
            "lie in different planes",
        ),
        ({"moving": fixed_of(PLANE)}, "two 2-D or two 3-D images, received shapes"),
        ({"kind": "projective"}, "one of rigid, similarity, affine, received 'projective'"),
        ({"start": "luck"}, "one of best, header, centre"),
    ):
        with pytest.raises(ValueError, match=message):
            align(**({"moving": fixed, "fixed": fixed} | arguments))


def test_without_simpleitk(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match="an? .*affine stage needs SimpleITK: pip install"):
        align(fixed_of(VOLUME), fixed_of(VOLUME))
