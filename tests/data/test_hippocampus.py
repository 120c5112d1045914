"""The hippocampus adapter."""

import numpy as np
import pytest

from hetmorph.data import DataError, load
from tests.data.sets import picture, save, shell, write_hippocampus

SIZE = (16, 16, 12)


@pytest.fixture
def folder(tmp_path):
    return write_hippocampus(tmp_path, 5)


def read(folder, **options):
    return load("hippocampus", folder, split="all", **{"size": SIZE, **options})


def test_volumes_are_placed_in_the_middle_and_nothing_is_lost(folder):
    loaded = read(folder)
    assert len(loaded.pairs) == 5 and not loaded.cut
    for number, pair in enumerate(loaded.pairs, 1):
        labels = shell((9 + number, 12, 10), 4, 2)
        image = picture(labels, number).astype(float)
        start = (16 - 9 - number) // 2
        inner = (slice(start, start + 9 + number), slice(2, 14), slice(1, 11))
        assert pair.patient == f"hippocampus_{number:03d}"
        np.testing.assert_array_equal(pair.fixed_labels[inner], labels)
        np.testing.assert_allclose(pair.fixed[inner], (image - image.min()) / np.ptp(image), atol=1e-6)
        assert np.count_nonzero(pair.fixed_labels) == np.count_nonzero(labels)
        assert pair.fixed.sum() == pytest.approx(pair.fixed[inner].sum())


def test_a_small_window_cuts_from_the_middle_and_says_so(folder, caplog):
    loaded = read(folder, size=(6, 6, 6))
    assert len(loaded.cut) == len(loaded.pairs) == 5
    assert "The crop to (6, 6, 6) leaves labelled voxels outside in 5 of 5 pairs" in caplog.text
    names = {f"hippocampus_{n:03d}": np.count_nonzero(shell((9 + n, 12, 10), 4, 2)) for n in range(1, 6)}
    for pair in loaded.pairs:
        inside = np.count_nonzero(pair.moving_labels) + np.count_nonzero(pair.fixed_labels)
        assert loaded.cut[pair.case_id] + inside == sum(names[one] for one in pair.case_id.split("_to_"))


def test_files_that_begin_with_a_dot_are_no_subjects(folder):
    (folder / "imagesTr" / "._hippocampus_001.nii.gz").write_bytes(b"left by an archive")
    assert len(read(folder).pairs) == 5


def test_subjects_without_labels_are_listed(folder):
    (folder / "labelsTr" / "hippocampus_002.nii.gz").unlink()
    assert len(read(folder).unlabelled) == 2  # once moving, once fixed


def test_rounds_add_pairs(folder):
    assert len(read(folder, rounds=3).pairs) == 15
    with pytest.raises(DataError, match="received 5 subjects and rounds=5"):
        read(folder, rounds=5)


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        ("labelsTr", np.ones((11, 12, 9), np.uint8), r"expected shape \(11, 12, 10\)"),
        ("labelsTr", np.full((11, 12, 10), 3, np.uint8), "expected the labels 0 background, 1 anterior, 2 posterior"),
        ("labelsTr", np.full((11, 12, 10), 0.5, np.float32), ".*received values 0.5"),
        ("imagesTr", np.full((11, 12, 10), np.inf, np.float32), "1320 voxels are NaN or infinite"),
        ("imagesTr", np.ones((11, 12, 10, 2), np.float32), "expected an image with 3 dimensions"),
        ("imagesTr", np.ones((11, 12), np.float32), "expected an image with 3 dimensions"),
    ],
)
def test_damage_is_named_or_skipped(folder, part, array, message):
    save(folder / part / "hippocampus_002.nii.gz", array)
    with pytest.raises(DataError, match=f"{part}/hippocampus_002.nii.gz: {message}"):
        read(folder)
    loaded = read(folder, skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["hippocampus_002"]
    assert len(loaded.pairs) == 4 and all("002" not in pair.case_id for pair in loaded.pairs)


def test_real_volumes_lose_nothing_in_the_default_size(data_dir):
    if not (data_dir / "Task04_Hippocampus").is_dir():
        pytest.skip(f"no Task04_Hippocampus in {data_dir}")
    loaded = load("hippocampus", data_dir, split="all")
    assert not loaded.cut and not loaded.unlabelled
    overlap = []
    for pair in loaded.pairs:
        assert pair.moving.shape == (48, 64, 48) and pair.moving.max() == 1
        assert {1, 2} <= set(np.unique(pair.fixed_labels))
        a, b = pair.moving_labels > 0, pair.fixed_labels > 0
        overlap.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert 0.5 < np.mean(overlap) < 0.8  # boxes round the same structure: centred, not yet registered
