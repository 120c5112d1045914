"""The ACDC adapter: layout, axes, and every way in which files can be wrong."""

import gzip
import shutil
import time

import nibabel as nib
import numpy as np
import pytest

from hetmorph.data import DataError, acdc, load
from tests.data.conftest import SHAPE, SPACING, heart, write_nifti, write_patient

SIZE = (16, 16)


def read(patient, **options):
    return acdc.read_pairs(patient.folder, **{"size": SIZE, **options})[0]


# --- where the patients are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "training", "testing", "ACDC", "ACDC/training", "database/training"])
def test_patients_are_found_in_each_layout(tmp_path, inner):
    write_patient(tmp_path / inner / "patient007")
    folders, testing = acdc.find_patients(tmp_path)
    assert folders == {"patient007": tmp_path / inner / "patient007"}
    assert not testing  # a testing folder alone is a set like any other


def test_environment_variable_stands_in_for_the_flag(tmp_path, monkeypatch):
    write_patient(tmp_path / "training" / "patient001")
    monkeypatch.setenv("HETMORPH_DATA", str(tmp_path))
    assert list(acdc.find_patients(None)[0]) == ["patient001"]
    monkeypatch.setenv("HETMORPH_DATA", str(tmp_path / "elsewhere"))
    assert list(acdc.find_patients(tmp_path)[0]) == ["patient001"]  # the flag wins
    with pytest.raises(DataError, match="elsewhere: no such folder"):
        acdc.find_patients(None)


def test_patients_are_ordered_by_number_beyond_one_hundred(tmp_path):
    for number in (1000, 2, 101, 99):
        (tmp_path / f"patient{number:03d}").mkdir()
    assert list(acdc.find_patients(tmp_path)[0]) == ["patient002", "patient099", "patient101", "patient1000"]


def test_other_entries_are_ignored(tmp_path):
    (tmp_path / "patient001").mkdir()
    (tmp_path / "patient002").write_text("a file")
    (tmp_path / "patients").mkdir()
    (tmp_path / "MANDATORY_CITATION.md").write_text("")
    assert list(acdc.find_patients(tmp_path)[0]) == ["patient001"]


def test_official_testing_folder_is_the_test_split(tmp_path):
    for number in range(1, 7):
        write_patient(tmp_path / "training" / f"patient{number:03d}")
    write_patient(tmp_path / "testing" / "patient101")
    loaded = load("acdc", tmp_path, split="test", size=SIZE)
    assert loaded.splits["test"] == ["patient101"] == sorted({pair.patient for pair in loaded.pairs})
    assert len(load("acdc", tmp_path, split="all", size=SIZE).pairs) == 7 * SHAPE[2]


def test_a_patient_in_both_folders_is_an_error(tmp_path):
    for part in ("training", "testing"):
        (tmp_path / part / "patient001").mkdir(parents=True)
    with pytest.raises(DataError, match="also at"):
        acdc.find_patients(tmp_path)


@pytest.mark.parametrize("given", ["nothing", "no folder", "empty folder"])
def test_without_data_the_message_says_what_to_do(tmp_path, monkeypatch, given):
    monkeypatch.delenv("HETMORPH_DATA", raising=False)
    folder = {"nothing": None, "no folder": tmp_path / "none", "empty folder": tmp_path}[given]
    with pytest.raises(DataError) as error:
        load("acdc", folder)
    for expected in (
        "creatis.insa-lyon.fr/Challenge/acdc",
        "Human Heart Project",
        "ACDC/training/patient001/patient001_frame01.nii.gz",
        "--data-dir",
        "HETMORPH_DATA",
        "--data phantom",
    ):
        assert expected in str(error.value)


# --- what a pair is ---------------------------------------------------------------------------------------------------


def test_ed_is_moving_es_is_fixed_every_slice_a_sample_in_file_axes(patient):
    pairs = read(patient, crop="none")
    assert [pair.slice_index for pair in pairs] == list(range(SHAPE[2]))
    volumes = {name: np.asarray(nib.load(getattr(patient, name)).dataobj) for name in ("ed", "es", "ed_gt", "es_gt")}
    for z, pair in enumerate(pairs):
        for ours, theirs in ((pair.moving, volumes["ed"]), (pair.fixed, volumes["es"])):
            plane = theirs[:, :, z].astype(float)
            np.testing.assert_allclose(ours, (plane - plane.min()) / np.ptp(plane), atol=1e-6)
            assert ours.dtype == np.float32
        np.testing.assert_array_equal(pair.moving_labels, volumes["ed_gt"][:, :, z])
        np.testing.assert_array_equal(pair.fixed_labels, volumes["es_gt"][:, :, z])
        assert (pair.patient, pair.group, pair.spacing) == ("patient001", "DCM", SPACING[:2])
    assert len({pair.case_id for pair in pairs}) == len(pairs)


def test_paper_crop_is_centred_on_the_myocardium_of_end_diastole(patient):
    pairs = read(patient, size=(9, 9))
    # centroid (10, 8): columns 6..14 and 4..12
    np.testing.assert_array_equal(pairs[1].moving_labels, heart(4)[6:15, 4:13, 1])
    np.testing.assert_array_equal(pairs[1].fixed_labels, heart(2)[6:15, 4:13, 1])


def test_labels_that_a_crop_cuts_are_counted_and_said(tmp_path, caplog):
    write_patient(tmp_path / "patient001")
    loaded = load("acdc", tmp_path, split="all", size=(9, 9))
    outside = sum(np.count_nonzero(heart(r)[:, :, 0]) - np.count_nonzero(heart(r)[6:15, 4:13, 0]) for r in (4, 2))
    assert loaded.cut == {f"patient001_slice{z:02d}": outside for z in range(3)}
    assert "leaves labelled voxels outside in 3 of 4 slices" in caplog.text
    caplog.clear()
    assert load("acdc", tmp_path, split="all", size=(18, 18)).cut == {} and not caplog.text


def test_small_images_are_padded_with_background_after_stretching(patient):
    pair = read(patient, size=(32, 18))[0]
    assert pair.moving.shape == (32, 18)
    for array in (pair.moving, pair.fixed, pair.moving_labels):
        assert not array[:6].any() and not array[-6:].any()
    assert pair.moving[6:-6].min() == 0 and pair.moving.max() == 1


def test_label_free_crop_needs_no_labels(tmp_path):
    bare = write_patient(tmp_path / "patient001", labels=False)
    pairs = read(bare, crop="center")
    assert all(pair.moving_labels is None and pair.fixed_labels is None for pair in pairs)
    with pytest.raises(DataError, match="frame01_gt.nii.gz: no such file.*--crop center"):
        read(bare)
    assert len(load("acdc", tmp_path, split="all", crop="center", size=SIZE).unlabelled) == SHAPE[2]


def test_label_free_crop_does_not_look_at_labels(patient, tmp_path):
    with_labels = read(patient, crop="center", size=(8, 8))
    patient.ed_gt.unlink()
    patient.es_gt.unlink()
    for one, other in zip(with_labels, read(patient, crop="center", size=(8, 8)), strict=True):
        np.testing.assert_array_equal(one.moving, other.moving)


def test_uncompressed_files_are_read_too(tmp_path):
    one = read(write_patient(tmp_path / "patient001"))
    other = read(write_patient(tmp_path / "b" / "patient001", suffix=".nii"))
    np.testing.assert_array_equal(one[0].moving, other[0].moving)


def test_cine_stands_in_for_missing_frames(patient):
    expected = read(patient)
    cine = np.zeros((*SHAPE, 12), np.int16)
    cine[..., 0], cine[..., 8] = (np.asarray(nib.load(path).dataobj) for path in (patient.ed, patient.es))
    write_nifti(patient.folder / "patient001_4d.nii.gz", cine)
    patient.ed.unlink()
    patient.es.unlink()
    for one, other in zip(expected, read(patient), strict=True):
        np.testing.assert_array_equal(one.moving, other.moving)
        np.testing.assert_array_equal(one.fixed, other.fixed)
        np.testing.assert_array_equal(one.moving_labels, other.moving_labels)


def test_a_cine_that_is_too_short_is_named(patient):
    write_nifti(patient.folder / "patient001_4d.nii.gz", np.zeros((*SHAPE, 5), np.int16))
    patient.es.unlink()
    with pytest.raises(DataError, match="patient001_4d.nii.gz: ES is frame 9, the file holds 5 frames"):
        read(patient)


@pytest.mark.parametrize("value", [0, 700, -5])
def test_a_constant_slice_becomes_zeros_never_nan(patient, value):
    volume = np.asarray(nib.load(patient.ed).dataobj).copy()
    volume[:, :, 1] = value
    write_nifti(patient.ed, volume)
    pairs = read(patient)
    np.testing.assert_array_equal(pairs[1].moving, 0)
    assert pairs[0].moving.max() == 1


# --- Info.cfg ---------------------------------------------------------------------------------------------------------


def test_info_with_windows_lines_other_case_and_spaces(patient):
    patient.info.write_bytes(b"ed :1\r\n ES: 9 \r\nGroup:  HCM\r\n\r\nWeight: 80\r\n")
    assert acdc.read_info(patient.folder) == acdc.Info(1, 9, "HCM", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a line 'ED"),
        ("ED: 1\n", "expected a line 'ES"),
        ("ED: one\nES: 9\n", "received 'one'"),
        ("ED: 0\nES: 9\n", "received '0'"),
        ("ED: 1.5\nES: 9\n", "received '1.5'"),
        ("ED: 9\nES: 9\n", "same frame"),
        ("ED: 1\nES: 31\nNbFrame: 30\n", "NbFrame 30"),
        ("\x00\xff" * 20, "expected a line 'ED"),
    ],
)
def test_bad_info_is_named(patient, content, message):
    patient.info.write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=f"Info.cfg.*{message}"):
        acdc.read_info(patient.folder)


def test_missing_info_is_named(patient):
    patient.info.unlink()
    with pytest.raises(DataError, match="Info.cfg: no such file"):
        acdc.read_info(patient.folder)


# --- damaged and mismatched files -------------------------------------------------------------------------------------


def _truncate(patient):
    patient.es.write_bytes(patient.es.read_bytes()[:-300])


def _stop_inside_the_voxels(patient):
    patient.es.write_bytes(gzip.compress(gzip.decompress(patient.es.read_bytes())[:-100]))


def _nan(patient):
    volume = np.asarray(nib.load(patient.es).dataobj, np.float32)
    volume[3, 3, 1] = np.nan
    write_nifti(patient.es, volume)


def _fewer_slices(patient):
    write_nifti(patient.es, np.ones((*SHAPE[:2], 3), np.int16))


def _one_slice_without_its_axis(patient):
    write_nifti(patient.es, np.ones(SHAPE[:2], np.int16))


def _slices_first(patient):
    affine = np.diag([SPACING[2], SPACING[0], SPACING[1], 1])
    for name in ("ed", "es", "ed_gt", "es_gt"):
        path = getattr(patient, name)
        write_nifti(path, np.asarray(nib.load(path).dataobj).transpose(2, 0, 1).copy(), affine)


def _thick_axis_first(patient):
    for name in ("ed", "es"):
        path = getattr(patient, name)
        write_nifti(path, np.asarray(nib.load(path).dataobj), np.diag([8, 1.5, 1.5, 1]))


def _swapped_axes(patient):
    write_nifti(patient.es, np.asarray(nib.load(patient.es).dataobj).transpose(1, 0, 2).copy())


def _other_spacing(patient):
    write_nifti(patient.es, np.asarray(nib.load(patient.es).dataobj), np.diag([1.2, 1.2, 8, 1]))


def _flipped(patient):
    affine = np.diag([-1.5, 1.5, 8, 1])
    affine[0, 3] = 1.5 * (SHAPE[0] - 1)
    write_nifti(patient.es, np.asarray(nib.load(patient.es).dataobj), affine)


def _shifted(patient):
    affine = np.diag([*SPACING, 1])
    affine[1, 3] = 30
    write_nifti(patient.es_gt, heart(2), affine)


def _labels_on_another_grid(patient):
    write_nifti(patient.es_gt, heart(2)[:, :-1].copy())


def _unknown_label(patient):
    write_nifti(patient.es_gt, heart(2) * 2)


def _fractional_labels(patient):
    write_nifti(patient.es_gt, heart(2).astype(np.float32) * 0.5)


def _no_es(patient):
    patient.es.unlink()


def _no_ed_labels(patient):
    patient.ed_gt.unlink()


def _no_myocardium(patient):
    write_nifti(patient.ed_gt, np.where(heart(4) == 2, 0, heart(4)).astype(np.uint8))


def _web_page(patient):
    patient.ed.write_text("<html>login</html>")


def _no_info(patient):
    patient.info.unlink()


def _empty_folder(patient):
    shutil.rmtree(patient.folder)
    patient.folder.mkdir()


DAMAGE = {
    _truncate: "frame09.nii.gz.*truncated",
    _stop_inside_the_voxels: "frame09.nii.gz.*truncated",
    _nan: r"frame09.nii.gz: 1 voxels are NaN.*\(3, 3, 1\)",
    _fewer_slices: r"frame09.nii.gz: expected shape \(20, 18, 4\) as in patient001_frame01.nii.gz",
    _one_slice_without_its_axis: "frame09.nii.gz: expected an image with 3 dimensions",
    _slices_first: r"frame01.nii.gz: expected axes \(X, Y, slice\)",
    _thick_axis_first: r"frame01.nii.gz: expected axes \(X, Y, slice\).*8.0",
    _swapped_axes: r"frame09.nii.gz: expected shape \(20, 18, 4\).*received \(18, 20, 4\)",
    _other_spacing: "frame09.nii.gz: expected spacing",
    _flipped: "frame09.nii.gz: lies elsewhere than patient001_frame01.nii.gz",
    _shifted: "frame09_gt.nii.gz: lies elsewhere.*30.0 mm",
    _labels_on_another_grid: "frame09_gt.nii.gz: expected shape",
    _unknown_label: "frame09_gt.nii.gz: expected the labels 0 background.*received values 0, 2, 4, 6",
    _fractional_labels: "frame09_gt.nii.gz: expected the labels.*0.5",
    _no_es: r"frame09.nii.gz: no such file \(ES in Info.cfg\)",
    _no_ed_labels: "frame01_gt.nii.gz: no such file",
    _no_myocardium: "frame01_gt.nii.gz: holds no myocardium",
    _web_page: "frame01.nii.gz: not a complete NIfTI file",
    _no_info: "Info.cfg: no such file",
    _empty_folder: "Info.cfg: no such file",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda one: one.__name__.strip("_"))
def test_damage_is_named_at_once_or_skipped_and_listed(patient, damage):
    write_patient(patient.folder.parent / "patient002")
    damage(patient)
    with pytest.raises(DataError, match=DAMAGE[damage]):
        load("acdc", patient.folder.parent, split="all", size=SIZE)
    loaded = load("acdc", patient.folder.parent, split="all", size=SIZE, skip_bad=True)
    assert {pair.patient for pair in loaded.pairs} == {"patient002"}
    [(case, reason)] = loaded.skipped
    assert case == "patient001" and reason
    with pytest.raises(DataError, match=DAMAGE[damage]):  # the reason is the message
        raise DataError(reason)


def test_headers_without_orientation_are_not_held_against_each_other(patient):
    image = nib.load(patient.es_gt)
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
    bare.header.set_zooms(SPACING)
    bare.to_filename(patient.es_gt)
    assert not nib.load(patient.es_gt).header["sform_code"] and nib.load(patient.es_gt).affine[0, 3] != 0
    assert len(read(patient)) == SHAPE[2]


def test_a_set_without_one_good_case_is_an_error_even_when_skipping(patient):
    patient.ed.unlink()
    with pytest.raises(DataError, match="no usable case(?s:.*)frame01.nii.gz: no such file"):
        load("acdc", patient.folder.parent, split="all", size=SIZE, skip_bad=True)


def test_one_bad_file_does_not_move_other_patients_between_splits(acdc_tree):
    before = load("acdc", acdc_tree, split="train", size=SIZE)
    victim = before.splits["train"][2]
    (acdc_tree / "training" / victim / f"{victim}_frame01.nii.gz").write_bytes(b"")
    after = load("acdc", acdc_tree, split="train", size=SIZE, skip_bad=True)
    assert after.splits == before.splits
    assert [case for case, _ in after.skipped] == [victim]
    assert len(after.pairs) == len(before.pairs) - SHAPE[2]


# --- real hearts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(acdc_dir):
    start = time.perf_counter()
    loaded = load("acdc", acdc_dir, split="all")
    return loaded, time.perf_counter() - start


def test_real_slices_are_in_range_and_finite(real):
    for pair in real[0].pairs:
        assert pair.moving.shape == pair.fixed.shape == pair.moving_labels.shape == (128, 128)
        assert np.isfinite(pair.moving).all() and pair.moving.min() == 0 and pair.moving.max() == 1


def test_real_undeformed_overlap_is_the_one_known_for_acdc(real):
    overlap = {}
    for pair in real[0].pairs:
        score = overlap.setdefault(pair.patient, np.zeros(2))
        a, b = pair.moving_labels == 2, pair.fixed_labels == 2
        score += 2 * (a & b).sum(), a.sum() + b.sum()
    # .520 for all 100 patients of the training set, at 1.5 mm
    assert np.mean([both / total for both, total in overlap.values()]) == pytest.approx(0.52, abs=0.02)


@pytest.mark.slow
def test_real_myocardium_stays_inside_both_crops(real, acdc_dir):
    whole = load("acdc", acdc_dir, split="all", crop="none").pairs
    for loaded in (real[0], load("acdc", acdc_dir, split="all", crop="center")):
        for pair, full in zip(loaded.pairs, whole, strict=True):
            for mine, theirs in ((pair.moving_labels, full.moving_labels), (pair.fixed_labels, full.fixed_labels)):
                assert np.count_nonzero(mine == 2) == np.count_nonzero(theirs == 2), pair.case_id
        assert len(loaded.cut) <= 0.01 * len(whole)


def test_real_set_loads_in_seconds(real):
    assert real[1] < 60
