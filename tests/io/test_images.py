"""hetmorph.io.images against files that are good, odd, and broken."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from hetmorph.io import DataError, DataWarning, Transform, read_image, read_transform, write_image, write_transform
from hetmorph.io.images import find_image


@pytest.fixture
def array(rng):
    return rng.integers(0, 1000, (7, 5, 3)).astype(np.int16)


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.25, 8, 1]) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_array_and_geometry_come_back(tmp_path, array, suffix):
    image = read_image(save(tmp_path / f"a{suffix}", array), ndim=3)
    np.testing.assert_array_equal(image.array, array)
    assert image.spacing == (1.5, 1.25, 8.0)
    np.testing.assert_array_equal(image.affine, np.diag([1.5, 1.25, 8, 1]))
    assert image.oriented


def test_scale_and_intercept_of_the_header_are_applied(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    values = np.linspace(-2.5, 7.5, 24).reshape(4, 3, 2)
    nib.save(nib.Nifti1Image(values, np.eye(4), header), tmp_path / "a.nii.gz")  # stored as scaled integers
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz").array, values, atol=1e-3)


def test_nifti2_is_read(tmp_path, array):
    nib.save(nib.Nifti2Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, array)


def test_a_header_without_orientation_is_told_apart(tmp_path, array):
    nifti = nib.Nifti1Image(array, None)
    nifti.header["qform_code"] = nifti.header["sform_code"] = 0
    nib.save(nifti, tmp_path / "a.nii")
    assert not read_image(tmp_path / "a.nii").oriented


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="gone.nii.gz: no such file"):
        read_image(tmp_path / "gone.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6, 0.99])
def test_truncated_file_is_named(tmp_path, array, suffix, kept):
    path = save(tmp_path / f"a{suffix}", array)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"a\.nii.*truncated or damaged"):
        read_image(path)


def test_a_flipped_bit_that_still_decodes_is_noticed(tmp_path, array):
    raw = save(tmp_path / "a.nii", array).read_bytes()
    packed = bytearray(gzip.compress(raw, compresslevel=0))  # stored blocks: any voxel byte may change unnoticed
    packed[-20] ^= 1
    path = tmp_path / "b.nii.gz"
    path.write_bytes(bytes(packed))
    with pytest.raises(DataError, match="b.nii.gz.*CRC"):
        read_image(path)


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_text("<html>Please log in</html>" * 100)
    with pytest.raises(DataError, match="a.nii.gz: not a complete NIfTI file"):
        read_image(path)


def test_wrong_number_of_dimensions_is_stated(tmp_path, array):
    with pytest.raises(DataError, match=r"expected an image with 4 dimensions, received shape \(7, 5, 3\)"):
        read_image(save(tmp_path / "a.nii", array), ndim=4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_located(tmp_path, array, value):
    array = array.astype(np.float32)
    array[6, 0, 2] = value
    path = save(tmp_path / "a.nii.gz", array)
    with pytest.raises(DataError, match=r"a\.nii\.gz: 1 voxels are NaN or infinite, the first at \(6, 0, 2\)"):
        read_image(path)
    assert not np.isfinite(read_image(path, finite=False).array).all()


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colours_and_complex_numbers_are_refused(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), dtype), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataError, match="expected one real number a voxel"):
        read_image(tmp_path / "a.nii")


def test_find_image_prefers_the_compressed_file(tmp_path, array):
    assert find_image(tmp_path / "a") is None
    save(tmp_path / "a.nii", array)
    assert find_image(tmp_path / "a").name == "a.nii"
    save(tmp_path / "a.nii.gz", array)
    assert find_image(tmp_path / "a").name == "a.nii.gz"


def cine(path, codes, unit="msec"):
    nifti = nib.Nifti1Image(np.zeros((4, 3, 2, 5), np.int16), np.diag([1.5, 1.25, 8, 1]))
    nifti.header.set_zooms((1.5, 1.25, 8, 40))
    nifti.header.set_xyzt_units("mm", unit)
    nifti.set_sform(nifti.affine, codes[0])
    nifti.set_qform(nifti.affine, codes[1])
    nib.save(nifti, path)
    return path


@pytest.mark.parametrize("unit", ["sec", "msec", "usec", "unknown"])
def test_the_frames_of_a_cine_stay_as_far_apart(tmp_path, unit):
    image = read_image(cine(tmp_path / "a.nii.gz", (1, 1), unit))
    header = nib.load(write_image(tmp_path / "b.nii.gz", image.array, image)).header
    assert header["pixdim"][4] == 40 and header.get_xyzt_units() == ("mm", unit)
    pytest.importorskip("SimpleITK")
    seconds = {"msec": 0.04, "usec": 4e-5}.get(unit, 40)
    assert read_image(write_image(tmp_path / "b.nrrd", image.array, image)).spacing[3] == pytest.approx(seconds)


@pytest.mark.parametrize("codes", [(4, 1), (2, 2), (1, 0), (0, 1), (0, 3)])
def test_which_world_it_is_stays_known(tmp_path, codes):
    """Of images and of transforms, through a grid alone too."""
    image = read_image(cine(tmp_path / "a.nii.gz", codes))
    written = [write_image(tmp_path / "b.nii.gz", image.array, image)]
    written.append(write_image(tmp_path / "c.nii.gz", image.array[..., 0], image.grid))
    transform = Transform(np.zeros((4, 3, 2, 3)), image.grid)
    written.append(write_transform(tmp_path / "t.nii.gz", transform))
    for path in written:
        header = nib.load(path).header
        assert (header["sform_code"], header["qform_code"]) == codes, path
    assert read_transform(tmp_path / "t.nii.gz").grid.codes == codes


def test_a_qform_of_another_place_is_told_of_and_stays_what_it_is(tmp_path):
    """Whoever prefers the qform sees the result where the fixed image is, whoever prefers the sform too."""
    nifti = nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([1.5, 1.25, 8, 1]))
    elsewhere = np.array([[-1.5, 0, 0, 5], [0, 1.25, 0, -7], [0, 0, 8, 9], [0, 0, 0, 1]])
    nifti.set_sform(nifti.affine, 4)
    nifti.set_qform(elsewhere, 1)
    nib.save(nifti, tmp_path / "a.nii.gz")
    with pytest.warns(DataWarning, match=r"a\.nii\.gz: its sform \(code 4\).*qform \(code 1\) 1[0-9.]+ mm from there"):
        image = read_image(tmp_path / "a.nii.gz")
    assert image.codes == (4, 0)  # of the grid: vectors have the frame of the sform
    again = nib.load(write_image(tmp_path / "b.nii", image.array, image))
    np.testing.assert_array_equal(again.affine, nifti.affine)
    assert (again.header["sform_code"], again.header["qform_code"]) == (4, 1)
    np.testing.assert_allclose(again.get_qform(), elsewhere, atol=1e-5)
    zeros = Transform(np.zeros((4, 3, 2, 3)), image.grid)
    header = nib.load(write_transform(tmp_path / "t.nii.gz", zeros)).header
    assert (header["sform_code"], header["qform_code"]) == (4, 0)


def test_pixdim_that_contradicts_the_affine_is_told_of(tmp_path):
    nifti = nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([2.0, 2, 2, 1]))
    nifti.set_sform(nifti.affine, 2)
    nifti.set_qform(None, 0)
    nifti.header["pixdim"][1:4] = 1
    nib.save(nifti, tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header.get_zooms() == (1, 1, 1)
    with pytest.warns(DataWarning, match="pixdim says voxels of 1 × 1 × 1 mm, the sform of 2 × 2 × 2 mm"):
        image = read_image(tmp_path / "a.nii")
    assert image.spacing == image.grid.spacing == (2, 2, 2)
    assert nib.load(write_image(tmp_path / "b.nii", image.array, image)).header.get_zooms() == (2, 2, 2)


@pytest.mark.parametrize(("unit", "millimetres"), [("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (2, 0), (0, 0)])
def test_headers_in_other_units_are_read_and_written_in_mm(tmp_path, array, unit, millimetres, codes):
    """nibabel leaves the unit to the reader; SimpleITK is asked where the voxels lie."""
    affine = np.array([[-1.5, 0, 0, 30], [0, 1.25, 0, -20], [0, 0, 8, -10], [0, 0, 0, 1]])
    theirs = np.diag([*[1 / millimetres] * 3, 1]) @ affine
    nifti = nib.Nifti1Image(array, theirs)
    nifti.set_sform(theirs, codes[0])
    nifti.set_qform(theirs, codes[1])
    nifti.header.set_xyzt_units(unit)
    nib.save(nifti, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.spacing, (1.5, 1.25, 8), rtol=1e-5)
    np.testing.assert_allclose(image.grid.spacing, (1.5, 1.25, 8), rtol=1e-5)
    path = write_image(tmp_path / "b.nii.gz", array, image)
    assert nib.load(path).header.get_xyzt_units()[0] == "mm"
    if any(codes):
        np.testing.assert_allclose(image.affine, affine, rtol=1e-5)
        sitk = pytest.importorskip("SimpleITK")
        for itk in (sitk.ReadImage(str(tmp_path / "a.nii.gz")), sitk.ReadImage(str(path))):
            np.testing.assert_allclose(itk.GetSpacing(), (1.5, 1.25, 8), rtol=1e-5)
            np.testing.assert_allclose(itk.GetOrigin(), (-30, 20, -10), rtol=1e-5)


def test_the_unit_of_vxm_load_volfile_is_mm_too(tmp_path, array):
    from hetmorph.voxelmorph.py.utils import load_volfile

    nifti = nib.Nifti1Image(array, np.diag([1500.0, 1250, 8000, 1]))
    nifti.header.set_xyzt_units("micron")
    nib.save(nifti, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(load_volfile(tmp_path / "a.nii.gz", ret_affine=True)[1], np.diag([1.5, 1.25, 8, 1]))


@pytest.mark.parametrize("suffix", [".nii.gz", ".npy", ".npz", ".nrrd"])
@pytest.mark.parametrize("ones", [1, 2])
def test_last_axes_of_one_are_those_of_no_sequence(tmp_path, array, suffix, ones):
    path, more = tmp_path / f"a{suffix}", array.reshape(*array.shape, *[1] * ones)
    if suffix == ".nii.gz":
        save(path, more)
    elif suffix == ".npy":
        np.save(path, more)
    elif suffix == ".npz":
        np.savez(path, vol=more)
    else:
        sitk = pytest.importorskip("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(array.T[None]), isVector=False), str(path))
    image = read_image(path, ndim=3)
    np.testing.assert_array_equal(image.array, array)
    assert len(image.spacing) == 3 and image.grid.shape == array.shape
    assert read_image(save(tmp_path / "slice.nii", array[:, :, :1])).array.shape == (7, 5, 1)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy"])
def test_a_header_that_promises_too_much_is_named(tmp_path, array, suffix):
    """Before memory is asked for."""
    path, huge = tmp_path / f"a{suffix}", (30000, 30000, 30000)
    if suffix == ".npy":
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": huge})
    else:
        nifti = nib.Nifti1Image(array, np.eye(4))
        raw = bytearray(nifti.to_bytes())
        raw[40:48] = np.array([3, *huge], "<i2").tobytes()
        path.write_bytes(gzip.compress(bytes(raw)) if suffix == ".nii.gz" else bytes(raw))
    with pytest.raises(DataError, match=rf"a\{suffix}: not a complete.*header promises") as caught:
        read_image(path)
    assert "MemoryError" not in str(caught.value)
