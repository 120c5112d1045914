"""Several data sets as one: each as it is alone, and nobody's labels or patients are taken for another's."""

import numpy as np
import pytest

from hetmorph import data
from hetmorph.data import DataError, load, save_splits
from tests.data import sets
from tests.data.test_csv_pairs import rows_of

SIZE = (16, 16)
BOTH = "acdc+sunnybrook"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    sets.write_acdc(root)
    sets.write_sunnybrook(root)
    return root


@pytest.fixture(scope="module")
def joined(folder):
    return load(BOTH, folder, split="all", size=SIZE)


def test_each_set_is_what_it_is_alone(folder, joined):
    start = 0
    for name, part in joined.parts.items():
        alone = load(name, folder, split="all", size=SIZE)
        assert part.labels == alone.labels and part.main == alone.main and part.splits == alone.splits
        own = joined.pairs[start : start + len(alone.pairs)]
        start += len(alone.pairs)
        new = {alone.labels[one]: joined.labels[f"{name}/{one}"] for one in alone.labels} | {0: 0}
        for pair, case, mine, by_itself in zip(own, own.cases, part.pairs, alone.pairs, strict=True):
            assert pair.dataset == case.dataset == name and data.Case.of(pair) == case
            assert (pair.case_id, pair.patient) == (f"{name}/{by_itself.case_id}", f"{name}/{by_itself.patient}")
            assert pair.spacing == by_itself.spacing
            for role in ("moving", "fixed"):
                np.testing.assert_array_equal(getattr(pair, role), getattr(by_itself, role))
                labels = getattr(by_itself, f"{role}_labels")
                np.testing.assert_array_equal(getattr(mine, f"{role}_labels"), labels)
                np.testing.assert_array_equal(getattr(pair, f"{role}_labels"), np.vectorize(new.get)(labels))
    assert start == len(joined.pairs)


def test_no_two_structures_have_one_number(joined):
    assert joined.labels == {"acdc/rv": 1, "acdc/myo": 2, "acdc/lv": 3, "sunnybrook/lv_endo": 4}
    assert joined.main is None and {pair.moving_labels.dtype for pair in joined.pairs} == {np.dtype(np.uint8)}
    seen = {name: set() for name in joined.parts}
    for pair in joined.pairs:
        seen[pair.dataset] |= set(np.unique(pair.fixed_labels)) - {0}
    assert seen == {"acdc": {1, 2, 3}, "sunnybrook": {4}}


def test_the_division_is_that_of_each_set_and_survives_its_file(folder, joined, tmp_path):
    for name, part in joined.parts.items():
        assert data.splits_of(joined.splits, name) == part.splits
    path = save_splits(joined.splits, tmp_path / "splits.json", BOTH)
    again = load(BOTH, folder, split="test", size=SIZE, splits=path)
    assert list(dict.fromkeys(pair.patient for pair in again.pairs)) == joined.splits["test"]
    alone = save_splits(joined.parts["acdc"].splits, tmp_path / "acdc.json", "acdc")
    with pytest.raises(ValueError, match="patients of a division of several sets as acdc/NAME, received 'patient"):
        load(BOTH, folder, size=SIZE, splits=alone)


def test_each_set_may_have_a_folder_of_its_own(folder, joined):
    where = f"sunnybrook={folder / 'Sunnybrook'},acdc={folder / 'ACDC'}"
    assert load(BOTH, where, split="all", size=SIZE).cases == joined.cases


def test_options_go_to_the_sets_that_have_them(folder):
    loaded = load("acdc+phantom", folder, split="val", size=SIZE, crop="center")
    alone = load("acdc", folder, split="val", size=SIZE, crop="center")
    np.testing.assert_array_equal(loaded.pairs[0].fixed, alone.pairs[0].fixed)


@pytest.mark.parametrize(
    ("name", "where", "options", "message"),
    [
        ("acdc+brains", None, {}, "received 'brains' in 'acdc\\+brains'"),
        ("acdc+acdc", None, {}, "each name of 'acdc\\+acdc' once"),
        ("acdc+hippocampus", None, {}, "same number of dimensions, received acdc 2-D, hippocampus 3-D"),
        ("acdc+oasis2d", None, {}, r"size .* own differ: acdc \(128, 128\), oasis2d \(160, 192\)"),
        (BOTH, None, {"crop": "aspect"}, "crop to be one of"),
        (BOTH, None, {"rounds": 2}, "rounds=1, acdc\\+sunnybrook have pairs within patients only"),
        (BOTH, "acdc=x", {}, "one folder of all sets, or acdc=DIR,sunnybrook=DIR; received acdc=x"),
        (BOTH, "acdc=x,sunnybrook=", {}, "one folder of all sets"),
        (BOTH, "acdc=x,acdc=y,sunnybrook=z", {}, "one folder of all sets"),
        ("phantom+triangles", "x", {}, "none of the sets needs files; received x"),
    ],
)
def test_what_cannot_be_joined_is_told(name, where, options, message):
    with pytest.raises(ValueError, match=message):
        load(name, where, **options)


def test_the_members_of_a_name(tmp_path):
    assert data.members(BOTH) == ("acdc", "sunnybrook") and data.members("acdc") == ()
    with pytest.raises(DataError, match=r"no folder|no such folder"):
        load(BOTH, tmp_path / "none")


@pytest.fixture
def table(tmp_path):
    """Three sets in one table, the last of which is there to be scored only."""
    names, splits = (
        ["a", "b", "a", "b", "a", "c", "b", "c"],
        ["train", "train", "val", "val", "test", "test", "test", "test"],
    )
    return sets.write_table(tmp_path, 8, dataset=names, split=splits)


def test_sets_of_a_table_are_what_their_rows_are_alone(table, caplog):
    assert data.members(table) == ("a", "b", "c")
    rows = rows_of(table)
    for split, names in {"train": "ab", "val": "ab", "test": "abc", "all": "abc"}.items():
        caplog.clear()
        joined = load(table, split=split)
        assert list(joined.parts) == list(names)
        assert [one.getMessage() for one in caplog.records] == [
            f"{name}: no patient in the {split} split, which does without." for name in "abc" if name not in names
        ]
        for name, part in joined.parts.items():
            own = [
                {key: cell for key, cell in row.items() if key != "dataset"} for row in rows if row["dataset"] == name
            ]
            alone = load(sets.write_csv(table.with_name("alone.csv"), own), split=split)
            assert (part.labels, part.main) == (alone.labels, alone.main) == ({"label_1": 1, "label_2": 2}, "label_1")
            for pair, by_itself in zip(part.pairs, alone.pairs, strict=True):
                np.testing.assert_array_equal(pair.fixed, by_itself.fixed)


def test_the_division_of_a_run_leaves_sets_that_are_scored_only(table, tmp_path):
    path = save_splits(load(table, split="train").splits, tmp_path / "splits.json", str(table))
    again = load(table, split="test", splits=path)
    assert list(again.parts) == ["a", "b", "c"] and len(again.pairs) == 4


def test_sets_of_a_table_are_divided_each_by_itself(tmp_path):
    table = sets.write_table(tmp_path, 9, dataset=["a"] * 3 + ["b"] * 6)
    for split in ("train", "val", "test"):
        assert list(load(table, split=split).parts) == ["a", "b"]


def test_a_table_of_one_set_is_as_without_the_column(tmp_path):
    loaded = load(sets.write_table(tmp_path, 3, dataset=["a"] * 3), split="all")
    assert not loaded.parts and loaded.main == "label_1" and loaded.pairs[0].dataset is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", ""], "line 4: the cell dataset is empty"),
        (["a", "b", "x/y"], "line 4: expected a name of a set that a folder can have, received 'x/y'"),
    ],
)
def test_a_column_of_sets_is_whole(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        load(sets.write_table(tmp_path, 3, dataset=names), split="all")


def test_unknown_columns_are_told_of_once(tmp_path, caplog):
    load(sets.write_table(tmp_path, 3, dataset=list("aab"), colour=list("rgb")), split="all")
    assert len(caplog.records) == 1 and "['colour'] are not used" in caplog.text
