"""load(): names, splits, and errors of use."""

import dataclasses

import numpy as np
import pytest

from hetmorph import data
from hetmorph.data import DataError, datasets, load, save_splits
from hetmorph.data.splits import fewer
from tests.data import sets
from tests.data.conftest import SHAPE

SIZE = (16, 16)
FILES = [name for name in datasets() if data.dataset(name).files]
PARTS = ("train", "val", "test")


def folder_of(name, tmp_path):
    """A tiny set on disk, or None for one without files; enough subjects for two in each part."""
    if name not in sets.WRITERS:
        return None
    return sets.WRITERS[name](tmp_path, 20 if data.dataset(name).between else 4)


@pytest.mark.parametrize("name", datasets())
def test_every_name_loads_in_every_split(name, tmp_path):
    folder, size = folder_of(name, tmp_path), sets.SIZES.get(name, SIZE)
    parts = {split: load(name, folder, split=split, size=size) for split in (*PARTS, "all")}
    patients = {split: {pair.patient for pair in part.pairs} for split, part in parts.items()}
    assert patients["train"] | patients["val"] | patients["test"] == patients["all"]
    assert sum(map(len, patients.values())) == 2 * len(patients["all"])
    for split in PARTS:
        assert sorted(patients[split]) == parts["all"].splits[split]
    loaded = parts["all"]
    assert loaded.main in loaded.labels and 0 not in loaded.labels.values()
    assert len({pair.case_id for pair in loaded.pairs}) == len(loaded.pairs)
    for pair in loaded.pairs:
        assert pair.moving.shape == size and pair.moving.dtype == pair.fixed.dtype == np.float32
        assert min(pair.moving.min(), pair.fixed.min()) >= 0 and max(pair.moving.max(), pair.fixed.max()) <= 1
        assert pair.moving_labels.dtype == np.uint8
        assert set(np.unique(pair.moving_labels)) <= {0, *loaded.labels.values()}


@pytest.mark.parametrize("name", FILES)
def test_environment_variable_may_name_the_folder_of_all_sets(name, tmp_path, monkeypatch):
    for write in dict.fromkeys(sets.WRITERS.values()):
        write(tmp_path)
    monkeypatch.setenv("HETMORPH_DATA", str(tmp_path))
    loaded = load(name, split="all", size=sets.SIZES.get(name, SIZE))
    assert len({pair.patient for pair in loaded.pairs}) >= 4


@pytest.mark.parametrize("name", FILES)
def test_without_data_each_set_says_what_it_expects_and_where(name, tmp_path, monkeypatch):
    monkeypatch.delenv("HETMORPH_DATA", raising=False)
    for folder, message in (
        (None, "no data folder was given"),
        (tmp_path / "none", "no such folder"),
        (tmp_path, "found no"),
    ):
        with pytest.raises(DataError, match=f"{message}(?s:.*)Expected(?s:.*)--data-dir(?s:.*)HETMORPH_DATA"):
            load(name, folder)


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_named_or_its_case_left_out_and_listed(name, tmp_path):
    folder, size = folder_of(name, tmp_path), sets.SIZES.get(name, SIZE)
    before = load(name, folder, split="all", size=size)
    images = [path for path in folder.rglob("*.*z") if not path.match("*_gt*") and not path.match("*seg*")]
    victim = min(path for path in images if path.parent.name != "labelsTr")
    victim.write_bytes(victim.read_bytes()[:-50])
    with pytest.raises(DataError, match=f"{victim.name}: not a complete"):
        load(name, folder, split="all", size=size)
    after = load(name, folder, split="all", size=size, skip_bad=True)
    [(patient, reason)] = after.skipped
    assert patient in str(victim) and victim.name in reason
    assert after.splits == before.splits
    assert {pair.patient for pair in after.pairs} == {pair.patient for pair in before.pairs} - {patient}


@pytest.mark.parametrize("name", ["camus", "echo"])
def test_sets_with_a_choice_of_crop_take_each(name, tmp_path):
    folder = folder_of(name, tmp_path)
    default = load(name, folder, split="all")
    assert default.pairs[0].moving.shape == data.dataset(name).size
    by_crop = {crop: load(name, folder, split="all", crop=crop).pairs[0] for crop in data.dataset(name).crops}
    np.testing.assert_array_equal(by_crop[data.dataset(name).crops[0]].moving, default.pairs[0].moving)
    assert len(set(by_crop["aspect"].spacing)) == 1 < len(set(by_crop["paper"].spacing))


def same(one, other):
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for a, b in ((getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    )


def test_noise_and_known_warps_come_on_request_only(acdc_tree):
    options = {"split": "test", "size": (32, 32)}
    plain = load("acdc", acdc_tree, **options).pairs
    for one, other in zip(plain, load("acdc", acdc_tree, **options, noise=0, known_warp=0).pairs, strict=True):
        assert same(one, other)
    noisy = load("acdc", acdc_tree, **options, noise=0.1).pairs
    for one, other in zip(noisy, data.add_rician(plain, 0.1), strict=True):
        assert same(one, other)
    both = load("acdc", acdc_tree, **options, noise=0.1, known_warp=2.0, seed=0).pairs
    for one, other in zip(both, data.add_rician(data.warp_known(plain, 0, 2.0), 0.1, 0), strict=True):
        assert same(one, other) and one.sigma is not None and one.displacement is not None


def test_noise_replaces_that_of_the_phantom():
    pair = load("phantom", split="val", size=(32, 32), noise=0.05).pairs[0]
    clean = data.phantom.generate(8 * int(pair.patient[-3:]), size=(32, 32), noise=False)
    expected = data.add_rician(dataclasses.replace(clean, sigma=None), 0.05)
    np.testing.assert_array_equal(pair.fixed, expected.fixed)
    np.testing.assert_array_equal(pair.sigma, expected.sigma)


def test_phantom_loads_what_it_always_did():
    loaded = load("phantom", split="val", size=(32, 32))
    for pair in loaded.pairs[:8]:
        assert same(pair, data.phantom.generate(8 * int(pair.patient[-3:]) + pair.slice_index, size=(32, 32)))


def test_seed_moves_patients_and_nothing_else(acdc_tree):
    one, again, other = (load("acdc", acdc_tree, split="test", size=SIZE, seed=seed) for seed in (0, 0, 1))
    assert one.splits == again.splits != other.splits


@pytest.mark.parametrize("as_file", [True, False])
def test_a_given_division_is_used(acdc_tree, tmp_path, as_file):
    division = {"train": ["patient003"], "val": ["patient001"], "test": ["patient010"]}
    given = save_splits(division, tmp_path / "splits.json") if as_file else division
    loaded = load("acdc", acdc_tree, split="test", size=SIZE, splits=given)
    assert loaded.splits == division
    assert {pair.patient for pair in loaded.pairs} == {"patient010"}
    assert len(load("acdc", acdc_tree, split="all", size=SIZE, splits=given).pairs) == 10 * SHAPE[2]


def test_a_division_of_other_patients_is_refused(acdc_tree):
    division = {"train": [], "val": [], "test": ["patient777"]}
    with pytest.raises(DataError, match="not in the data: patient777"):
        load("acdc", acdc_tree, split="test", size=SIZE, splits=division)


def test_an_empty_part_is_said(patient):
    expected = (
        "val split is empty.* 1 patients found is train 1, val 0, test 0. .* at least 3. Split 'all'.*--split all"
    )
    with pytest.raises(DataError, match=expected):
        load("acdc", patient.folder.parent, split="val", size=SIZE)
    given = {"train": ["patient001"], "val": [], "test": []}
    with pytest.raises(DataError, match="the val split is empty") as caught:
        load("acdc", patient.folder.parent, split="val", size=SIZE, splits=given)
    assert "at least" not in str(caught.value)


@pytest.mark.parametrize("count", [6, 9, 14])
def test_parts_of_few_subjects_hold_a_pair(tmp_path, count):
    folder = sets.write_hippocampus(tmp_path, count)
    for split in PARTS:
        assert len(load("hippocampus", folder, split=split, size=(16, 16, 12)).pairs) >= 2
    with pytest.raises(DataError, match="the val split: .*received 2 subjects and rounds=2.*--split all"):
        load("hippocampus", folder, split="val", size=(16, 16, 12), rounds=2)


def test_the_whole_field_of_view_has_no_size(acdc_tree):
    assert load("acdc", acdc_tree, crop="none").pairs[0].moving.shape == SHAPE[:2]
    with pytest.raises(ValueError, match="expected size to be left out, crop 'none'"):
        load("acdc", acdc_tree, crop="none", size=SIZE)


def test_fewer_patients_are_trained_on_and_the_same_validated():
    whole, few = (load("phantom", split="train", size=(32, 32), patients=count) for count in (None, 3))
    assert few.splits == fewer(whole.splits, 3) and {pair.patient for pair in few.pairs} == set(few.splits["train"])
    again = load("phantom", split="val", size=(32, 32), splits=few.splits, patients=3)
    assert {pair.patient for pair in again.pairs} == set(whole.splits["val"]) and again.splits == few.splits
    scored = {"train": [], "val": [], "test": whole.splits["test"]}
    assert load("phantom", split="test", size=(32, 32), splits=scored, patients=3).splits == scored


def test_of_patients_outside_a_given_division_nothing_is_read(acdc_tree):
    (acdc_tree / "training" / "patient005" / "Info.cfg").unlink()
    given = {"train": ["patient001"], "val": ["patient002"], "test": ["patient003"]}
    assert len(load("acdc", acdc_tree, split="test", size=SIZE, splits=given).pairs) == SHAPE[2]
    given["test"].append("patient005")
    loaded = load("acdc", acdc_tree, split="test", size=SIZE, splits=given, skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["patient005"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "oasis"}, "expected name to be one of .*'oasis'"),
        ({"name": "phantom", "split": "testing"}, "expected split .*'testing'"),
        ({"name": "phantom", "crop": "centre"}, "expected crop .*'centre'"),
        ({"name": "phantom", "size": (128,)}, "expected size"),
        ({"name": "phantom", "size": (0, 16)}, "expected size"),
        ({"name": "phantom", "size": (16, 16, 16)}, "expected size as 2 positive"),
        ({"name": "hippocampus", "size": (16, 16)}, "expected size as 3 positive"),
        ({"name": "phantom", "crop": "center"}, "expected crop .*'paper'.*'center'"),
        ({"name": "hippocampus", "crop": "paper"}, "hippocampus' has no choice of it; received 'paper'"),
        ({"name": "phantom", "data_dir": "x"}, "needs no files; received x"),
        ({"name": "acdc", "rounds": 2}, "pairs within patients only; received 2"),
        ({"name": "hippocampus", "rounds": 0}, "rounds of at least 1, received 0"),
        ({"name": "phantom", "noise": -0.1, "size": (16, 16)}, "noise level"),
        ({"name": "phantom", "known_warp": -1.0, "size": (32, 32)}, "amplitude above 0"),
    ],
)
def test_wrong_choices_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_public_names_are_there():
    assert all(hasattr(data, name) for name in data.__all__)
