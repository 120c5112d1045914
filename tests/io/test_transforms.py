"""Transforms on disk: round trips through every format, voxel conventions, and files that are broken or alien."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.io import (
    FORMATS,
    DataError,
    Grid,
    Transform,
    convert,
    read_transform,
    write_transform,
)
from tests import reference
from tests.io.worlds import GRIDS_2D, GRIDS_3D, moving_of, smooth_transform

CASES = [*GRIDS_3D.items(), *(("2-D " + name, grid) for name, grid in GRIDS_2D.items())]
every_case = pytest.mark.parametrize("grid", [grid for _, grid in CASES], ids=[name for name, _ in CASES])
EVERY_FILE = [(format, suffix) for format, suffixes in FORMATS.items() for suffix in suffixes]


@every_case
@pytest.mark.parametrize(("format", "suffix"), EVERY_FILE)
def test_what_is_written_comes_back(tmp_path, rng, grid, format, suffix):
    if format == "itk":
        pytest.importorskip("SimpleITK")
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    path = write_transform(tmp_path / f"warp{suffix}", transform, format, moving)
    again = read_transform(path, fixed=grid, moving=moving)
    np.testing.assert_allclose(again.displacement, transform.displacement, atol=2e-5)
    assert again.grid.same(grid)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if format in ("nifti", "itk"):
        alone = read_transform(path)
        # a 2-D file of ITK knows no z
        np.testing.assert_allclose(alone.grid.affine[:2, :2], grid.affine[:2, :2], atol=1e-5)
        np.testing.assert_allclose(alone.displacement, transform.displacement, atol=2e-5)


@pytest.mark.parametrize("grid", [GRIDS_3D["oblique"], GRIDS_2D["oblique"]], ids=["3-D", "2-D"])
def test_the_house_format_is_what_the_design_says(tmp_path, rng, grid):
    transform = smooth_transform(rng, grid)
    nifti = nib.load(write_transform(tmp_path / "warp.nii.gz", transform))
    n = grid.ndim
    assert nifti.shape == (*grid.shape, *[1] * (4 - n), n)
    assert nifti.header["intent_code"] == 1007
    assert nifti.get_data_dtype() == np.float32
    assert nifti.header["sform_code"] == nifti.header["qform_code"] == 1
    np.testing.assert_allclose(nifti.get_sform(), grid.affine, atol=1e-5)
    np.testing.assert_allclose(nifti.get_qform(), grid.affine, atol=1e-4)
    lps = (transform.displacement @ grid.affine[:3, :n].T * [-1, -1, 1])[..., :n]
    np.testing.assert_allclose(nifti.get_fdata().reshape(lps.shape), lps, atol=1e-5)


def test_the_same_transform_gives_the_same_bytes(tmp_path, rng):
    transform = smooth_transform(rng, GRIDS_3D["oblique"])
    one, other = (write_transform(tmp_path / name, transform).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert one == other


def test_voxelmorphs_files_warp_the_arrays_as_voxelmorph_does(tmp_path, rng):
    # arrays and nothing else: the moving array pulled at x + u, whatever the headers say
    from hetmorph.voxelmorph.original import vxm

    grid = GRIDS_3D["oblique"]
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    array = rng.normal(size=moving.shape).astype(np.float32)
    expected = reference.warp(array[..., None], transform.voxels(moving))[..., 0]
    for suffix in (".nii.gz", ".npz"):
        path = write_transform(tmp_path / f"warp{suffix}", transform, "voxelmorph", moving)
        warp = vxm.py.utils.load_volfile(str(path))
        moved = vxm.utils.transform(tf.constant(array[..., None]), tf.constant(warp, tf.float32)).numpy()[..., 0]
        np.testing.assert_allclose(moved, expected, atol=1e-3)
        vxm.py.utils.save_volfile(warp, str(tmp_path / f"theirs{suffix}"), grid.affine)
        again = read_transform(tmp_path / f"theirs{suffix}", fixed=grid, moving=moving)
        np.testing.assert_allclose(again.displacement, transform.displacement, atol=2e-5)


@pytest.mark.parametrize("suffix", [".npz", ".nii.gz"])
def test_learn2reg_files_warp_as_its_evaluation_does(tmp_path, rng, suffix):
    grid = GRIDS_3D["anisotropic"]
    transform = smooth_transform(rng, grid)
    moving = rng.normal(size=grid.shape)
    path = write_transform(tmp_path / f"disp_0001_0002{suffix}", transform, "learn2reg")
    if suffix == ".npz":
        field = np.load(path)["arr_0"]
        assert field.shape == (3, *grid.shape)
    else:
        field = nib.load(path).get_fdata().transpose(3, 0, 1, 2)
    identity = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    theirs = ndimage.map_coordinates(moving, identity + field, order=1, mode="nearest")
    np.testing.assert_allclose(theirs, reference.warp(moving[..., None], transform.displacement)[..., 0], atol=1e-5)


def test_learn2reg_at_half_resolution_is_enlarged_as_in_its_evaluation(tmp_path, rng):
    grid = Grid((12, 16, 8), np.diag([1.5, 1.5, 2, 1]))
    half = reference.smooth_field(rng, (6, 8, 4), 2.0, 1.5).transpose(3, 0, 1, 2).astype(np.float16)
    np.savez_compressed(tmp_path / "disp.npz", half)
    expected = np.array([ndimage.zoom(half[i].astype(np.float32), 2, order=2) for i in range(3)])
    got = read_transform(tmp_path / "disp.npz", fixed=grid)
    np.testing.assert_allclose(got.displacement, expected.transpose(1, 2, 3, 0), atol=1e-6)


@pytest.mark.parametrize("name", ["warp", "vol", "anything"])
def test_an_npz_of_voxelmorph_may_call_its_array_otherwise(tmp_path, rng, name):
    transform = smooth_transform(rng, GRIDS_2D["plain"])
    np.savez(tmp_path / "a.npz", **{name: transform.displacement})
    got = read_transform(tmp_path / "a.npz", fixed=transform.grid)
    np.testing.assert_array_equal(got.displacement, transform.displacement)


def test_where_both_layouts_fit_the_name_of_the_format_decides(tmp_path, rng):
    grid = Grid((3, 3, 3), np.eye(4))
    array = rng.normal(size=(3, 3, 3, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", array)
    first = read_transform(tmp_path / "a.npz", fixed=grid, format="learn2reg").displacement
    last = read_transform(tmp_path / "a.npz", fixed=grid, format="voxelmorph").displacement
    np.testing.assert_array_equal(first, np.moveaxis(array, 0, -1))
    np.testing.assert_array_equal(last, array)


@pytest.mark.parametrize("target", ["b.h5", "b.npz", "b.nii"])
def test_convert_keeps_the_mapping(tmp_path, rng, target):
    pytest.importorskip("SimpleITK")
    grid = GRIDS_3D["oblique"]
    transform, moving = smooth_transform(rng, grid), moving_of(GRIDS_3D["oblique"])
    source = write_transform(tmp_path / "a.nii.gz", transform)
    format = "learn2reg" if target.endswith("npz") else None
    path = convert(source, tmp_path / target, format, fixed=grid, moving=moving)
    again = read_transform(path, fixed=grid, moving=moving)
    np.testing.assert_allclose(again.displacement, transform.displacement, atol=5e-5)


def test_a_field_is_brought_onto_the_grid_of_the_fixed_image(tmp_path, rng):
    grid = GRIDS_3D["oblique"]
    transform = smooth_transform(rng, grid)
    path = write_transform(tmp_path / "a.nii.gz", transform)
    target = moving_of(grid)
    np.testing.assert_allclose(
        read_transform(path, fixed=target).displacement, transform.on(target).displacement, atol=2e-5
    )
    with pytest.raises(DataError, match="does not belong to this fixed image"):
        read_transform(path, fixed=GRIDS_2D["plain"])


def test_the_sidecar_says_frame_and_unit(tmp_path, rng):
    transform = smooth_transform(rng, GRIDS_3D["oblique"])
    write_transform(tmp_path / "warp.nii.gz", transform, provenance={"command": ["hetmorph", "register"]})
    stored = json.loads((tmp_path / "warp.json").read_text())
    assert stored["command"] == ["hetmorph", "register"]
    assert stored["transform"]["frame"] == "LPS" and stored["transform"]["unit"] == "mm"
    np.testing.assert_allclose(stored["transform"]["affine_ras_mm"], transform.grid.affine)
    write_transform(tmp_path / "warp.npz", transform, "voxelmorph", provenance={})
    assert json.loads((tmp_path / "warp.npz.json").read_text())["transform"]["unit"] == "voxel"


def broken(tmp_path, rng, change):
    """A field of the house format after a change of its image."""
    path = write_transform(tmp_path / "warp.nii.gz", smooth_transform(rng, GRIDS_3D["oblique"]))
    nifti = nib.load(path)
    nifti = nib.Nifti1Image(nifti.get_fdata(dtype=np.float32), nifti.affine, nifti.header)
    nib.save(change(nifti) or nifti, path)
    return path


def with_data(function):
    return lambda nifti: nib.Nifti1Image(function(np.array(nifti.dataobj)), nifti.affine, nifti.header)


def put_nan(array):
    array[3, 4, 5] = np.nan
    return array


def nowhere(nifti):
    nifti.set_sform(None, 0)
    nifti.set_qform(None, 0)


def nan_affine(nifti):
    nifti.header["srow_x"] = np.nan
    result = nib.Nifti1Image(nifti.get_fdata(), None, nifti.header)
    return result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nifti: nifti.header.set_intent(0), "expected intent 1007"),
        (lambda nifti: nifti.header.set_intent(2006), "received 2006"),
        (with_data(lambda a: a[..., :2]), "belong to a 2-D image"),
        (with_data(lambda a: np.concatenate([a, a], 3)), r"expected a displacement field \(X, Y, Z, 1, 3\)"),
        (with_data(lambda a: a[..., [0, 0, 1, 2]]), "expected a displacement field"),
        (with_data(put_nan), "NaN"),
        (nowhere, "states no place"),
        (nan_affine, "finite affine"),
    ],
)
def test_other_fields_are_refused_with_the_reason(tmp_path, rng, change, message):
    path = broken(tmp_path, rng, change)
    with pytest.raises(DataError, match=message) as error:
        read_transform(path)
    assert "warp.nii.gz" in str(error.value)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".h5", ".tfm", ".mat", ".npz"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_truncated_files_are_named(tmp_path, rng, suffix, kept):
    pytest.importorskip("SimpleITK")
    grid = GRIDS_3D["oblique"]
    format = "voxelmorph" if suffix == ".npz" else None
    path = write_transform(tmp_path / f"warp{suffix}", smooth_transform(rng, grid), format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for fixed in (grid, None):
        with pytest.raises(DataError, match="warp"):
            read_transform(path, fixed=fixed)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.h5", "a.npz", "a.xyz"])
def test_missing_and_unknown_files_are_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: no such file"):
        read_transform(tmp_path / name)
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(DataError, match="expected a transform ending in"):
        read_transform(tmp_path / "a.xyz")


def test_an_fsl_warp_is_not_taken_for_voxels(tmp_path, rng):
    grid = GRIDS_3D["plain"]
    nifti = nib.Nifti1Image(smooth_transform(rng, grid).displacement, grid.affine)
    nifti.header.set_intent(2006)
    nib.save(nifti, tmp_path / "fsl.nii.gz")
    with pytest.raises(DataError, match="intent 2006"):
        read_transform(tmp_path / "fsl.nii.gz")


def test_an_image_is_not_taken_for_a_transform(tmp_path, rng):
    nib.save(nib.Nifti1Image(rng.normal(size=(5, 6, 7)), np.eye(4)), tmp_path / "image.nii.gz")
    with pytest.raises(DataError, match="expected displacements"):
        read_transform(tmp_path / "image.nii.gz")


def test_files_without_geometry_ask_for_the_fixed_image(tmp_path, rng):
    transform = smooth_transform(rng, GRIDS_3D["plain"])
    path = write_transform(tmp_path / "a.npz", transform, "voxelmorph")
    with pytest.raises(DataError, match="give the fixed image"):
        read_transform(path)
    with pytest.raises(DataError, match=r"received \(12, 10, 9, 3\)"):
        read_transform(path, fixed=GRIDS_3D["anisotropic"])


def test_formats_and_endings_that_do_not_fit_are_refused(tmp_path, rng):
    transform = smooth_transform(rng, GRIDS_3D["plain"])
    for name, format, message in (
        ("a.npz", None, "give it"),
        ("a.nii.gz", "itk", "ending in .h5"),
        ("a.h5", "nifti", "ending in .nii.gz"),
        ("a.nii.gz", "fsl", "one of nifti"),
    ):
        with pytest.raises(ValueError, match=message):
            write_transform(tmp_path / name, transform, format)
    assert list(tmp_path.iterdir()) == []


def test_what_itk_cannot_hold_is_said(tmp_path, rng):
    pytest.importorskip("SimpleITK")
    sheared = Grid((5, 6, 7), np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    transform = Transform(np.ones((5, 6, 7, 3)), sheared)
    with pytest.raises(ValueError, match="sheared"):
        write_transform(tmp_path / "a.h5", transform)
    again = read_transform(write_transform(tmp_path / "a.nii.gz", transform))
    np.testing.assert_allclose(again.displacement, 1, atol=1e-6)
    tilted = Grid((5, 6), np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]))
    with pytest.raises(ValueError, match="plane of constant z"):
        write_transform(tmp_path / "b.h5", Transform(np.ones((5, 6, 2)), tilted))


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_without_simpleitk_the_extra_is_named(tmp_path, rng, monkeypatch, suffix):
    import sys

    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"hetmorph\[formats\]"):
        write_transform(tmp_path / f"a{suffix}", smooth_transform(rng, GRIDS_3D["plain"]))
    (tmp_path / f"a{suffix}").write_text("x")
    with pytest.raises(ImportError, match=r"hetmorph\[formats\]"):
        read_transform(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_displacements_must_be_finite_and_fit(bad):
    grid = GRIDS_3D["plain"]
    with pytest.raises(ValueError, match="NaN"):
        Transform(np.full((*grid.shape, 3), bad), grid)
    with pytest.raises(ValueError, match=r"expected a displacement \(12, 10, 9, 3\)"):
        Transform(np.zeros((12, 10, 9, 2)), grid)


@pytest.mark.parametrize("suffix", [".nii.gz", ".h5", ".tfm", ".npz"])
def test_a_folder_that_cannot_be_written_to(tmp_path, rng, suffix):
    (tmp_path / "file").write_text("no folder")
    transform = smooth_transform(rng, GRIDS_3D["plain"])
    format = "voxelmorph" if suffix == ".npz" else None
    with pytest.raises(OSError):
        write_transform(tmp_path / "file" / f"warp{suffix}", transform, format)
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(OSError):
            write_transform(locked / f"warp{suffix}", transform, format)
        assert list(locked.iterdir()) == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((8, 7, 2), np.float32), "an image of two slices"),
        (np.ones((8, 7, 6, 3), np.int16), "a sequence of three frames"),
        (np.full((8, 7, 6, 3), 300.0, np.float32), "a sequence of three frames"),
    ],
)
def test_two_slices_or_three_frames_are_not_taken_for_a_transform(tmp_path, array, message):
    """Unless its format is given; hetmorph's own files are known by their description."""
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=f"{message}.*format is voxelmorph"):
        read_transform(tmp_path / "a.nii.gz")
    transform = read_transform(tmp_path / "a.nii.gz", format="voxelmorph")
    write_transform(tmp_path / "b.nii.gz", transform, "voxelmorph")
    assert read_transform(tmp_path / "b.nii.gz").grid.same(transform.grid)
