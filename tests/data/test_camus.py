"""The CAMUS adapter."""

import nibabel as nib
import numpy as np
import pytest

from hetmorph.data import DataError, load
from tests.data.sets import save, shell, write_camus

SPACING = (0.308, 0.154, 1.54)


@pytest.fixture
def folder(tmp_path):
    return write_camus(tmp_path, 1)


def read(folder, **options):
    return load("camus", folder, split="all", **{"size": (24, 24), **options}).pairs


def test_each_view_is_a_sample_ed_is_moving_es_is_fixed(folder):
    pairs = read(folder)
    assert [pair.case_id for pair in pairs] == ["patient0001_2CH", "patient0001_4CH"]
    assert {pair.patient for pair in pairs} == {"patient0001"}
    assert all(np.count_nonzero(p.moving_labels) > np.count_nonzero(p.fixed_labels) for p in pairs)


@pytest.mark.parametrize(
    ("crop", "spacing"), [("paper", (0.308 * 30 / 24, 0.154 * 44 / 24)), ("aspect", (0.385, 0.385))]
)
def test_spacing_follows_the_size(folder, crop, spacing):
    for pair in read(folder, crop=crop):
        np.testing.assert_allclose(pair.spacing, spacing, rtol=1e-5)
        assert pair.moving.shape == (24, 24)
        assert pair.moving.min() == pair.fixed.min() == 0 and pair.moving.max() == pair.fixed.max() == 1


@pytest.mark.parametrize("crop", ["paper", "aspect"])
def test_areas_in_millimetres_stay(folder, crop):
    labels = np.asarray(nib.load(folder / "patient0001" / "patient0001_4CH_ED_gt.nii.gz").dataobj)
    pair = read(folder, crop=crop, size=(200, 200))[1]
    for value in (1, 2, 3):
        area = np.count_nonzero(pair.moving_labels == value) * np.prod(pair.spacing)
        assert area == pytest.approx(np.count_nonzero(labels == value) * 0.308 * 0.154, rel=0.05)


def test_true_aspect_leaves_background_on_the_shorter_axis(folder):
    pair = read(folder, crop="aspect")[0]  # 30 x 0.308 = 9.24 mm, 44 x 0.154 = 6.78 mm: 17.6 of 24 voxels
    for array in (pair.moving, pair.fixed, pair.moving_labels):
        assert not array[:, :3].any() and not array[:, -3:].any() and array[:, 4:-4].any()


def test_one_view_alone_will_do(folder):
    for path in folder.rglob("*_4CH_*"):
        path.unlink()
    assert [pair.case_id for pair in read(folder)] == ["patient0001_2CH"]


def test_without_labels_the_cases_are_listed(folder):
    for path in folder.rglob("*_gt.nii.gz"):
        path.unlink()
    assert load("camus", folder, split="all", size=(24, 24)).unlabelled == ["patient0001_2CH", "patient0001_4CH"]


def _path(folder, what):
    return folder / "patient0001" / f"patient0001_2CH_{what}.nii.gz"


def _no_es(folder):
    _path(folder, "ES").unlink()


def _no_view(folder):
    for path in (folder / "patient0001").iterdir():
        path.unlink()


def _other_shape(folder):
    save(_path(folder, "ES"), np.ones((30, 43, 1), np.uint8), SPACING)


def _volume(folder):
    save(_path(folder, "ED"), np.ones((30, 44, 5), np.uint8), SPACING)


def _nan(folder):
    image = np.ones((30, 44, 1), np.float32)
    image[3, 4] = np.nan
    save(_path(folder, "ED"), image, SPACING)


def _wrong_label(folder):
    save(_path(folder, "ES_gt"), shell((30, 44, 1), 8, 4) * 4, SPACING)


def _other_spacing(folder):
    save(_path(folder, "ES_gt"), shell((30, 44, 1), 8, 4), (0.154, 0.308, 1.54))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_es, r"2CH_ES.nii.gz: no such file \(2CH ES\); add it"),
        (_no_view, "patient0001: expected patient0001_2CH_ED.nii.gz and others"),
        (
            _other_shape,
            r"2CH_ES.nii.gz: expected shape \(30, 44\) as in patient0001_2CH_ED.*received \(30, 43\).*Resample",
        ),
        (_volume, r"2CH_ED.nii.gz: expected an image with 2 dimensions, received shape \(30, 44, 5\)"),
        (_nan, "2CH_ED.nii.gz: 1 voxels are NaN"),
        (
            _wrong_label,
            "2CH_ES_gt.nii.gz: expected the labels 0 background, 1 lv, 2 myo, 3 la; received values 0, 4, 8",
        ),
        (_other_spacing, "2CH_ES_gt.nii.gz: expected spacing"),
    ],
)
def test_damage_is_named_or_skipped(tmp_path, damage, message):
    folder = write_camus(tmp_path, 2)
    damage(folder)
    with pytest.raises(DataError, match=message):
        read(folder)
    loaded = load("camus", folder, split="all", size=(24, 24), skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["patient0001"]
    assert {pair.patient for pair in loaded.pairs} == {"patient0002"}


def test_a_view_that_is_not_there_is_told(tmp_path, caplog):
    folder = write_camus(tmp_path, 2)
    for path in (folder / "patient0001").glob("*_4CH_*"):
        path.unlink()
    assert len(read(folder)) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'patient0001'}: no image of the view 4CH; only the other is a sample."
    ]


@pytest.mark.parametrize("crop", ["paper", "aspect"])
def test_real_views(data_dir, crop):
    if not (data_dir / "CAMUS").is_dir():
        pytest.skip(f"no CAMUS in {data_dir}")
    for pair in load("camus", data_dir, split="all", crop=crop).pairs:
        assert pair.moving.shape == (128, 128) and pair.moving.min() == 0 and pair.moving.max() == 1
        for labels in (pair.moving_labels, pair.fixed_labels):
            assert set(np.unique(labels)) == {0, 1, 2, 3}
        # the wall is thinner than the cavity is wide, and the heart is some centimetres long
        length = np.ptp(np.nonzero(pair.moving_labels == 2)[1]) * pair.spacing[1]
        assert 50 < length < 120
