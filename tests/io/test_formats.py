"""Images of other formats than NIfTI, sequences, and writing on the grid of an image."""

import sys

import nibabel as nib
import numpy as np
import pytest

from hetmorph.io import DataError, Image, matched_grid, read_image, write_image
from tests.io.worlds import GRIDS_2D, GRIDS_3D


def on(grid, array, path, oriented=True):
    return Image(array, (*grid.spacing, *[1.0] * (array.ndim - grid.ndim)), grid.affine, oriented, path)


@pytest.fixture
def volume(rng):
    return rng.integers(0, 1000, GRIDS_3D["oblique"].shape).astype(np.int16)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".npz"])
def test_an_image_comes_back_on_its_grid(tmp_path, volume, suffix):
    if suffix in (".mha", ".nrrd"):
        pytest.importorskip("SimpleITK")
    grid = GRIDS_3D["oblique"]
    again = read_image(write_image(tmp_path / f"a{suffix}", volume, on(grid, volume, tmp_path / "x")))
    np.testing.assert_array_equal(again.array, volume)
    assert again.array.dtype == np.int16 and again.oriented and again.grid.same(grid)
    np.testing.assert_allclose(again.spacing, grid.spacing, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_sequence_comes_back_frame_by_frame(tmp_path, rng, suffix):
    if suffix != ".nii.gz":
        pytest.importorskip("SimpleITK")
    grid = GRIDS_3D["oblique"]
    cine = rng.normal(size=(*grid.shape, 4)).astype(np.float32)
    image = read_image(write_image(tmp_path / f"a{suffix}", cine, on(grid, cine, tmp_path / "x")))
    frames = image.frames()
    assert len(frames) == 4 and image.grid.same(grid)
    np.testing.assert_array_equal(frames[2].array, cine[..., 2])
    assert frames[2].grid.same(grid) and len(frames[2].spacing) == 3
    assert [one.array.shape for one in frames[0].frames()] == [grid.shape]
    with pytest.raises(DataError, match="one more of time"):
        image.frames(2)
    assert len(frames[0].frames(2)) == grid.shape[2]


def test_time_steps_survive(tmp_path, rng):
    cine = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    nifti = nib.Nifti1Image(cine, np.eye(4))
    nifti.header.set_zooms((1, 1, 1, 0.04))
    nib.save(nifti, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    again = read_image(write_image(tmp_path / "b.nii.gz", cine, image))
    np.testing.assert_allclose(again.spacing, (1, 1, 1, 0.04))


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        ([1.4, 1.6, -0.6, 300], np.uint8, [1, 2, 0, 255]),
        ([1.4, -1.6, 40000, -40000], np.int16, [1, -2, 32767, -32768]),
        ([0.25, 1e-7, 3, 4], np.float32, [0.25, 1e-7, 3, 4]),
        ([0, 1, 1, 0], bool, [0, 1, 1, 0]),
        ([2**40, 0, 0, 0], np.int64, [2**40, 0, 0, 0]),
        ([70000, -5, 0, 0], np.int64, [70000, -5, 0, 0]),
        ([1e30, -1e30, 0, 0], np.int64, [2.0**63, -(2.0**63), 0, 0]),
        ([0.5, 1.5, 2.5, 60000], np.float16, [0.5, 1.5, 2.5, 60000]),
    ],
)
def test_values_are_stored_in_the_type_of_the_image(tmp_path, given, dtype, expected):
    like = on(GRIDS_2D["plain"], np.zeros((2, 2), dtype), tmp_path / "x")
    path = write_image(tmp_path / "a.nii", np.reshape(np.array(given, float), (2, 2)), like)
    np.testing.assert_allclose(read_image(path).array.ravel(), expected, rtol=1e-6)
    if dtype in (np.uint8, np.int16, np.float32):
        assert read_image(path).array.dtype == dtype


def test_nan_does_not_become_an_integer(tmp_path, volume):
    like = on(GRIDS_3D["oblique"], volume, tmp_path / "x")
    with pytest.raises(ValueError, match="NaN"):
        write_image(tmp_path / "a.nii.gz", np.full(volume.shape, np.nan), like)
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_orientation_stays_without(tmp_path, volume):
    like = on(GRIDS_3D["anisotropic"], np.zeros(GRIDS_3D["anisotropic"].shape), tmp_path / "x", oriented=False)
    again = read_image(write_image(tmp_path / "a.nii.gz", like.array, like))
    assert not again.oriented
    np.testing.assert_allclose(again.spacing, like.spacing)


def test_big_endian_files_become_native(tmp_path, volume):
    nib.save(nib.Nifti1Image(volume.astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">")), tmp_path / "a.nii")
    array = read_image(tmp_path / "a.nii").array
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, volume)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_columns_are_the_first_axis(tmp_path, rng, dtype):
    from PIL import Image as Picture

    pixels = rng.integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)  # 5 rows of 7
    Picture.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.array.dtype == dtype and image.array.shape == (7, 5) and not image.oriented
    np.testing.assert_array_equal(image.array, pixels.T)
    path = write_image(tmp_path / "b.png", image.array, image)
    np.testing.assert_array_equal(np.asarray(Picture.open(path)), pixels)
    sitk = pytest.importorskip("SimpleITK")
    theirs = sitk.ReadImage(str(tmp_path / "a.png"))
    np.testing.assert_allclose(
        theirs.TransformIndexToPhysicalPoint((6, 4)), (image.grid.world([6, 4]) * [-1, -1, 1])[:2]
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_grey_pngs_of_every_kind_are_read_and_colours_refused(tmp_path, rng, mode):
    from PIL import Image as Picture

    pixels = rng.integers(0, 2, (5, 7)).astype(np.uint8) * 255
    Picture.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.array.astype(float) / image.array.max(), pixels.T / 255)
    red = np.zeros((5, 7, 3), np.uint8)
    red[..., 0] = 200
    Picture.fromarray(red).save(tmp_path / "red.png")
    with pytest.raises(DataError, match="expected a grey image"):
        read_image(tmp_path / "red.png")


def test_what_a_png_cannot_hold_is_refused(tmp_path, volume):
    like = on(GRIDS_3D["oblique"], volume, tmp_path / "x")
    with pytest.raises(ValueError, match="2-D image of 8 or 16 bits"):
        write_image(tmp_path / "a.png", volume, like)
    for name in ("a.mhd", "a.jpg", "a"):
        with pytest.raises(ValueError, match="images are written as"):
            write_image(tmp_path / name, volume, like)


def test_numpy_files(tmp_path, rng):
    array = rng.normal(size=(4, 5, 6))
    np.savez(tmp_path / "vol.npz", vol=array, seg=array > 0)
    np.savez(tmp_path / "one.npz", array)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "two.npz", a=array, b=array)
    np.savez(tmp_path / "bad.npz", vol=array, affine=np.eye(3))
    for name in ("vol.npz", "one.npz", "a.npy"):
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.array, array)
        assert not image.oriented and image.spacing == (1, 1, 1)
    with pytest.raises(DataError, match=r"received \['a', 'b'\]"):
        read_image(tmp_path / "two.npz")
    with pytest.raises(DataError, match="affine"):
        read_image(tmp_path / "bad.npz")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="object.npy"):
        read_image(tmp_path / "object.npy")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".npz", ".npy", ".png"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.8])
def test_truncated_files_are_named(tmp_path, rng, suffix, kept):
    if suffix in (".mha", ".nrrd"):
        pytest.importorskip("SimpleITK")
    grid = GRIDS_2D["oblique"]
    array = rng.integers(0, 255, grid.shape).astype(np.uint8)
    path = write_image(tmp_path / f"a{suffix}", array, on(grid, array, tmp_path / "x"))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"a\{suffix}"):
        read_image(path)


@pytest.mark.parametrize("row", [[np.nan] * 4, [np.inf, 0, 0, 0]])
def test_an_affine_that_is_not_finite_is_refused(tmp_path, volume, row):
    nifti = nib.Nifti1Image(volume, np.eye(4))
    nifti.header["srow_x"], nifti.header["sform_code"] = row, 1
    nib.save(nib.Nifti1Image(volume, None, nifti.header), tmp_path / "a.nii")
    with pytest.raises(DataError, match="a.nii: the affine of the header"):
        read_image(tmp_path / "a.nii")


def test_an_affine_that_places_no_voxels_is_refused_where_it_is_used(tmp_path, volume):
    image = Image(volume, (1.0, 1, 1), np.diag([1.0, 0, 1, 1]), True, tmp_path / "a.nii")
    with pytest.raises(DataError, match="a.nii: .*parallel or zero"):
        _ = image.grid


def test_unknown_endings_and_empty_folders_are_named(tmp_path):
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(DataError, match="expected a file that ends in"):
        read_image(tmp_path / "a.xyz")
    pytest.importorskip("SimpleITK")
    with pytest.raises(DataError, match="no DICOM series"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "folder"])
def test_without_simpleitk_the_extra_is_named(tmp_path, monkeypatch, name, volume):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.mha").write_text("")
    (tmp_path / "a.nrrd").write_text("")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"hetmorph\[formats\]"):
        read_image(tmp_path / name)


def test_images_without_orientation_are_matched_voxel_by_voxel(tmp_path, volume):
    grid = GRIDS_3D["oblique"]
    silent, known = (on(grid, volume, tmp_path / name, name == "b") for name in "ab")
    other = on(GRIDS_3D["plain"], np.zeros(GRIDS_3D["plain"].shape), tmp_path / "c")
    assert matched_grid(silent, known).same(grid)
    assert matched_grid(other, known).same(GRIDS_3D["plain"])
    with pytest.raises(DataError, match="a: states no orientation"):
        matched_grid(silent, other)


def write_series(folder, array, grid, frames=1, series="1.2.826.1.3680043.2.1125.1", shuffle=True, skip=()):
    """A DICOM series slice by slice, its files named in an order that says nothing."""
    sitk = pytest.importorskip("SimpleITK")
    folder.mkdir(exist_ok=True)
    direction = grid.affine[:3, :3] / grid.spacing * [[-1], [-1], [1]]
    number = 0
    for t in range(frames):
        for z in range(grid.shape[2]):
            number += 1
            if number - 1 in skip:
                continue
            pixels = array[:, :, z, t] if frames > 1 else array[:, :, z]
            image = sitk.GetImageFromArray(np.ascontiguousarray(pixels.T[None]))
            image.SetSpacing(grid.spacing)
            position = grid.world([0, 0, z]) * [-1, -1, 1]
            tags = {
                "0008|0060": "MR",
                "0020|000e": series,
                "0020|000d": "1.2.826.1.3680043.2.1125.2",
                "0020|0032": "\\".join(f"{x:.6f}" for x in position),
                "0020|0037": "\\".join(f"{x:.8f}" for x in direction.T[:2].ravel()),
                "0020|0013": str(number),
                "0018|1060": str(40 * t),
                "0018|0050": f"{grid.spacing[2]:.6f}",
            }
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            name = f"{(number * 7) % 101 if shuffle else number:03d}_{series[-1]}.dcm"
            writer.SetFileName(str(folder / name))
            writer.Execute(image)
    return folder


@pytest.mark.parametrize("name", ["anisotropic", "oblique"])
def test_a_dicom_series_is_read_in_space(tmp_path, rng, name):
    grid = GRIDS_3D[name]
    array = rng.integers(0, 1000, grid.shape).astype(np.int16)
    folder = write_series(tmp_path / "dicom", array, grid)
    image = read_image(folder)
    found = image.grid.index(grid.world(grid.corners()))
    np.testing.assert_allclose(found, np.round(found), atol=1e-3)
    for index in rng.integers(0, grid.shape, (20, 3)):
        there = tuple(np.round(image.grid.index(grid.world(index))).astype(int))
        assert image.array[there] == array[tuple(index)]
    assert image.oriented and image.array.shape == grid.shape


def test_a_dicom_sequence_becomes_frames(tmp_path, rng):
    grid = GRIDS_3D["anisotropic"]
    cine = rng.integers(0, 1000, (*grid.shape, 3)).astype(np.int16)
    image = read_image(write_series(tmp_path / "dicom", cine, grid, frames=3))
    assert image.array.shape == (*grid.shape, 3) and len(image.frames()) == 3
    there = np.round(image.grid.index(grid.world([3, 4, 2]))).astype(int)
    np.testing.assert_array_equal(image.array[tuple(there)], cine[3, 4, 2])


def test_dicom_folders_that_are_not_one_complete_series(tmp_path, rng):
    grid = GRIDS_3D["anisotropic"]
    array = rng.integers(0, 1000, (*grid.shape, 2)).astype(np.int16)
    with pytest.raises(DataError, match="mm apart; some are missing"):
        read_image(write_series(tmp_path / "gap", array[..., 0], grid, skip=(2,)))
    with pytest.raises(DataError, match="1 to 2 frames a slice"):
        read_image(write_series(tmp_path / "frames", array, grid, frames=2, skip=(3,)))
    both = write_series(tmp_path / "both", array[..., 0], grid)
    write_series(both, array[..., 1], grid, series="1.2.826.1.3680043.2.1125.9")
    with pytest.raises(DataError, match="holds 2 DICOM series; name a file"):
        read_image(both)
    for series, frame in (("1", 0), ("9", 1)):
        image = read_image(next(both.glob(f"*_{series}.dcm")))
        there = np.round(image.grid.index(grid.world([3, 4, 2]))).astype(int)
        assert image.array[tuple(there)] == array[3, 4, 2, frame]
