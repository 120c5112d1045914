"""load(): names, splits, and errors of use."""

import pytest

from hetmorph import data
from hetmorph.data import DataError, datasets, load, save_splits
from tests.data.conftest import SHAPE

SIZE = (16, 16)


def test_every_name_loads_in_every_split(acdc_tree):
    for name in datasets():
        parts = {split: load(name, acdc_tree, split=split, size=SIZE) for split in ("train", "val", "test", "all")}
        patients = {split: {pair.patient for pair in part.pairs} for split, part in parts.items()}
        assert patients["train"] | patients["val"] | patients["test"] == patients["all"]
        assert sum(map(len, patients.values())) == 2 * len(patients["all"])
        for split in ("train", "val", "test"):
            assert sorted(patients[split]) == parts["all"].splits[split]
        assert all(pair.moving.shape == SIZE for pair in parts["all"].pairs)


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
    with pytest.raises(DataError, match="the val split is empty: 1 patients found"):
        load("acdc", patient.folder.parent, split="val", size=SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "oasis"}, "expected name to be one of .*'oasis'"),
        ({"name": "phantom", "split": "testing"}, "expected split .*'testing'"),
        ({"name": "phantom", "crop": "centre"}, "expected crop .*'centre'"),
        ({"name": "phantom", "size": (128,)}, "expected size"),
        ({"name": "phantom", "size": (0, 16)}, "expected size"),
    ],
)
def test_wrong_choices_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_public_names_are_there():
    assert all(hasattr(data, name) for name in data.__all__)
