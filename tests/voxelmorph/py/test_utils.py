"""VoxelMorph's numpy utilities: reading and writing files, and the names that were broken."""

import nibabel
import numpy as np
import pytest

from hetmorph import py
from hetmorph.py.utils import load_labels, load_pheno_csv, load_volfile, save_volfile
from hetmorph.voxelmorph.original import vxm

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def test_every_public_name_of_the_original_is_there():
    original = vxm.py.utils
    names = {n for n, v in vars(original).items() if callable(v) and v.__module__ == original.__name__}
    assert names <= set(vars(py.utils))
    assert vxm.default_unet_features() == py.utils.default_unet_features()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz"])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_reads_medical_files(suffix, dtype, tmp_path, rng):
    """nibabel 5 removed what the original reads them with."""
    data = (100 * rng.uniform(size=(4, 5, 6))).astype(dtype)
    image = nibabel.MGHImage(data, AFFINE) if suffix == ".mgz" else nibabel.Nifti1Image(data, AFFINE)
    path = tmp_path / f"image{suffix}"
    nibabel.save(image, path)
    volume, affine = load_volfile(path, ret_affine=True)
    np.testing.assert_array_equal(volume, data)
    assert volume.dtype == data.dtype
    np.testing.assert_allclose(affine, AFFINE)


def test_scaled_nifti_is_read_in_its_own_unit(tmp_path):
    image = nibabel.Nifti1Image(np.arange(8, dtype="int16").reshape(2, 2, 2), AFFINE)
    image.header.set_slope_inter(0.5, 1.0)
    nibabel.save(image, tmp_path / "scaled.nii")
    expected = nibabel.load(tmp_path / "scaled.nii").get_fdata()
    np.testing.assert_allclose(load_volfile(str(tmp_path / "scaled.nii")), expected)


def test_reads_numpy_files_and_arrays(tmp_path):
    data = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "one.npz", anything=data)
    np.savez(tmp_path / "two.npz", vol=data, seg=data + 1)
    for source in (tmp_path / "a.npy", tmp_path / "one.npz", tmp_path / "two.npz", data):
        np.testing.assert_array_equal(load_volfile(source), data)
    np.testing.assert_array_equal(load_volfile(str(tmp_path / "two.npz"), np_var="seg"), data + 1)
    assert load_volfile(data, add_batch_axis=True, add_feat_axis=True, pad_shape=(4, 4)).shape == (1, 4, 4, 1)
    assert load_volfile(data, add_feat_axis=True, resize_factor=2).shape == (4, 6, 1)
    assert load_volfile((data, AFFINE), ret_affine=True)[1] is AFFINE


def bad_files(folder):
    (folder / "text.txt").write_text("hello")
    (folder / "empty.nii").write_bytes(b"")
    good = folder / "good.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(20, 20, 20)), AFFINE), good)
    (folder / "truncated.nii.gz").write_bytes(good.read_bytes()[:2000])
    (folder / "broken.npz").write_bytes(b"PK nothing")
    np.savez(folder / "names.npz", a=np.zeros(2), b=np.zeros(2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.nii", "no such file.*missing.nii"),
        ("text.txt", "text.txt.*expected a file that ends in .nii"),
        ("empty.nii", "empty.nii"),
        ("truncated.nii.gz", "truncated.nii.gz.*damaged"),
        ("broken.npz", "broken.npz"),
        ("names.npz", r"\['a', 'b'\].*np_var='vol'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name, message, tmp_path):
    bad_files(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_volfile(tmp_path / name)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "uint8"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".npz"])
def test_what_is_saved_is_loaded(dtype, suffix, tmp_path):
    data = np.array([[[0, 1], [1, 0]]]).astype(dtype)
    save_volfile(data, tmp_path / f"x{suffix}", AFFINE)
    np.testing.assert_array_equal(load_volfile(tmp_path / f"x{suffix}").squeeze(), data.squeeze())


def test_saving_an_unknown_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="x.txt"):
        save_volfile(np.zeros((2, 2)), tmp_path / "x.txt")


def test_load_labels_of_a_folder(tmp_path):
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", vol=np.array([[0, i], [3, 0]]))
    labels, maps = load_labels(tmp_path)
    assert labels.tolist() == [0, 1, 3]
    assert len(maps) == 2


@pytest.mark.parametrize("with_files", [False, True])
def test_load_pheno_csv(with_files, tmp_path):
    """Without a list of files the original fails."""
    (tmp_path / "p.csv").write_text("name,age,sex\na.npz,60,1\nb.npz,70,0\n\n")
    files = [f"/data/{n}.npz" for n in "abc"] if with_files else None
    pheno, found = load_pheno_csv(tmp_path / "p.csv", files)
    assert found == (["/data/a.npz", "/data/b.npz"] if with_files else ["a.npz", "b.npz"])
    np.testing.assert_array_equal(pheno[found[1]], [70, 0])


def test_names_that_scipy_removed_work():
    """`scipy.ndimage.interpolation` and `.morphology` are gone."""
    square = np.zeros((9, 9))
    square[2:7, 2:7] = 1
    distance = py.utils.signed_dist_trf(square)
    assert distance[4, 4] == -3 and distance[0, 4] == 2
    assert py.utils.vol_to_sdt(square, sdt_vol_resize=2).shape == (18, 18)
    assert py.utils.sdt_to_surface_pts(distance, 10).shape == (10, 2)
    assert py.utils.clean_seg(square, 0.5).sum() == pytest.approx(25, abs=5)
    np.testing.assert_allclose(py.utils.jacobian_determinant(np.zeros((5, 5, 2))), 1)
