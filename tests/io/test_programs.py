"""Images of other programs' formats, against nibabel and SimpleITK: where the voxels lie, and in which unit."""

import gzip
import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetmorph.io import DataError, Image, read_image, write_image
from tests.io.worlds import GRIDS_2D, GRIDS_3D

GRID = GRIDS_3D["oblique flipped permuted"]
SHIPPED = Path(nib.__file__).parent / "tests" / "data"  # with nibabel


@pytest.fixture
def volume(rng):
    return rng.integers(0, 1000, GRID.shape).astype(np.int16)


def shipped(name):
    if not (SHIPPED / name).is_file():
        pytest.skip(f"nibabel came without {name}")
    return SHIPPED / name


@pytest.mark.parametrize("suffix", [".mgz", ".mgh", ".mgh.gz"])
def test_freesurfers_volumes_are_read_and_written(tmp_path, volume, suffix):
    nib.save(nib.MGHImage(volume, GRID.affine), tmp_path / "theirs.mgz")
    image = read_image(tmp_path / "theirs.mgz")
    np.testing.assert_array_equal(image.array, volume)
    assert image.oriented and image.grid.same(GRID) and image.array.dtype.isnative
    written = write_image(tmp_path / f"ours{suffix}", volume, image)
    if suffix != ".mgh.gz":  # which nibabel does not know by its ending
        content = written.read_bytes()
        theirs = nib.MGHImage.from_bytes(content if suffix == ".mgh" else gzip.decompress(content))
        np.testing.assert_array_equal(theirs.dataobj, volume)
        np.testing.assert_allclose(theirs.affine, GRID.affine, atol=1e-4)
        assert theirs.get_data_dtype().newbyteorder("=") == np.int16
    np.testing.assert_array_equal(read_image(written).array, volume)


def test_a_volume_of_freesurfer_may_be_a_sequence_or_state_no_place(tmp_path, rng):
    cine = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    nifti = nib.Nifti1Image(cine, np.diag([1, 2, 3, 1.0]))
    nifti.header.set_zooms((1, 2, 3, 0.04))
    nifti.header.set_xyzt_units("mm", "sec")
    nib.save(nifti, tmp_path / "a.nii")
    path = write_image(tmp_path / "b.mgz", cine, read_image(tmp_path / "a.nii"))
    assert float(nib.load(path).header["tr"]) == pytest.approx(40)  # milliseconds
    again = read_image(path)
    np.testing.assert_array_equal(again.array, cine)
    assert again.spacing == pytest.approx((1, 2, 3, 40)) and again.time_unit == "msec"
    silent = Image(cine[..., 0], (1.0, 1, 1), np.eye(4), False, tmp_path / "x")
    assert not read_image(write_image(tmp_path / "c.mgz", silent.array, silent)).oriented


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(bool, np.uint8), (np.uint16, np.int32), (np.int64, np.int32), (np.float16, np.float32), (np.float64, None)],
)
def test_what_freesurfer_stores(tmp_path, dtype, stored):
    like = Image(np.ones((3, 4, 5), dtype), (1.0, 1, 1), np.eye(4), True, tmp_path / "x")
    if stored is None:
        with pytest.raises(ValueError, match="stores none of float64"):
            write_image(tmp_path / "a.mgz", like.array, like)
    else:
        kind = nib.load(write_image(tmp_path / "a.mgz", like.array, like)).get_data_dtype()
        assert kind.newbyteorder("=") == stored


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a.img"])
def test_truncated_files_are_named(tmp_path, volume, kept, name):
    kind = nib.Nifti1Pair if name == "a.img" else nib.MGHImage
    nib.save(kind(volume, GRID.affine), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=rf"{name}: not a complete"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("ending", [".hdr", ".img"])
def test_nifti_in_two_files(tmp_path, volume, ending):
    nifti = nib.Nifti1Pair(volume, np.diag([1e3, 1e3, 1e3, 1]) @ GRID.affine)
    nifti.header.set_xyzt_units("micron")
    nib.save(nifti, tmp_path / "a.img")
    image = read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(image.array, volume)
    assert image.oriented and image.grid.same(GRID)


def test_analyze_states_no_place_unless_spm_does(tmp_path, volume):
    nib.save(nib.AnalyzeImage(volume, np.diag([-1.5, 2, 3, 1])), tmp_path / "a.img")
    image = read_image(tmp_path / "a.hdr")
    assert not image.oriented and image.spacing == (1.5, 2, 3)
    nib.save(nib.Spm99AnalyzeImage(volume, GRID.affine), tmp_path / "b.img")
    assert (tmp_path / "b.mat").is_file()
    image = read_image(tmp_path / "b.img")
    assert image.oriented
    np.testing.assert_allclose(image.affine, nib.load(tmp_path / "b.img").affine)


@pytest.mark.parametrize("name", ["small.mnc", "tiny.mnc", "scaled+tlrc.HEAD", "phantom_EPI_asc_CLEAR_2_1.PAR"])
def test_what_else_nibabel_reads(name):
    """MINC (whose coordinates are RAS), AFNI, Philips: the same voxel at the same place, one frame or several."""
    theirs = nib.load(shipped(name), mmap=False)
    image = read_image(SHIPPED / name)
    np.testing.assert_allclose(image.affine, theirs.affine)
    np.testing.assert_allclose(image.array.squeeze(), np.asanyarray(theirs.dataobj).squeeze())
    if hasattr(getattr(theirs.dataobj, "file_like", None), "close"):
        theirs.dataobj.file_like.close()  # nibabel leaves that of Philips open
    assert image.oriented and image.array.shape[:3] == theirs.shape[:3]
    np.testing.assert_allclose(image.spacing[:3], image.grid.spacing, rtol=1e-5)


def test_frames_of_minc_come_last(tmp_path):
    theirs = nib.load(shipped("minc2_4d.mnc"))
    image = read_image(SHIPPED / "minc2_4d.mnc")
    assert image.array.shape == (*theirs.shape[1:], theirs.shape[0])
    np.testing.assert_allclose(image.frames()[1].array, np.asanyarray(theirs.dataobj)[1])


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd", ".gipl", ".vtk"])
def test_what_else_simpleitk_reads(tmp_path, volume, suffix):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(volume.T.copy())
    image.SetSpacing((1.5, 2, 3))
    image.SetOrigin((4, 5, 6))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    before = locale.setlocale(locale.LC_ALL)
    got = read_image(tmp_path / f"a{suffix}")
    assert locale.setlocale(locale.LC_ALL) == before
    theirs = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    locale.setlocale(locale.LC_ALL, before)  # which ITK's reader of VTK changes
    np.testing.assert_array_equal(got.array, volume)
    index = [3, 4, 5]
    np.testing.assert_allclose(theirs.TransformIndexToPhysicalPoint(index), got.grid.world(index) * [-1, -1, 1])


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".jpg"])
def test_pictures_have_columns_first_and_no_geometry(tmp_path, suffix):
    from PIL import Image as Picture

    pixels = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[:, None], 20, 1)  # 30 rows of 20
    Picture.fromarray(pixels).save(tmp_path / f"a{suffix}", dpi=(300, 300))
    image = read_image(tmp_path / f"a{suffix}")
    assert image.array.shape == (20, 30) and not image.oriented and image.spacing == (1, 1)
    np.testing.assert_allclose(image.array.astype(int), pixels.T, atol=2)


@pytest.mark.parametrize(("unit", "millimetres"), [("um", 1e-3), ("cm", 10), ("m", 1e3), ("mm", 1)])
@pytest.mark.parametrize("format", ["nrrd", "mhd"])
def test_units_that_itk_leaves_out_of_account(tmp_path, volume, format, unit, millimetres):
    sitk = pytest.importorskip("SimpleITK")
    if (format, unit) == ("mhd", "m"):
        pytest.skip("MetaImage knows mm, um and cm")
    image = sitk.GetImageFromArray(volume.T.copy())
    image.SetSpacing([size / millimetres for size in (1.5, 2, 3)])
    image.SetOrigin([place / millimetres for place in (4, 5, 6)])
    path = tmp_path / f"a.{format}"
    sitk.WriteImage(image, str(path))
    if format == "mhd":
        path.write_text(path.read_text().replace("ElementDataFile", f"DistanceUnits = {unit}\nElementDataFile"))
    else:
        head, blank, voxels = path.read_bytes().partition(b"\n\n")
        path.write_bytes(head + f'\nspace units: "{unit}" "{unit}" "{unit}"'.encode() + blank + voxels)
    image = read_image(path)
    np.testing.assert_allclose(image.spacing, (1.5, 2, 3), rtol=1e-6)
    np.testing.assert_allclose(image.grid.world([0, 0, 0]), (-4, -5, 6), rtol=1e-6)


def test_units_that_are_no_length_or_not_one_are_refused(tmp_path, volume):
    sitk = pytest.importorskip("SimpleITK")
    for units, received in (('"mm" "mm" "um"', r"\['mm', 'um'\]"), ('"voxel" "voxel" "voxel"', r"\['voxel'\]")):
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / "a.nrrd"))
        head, blank, voxels = (tmp_path / "a.nrrd").read_bytes().partition(b"\n\n")
        (tmp_path / "a.nrrd").write_bytes(head + f"\nspace units: {units}".encode() + blank + voxels)
        with pytest.raises(DataError, match=f"expected one unit.*received {received}"):
            read_image(tmp_path / "a.nrrd")


def test_a_single_slice_meets_a_picture(tmp_path, rng):
    """One as a volume of one slice, the other as 2-D image, whichever is asked for; the place stays."""
    grid = GRIDS_2D["oblique"]
    array = rng.normal(size=grid.shape).astype(np.float32)
    flat = Image(array, grid.spacing, grid.affine, True, tmp_path / "flat")
    stack = Image(array[..., None], (*grid.spacing, 1.0), grid.affine, True, tmp_path / "stack")
    assert flat.with_axes_of(stack).grid.same(stack.grid) and stack.with_axes_of(flat).grid.same(flat.grid)
    assert flat.with_axes_of(flat) is flat and stack.with_axes_of(stack) is stack
    volume = Image(np.zeros((4, 5, 6)), (1.0, 1, 1), np.eye(4), True, tmp_path / "volume")
    assert flat.with_axes_of(volume) is flat and volume.with_axes_of(flat) is volume
