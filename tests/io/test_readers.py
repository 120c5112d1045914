"""SimpleITK, ANTsPy and nitransforms as independent readers of what hetmorph writes.

The moving images are ramps: interpolated linearly they return the position, so that differences are in voxels.
"""

import nibabel as nib
import numpy as np
import pytest

from hetmorph.io import (
    Grid,
    Image,
    Transform,
    read_image,
    read_transform,
    transform_points,
    warp_image,
    write_image,
    write_transform,
)
from tests.io.worlds import GRIDS_2D, GRIDS_3D, TURN, moving_of, ramps, smooth_transform

TOLERANCE = 1e-3  # voxels of the moving image
CASES = [*GRIDS_3D.items(), *(("2-D " + name, grid) for name, grid in GRIDS_2D.items())]
ITK_FORMATS = ("warp.nii.gz", "warp.nii", "warp.h5", "warp.tfm", "warp.txt", "warp.mat")
every_case = pytest.mark.parametrize("grid", [grid for _, grid in CASES], ids=[name for name, _ in CASES])
every_volume = pytest.mark.parametrize("grid", GRIDS_3D.values(), ids=GRIDS_3D.keys())


def save(path, array, grid):
    image = Image(array, grid.spacing, grid.affine, True, path)
    return str(write_image(path, array.astype(np.float64), image))


@pytest.fixture
def scene(tmp_path, rng, grid):
    """A transform, the grid of a moving image unlike the fixed one, files of both, and hetmorph's positions."""
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    files = [save(tmp_path / f"ramp{axis}.nii.gz", ramp, moving) for axis, ramp in enumerate(ramps(moving))]
    fixed = save(tmp_path / "fixed.nii.gz", np.zeros(grid.shape), grid)
    ours = np.stack([warp_image(transform, ramp, moving, outside=None) for ramp in ramps(moving)], axis=-1)
    positions = transform.positions(moving)
    inside = ((positions > 0) & (positions < np.array(moving.shape) - 1)).all(-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(ours[inside], positions[inside], atol=1e-4)
    return transform, moving, fixed, files, ours, inside


def some_points(transform, rng, count=50):
    """Fixed points between voxels, RAS mm."""
    grid = transform.grid
    return grid.world(rng.uniform(1, np.array(grid.shape) - 2, (count, grid.ndim)))


def agree(theirs, ours, inside):
    assert np.abs(theirs - ours)[inside].max() < TOLERANCE


@every_case
@pytest.mark.parametrize("name", ITK_FORMATS)
def test_simpleitk(scene, tmp_path, rng, name):
    sitk = pytest.importorskip("SimpleITK")
    transform, moving, fixed, files, ours, inside = scene
    path = str(write_transform(tmp_path / name, transform))
    if ".nii" in name:
        field = sitk.ReadImage(path, sitk.sitkVectorFloat64)
        assert field.GetDimension() == transform.grid.ndim
        theirs = sitk.DisplacementFieldTransform(field)
    else:
        theirs = sitk.ReadTransform(path)
    target = sitk.ReadImage(fixed)
    moved = [sitk.Resample(sitk.ReadImage(file), target, theirs, sitk.sitkLinear) for file in files]
    agree(np.stack([sitk.GetArrayFromImage(image).T for image in moved], -1), ours, inside)

    n = transform.grid.ndim
    points = some_points(transform, rng)
    lps = points * [-1, -1, 1]
    there = np.array([theirs.TransformPoint(point[:n]) for point in lps])
    mine = transform_points(transform, lps[:, :n], "LPS")
    assert np.abs((there - mine) / min(moving.spacing)).max() < TOLERANCE
    assert np.abs(mine - lps[:, :n]).max() > 0.1


@every_case
@pytest.mark.parametrize("name", ["warp.nii.gz", "warp.h5"])
def test_antspy(scene, tmp_path, rng, name):
    ants = pytest.importorskip("ants")
    pandas = pytest.importorskip("pandas")
    transform, moving, fixed, files, ours, inside = scene
    path = str(write_transform(tmp_path / name, transform))
    target = ants.image_read(fixed)
    moved = [ants.apply_transforms(target, ants.image_read(file), [path], "linear") for file in files]
    agree(np.stack([image.numpy() for image in moved], -1), ours, inside)

    n = transform.grid.ndim
    lps = (some_points(transform, rng) * [-1, -1, 1])[:, :n]
    there = ants.apply_transforms_to_points(n, pandas.DataFrame(lps, columns=list("xyz")[:n]), [path])
    there = there[list("xyz")[:n]].to_numpy()
    assert np.abs((there - transform_points(transform, lps, "LPS")) / min(moving.spacing)).max() < TOLERANCE


@every_volume
@pytest.mark.parametrize("name", ["warp.nii.gz", "warp.h5"])
def test_nitransforms(scene, tmp_path, name):
    nt = pytest.importorskip("nitransforms")
    from nitransforms.io.itk import ITKCompositeH5
    from nitransforms.resampling import apply

    transform, _, fixed, files, ours, inside = scene
    path = str(write_transform(tmp_path / name, transform))
    if name.endswith("h5"):
        field = ITKCompositeH5.from_filename(path)[0]
        theirs = nt.nonlinear.DenseFieldTransform(field)
    else:
        theirs = nt.nonlinear.DenseFieldTransform.from_filename(path, fmt="itk")
    moved = [apply(theirs, nib.load(file), reference=nib.load(fixed), order=1).get_fdata() for file in files]
    agree(np.stack(moved, -1), ours, inside)

    grid = transform.grid
    voxels = grid.world(grid.indices().reshape(-1, 3))
    there = theirs.map(voxels)
    mine = transform_points(transform, voxels, "RAS")
    assert np.abs((there - mine) / min(grid.spacing)).max() < TOLERANCE


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_slice_anywhere_in_space_is_read_as_a_volume(tmp_path, rng, ndim):
    # a slice of an oblique stack: no reader keeps a last axis of length 1
    sitk = pytest.importorskip("SimpleITK")
    affine = np.eye(4)
    affine[:3] = np.column_stack([TURN @ np.diag([1.5, -2, 8]), [10, 20, 30]])
    plane = Grid((14, 12), affine)
    displacement = smooth_transform(rng, plane).displacement
    if ndim == 3:
        zeros = np.zeros((14, 12, 1, 1), np.float32)
        transform = Transform(np.concatenate([displacement[:, :, None], zeros], -1), Grid((14, 12, 1), affine))
    else:
        transform = Transform(displacement, plane)
    path = write_transform(tmp_path / "warp.nii.gz", transform)
    theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    points = some_points(Transform(displacement, plane), rng)
    mine = transform_points(transform, points, "RAS")
    there = np.array([theirs.TransformPoint(point) for point in points * [-1, -1, 1]]) * [-1, -1, 1]
    assert np.abs(there - mine).max() < 1e-3
    again = read_transform(path)
    assert again.grid.shape == transform.grid.shape
    np.testing.assert_allclose(again.displacement, transform.displacement, atol=1e-5)
    nt = pytest.importorskip("nitransforms")
    voxels = plane.world(plane.indices().reshape(-1, 2))
    field = nt.nonlinear.DenseFieldTransform.from_filename(str(path), fmt="itk")
    assert np.abs(field.map(voxels) - transform.world(voxels)).max() < 1e-3


@every_case
def test_fields_that_simpleitk_writes_are_read(scene, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    transform, moving, fixed, files, ours, inside = scene
    own = write_transform(tmp_path / "own.nii.gz", transform)
    field = sitk.ReadImage(str(own), sitk.sitkVectorFloat64)
    sitk.WriteImage(field, str(tmp_path / "field.nii.gz"))
    sitk.WriteTransform(sitk.DisplacementFieldTransform(field), str(tmp_path / "field.h5"))
    for name in ("field.nii.gz", "field.h5"):
        again = read_transform(tmp_path / name)
        agree(np.stack([warp_image(again, ramp, moving, outside=None) for ramp in ramps(moving)], -1), ours, inside)


@pytest.mark.parametrize("ndim", [2, 3])
def test_affine_and_composite_of_itk_are_evaluated_on_the_fixed_grid(tmp_path, rng, ndim):
    sitk = pytest.importorskip("SimpleITK")
    grid = (GRIDS_2D if ndim == 2 else GRIDS_3D)["oblique"]
    affine = sitk.AffineTransform(ndim)
    affine.SetMatrix((np.eye(ndim) + rng.normal(0, 0.05, (ndim, ndim))).ravel().tolist())
    affine.SetTranslation(rng.normal(0, 2, ndim).tolist())
    affine.SetCenter([3.0] * ndim)
    path = write_transform(tmp_path / "warp.h5", smooth_transform(rng, grid))
    both = sitk.CompositeTransform([affine, sitk.ReadTransform(str(path))])
    both.FlattenTransform()  # files hold no composite inside another
    points = some_points(Transform(np.zeros((*grid.shape, ndim)), grid), rng)
    lps = (points * [-1, -1, 1])[:, :ndim]
    for name, theirs in (("affine.mat", affine), ("affine.tfm", affine), ("both.h5", both)):
        sitk.WriteTransform(theirs, str(tmp_path / name))
        if name.startswith("affine"):
            with pytest.raises(ValueError, match="give the fixed image"):
                read_transform(tmp_path / name)
        ours = transform_points(read_transform(tmp_path / name, fixed=grid), lps, "LPS")
        there = np.array([theirs.TransformPoint(point) for point in lps])
        assert np.abs(there - ours).max() < (2e-3 if name != "both.h5" else 0.1)  # a warped affine is not linear


@every_case
def test_images_lie_where_simpleitk_sees_them(tmp_path, rng, grid):
    sitk = pytest.importorskip("SimpleITK")
    array = rng.integers(0, 100, grid.shape).astype(np.int16)
    like = Image(array, grid.spacing, grid.affine, True, tmp_path / "x")
    for name in ("a.nii.gz", "a.mha", "a.nrrd"):
        image = sitk.ReadImage(str(write_image(tmp_path / name, array, like)))
        again = read_image(tmp_path / name)
        index = [size - 1 for size in grid.shape]
        lps = grid.world(np.array(index)) * [-1, -1, 1]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), lps[: grid.ndim], atol=1e-4)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, array)
        np.testing.assert_array_equal(again.array, array)
        assert again.array.dtype == np.int16
        if name == "a.nii.gz" or grid.ndim == 3:
            assert again.grid.same(grid)
