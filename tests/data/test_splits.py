"""Division of patients."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetmorph.data import DataError, load_splits, make_splits, save_splits, splits_name
from hetmorph.data.splits import fewer

ACDC = {f"patient{n:03d}": ["NOR", "DCM", "HCM", "MINF", "RV"][n % 5] for n in range(80)}
KNOWN = {"train": ["p0", "p1", "p2", "p3", "p5", "p6", "p7"], "val": ["p8"], "test": ["p4", "p9"]}


def test_eighty_patients_give_sixty_eight_twelve_stratified():
    splits = make_splits(ACDC)
    assert {name: len(part) for name, part in splits.items()} == {"train": 60, "val": 8, "test": 12}
    assert set(Counter(ACDC[patient] for patient in splits["train"]).values()) == {12}
    for name in ("val", "test"):
        assert max((counts := Counter(ACDC[p] for p in splits[name])).values()) - min(counts.values()) <= 1
        assert len(counts) == 5


def test_known_answer_holds_on_every_machine():
    # written down once; a change would silently move patients between training and test
    assert make_splits({f"p{n}": "AB"[n % 2] for n in range(10)}, seed=3) == KNOWN


def test_fewer_training_patients_are_some_of_more():
    whole = make_splits(ACDC)
    few, more = (fewer(whole, count) for count in (10, 30))
    assert len(few["train"]) == 10 and set(few["train"]) < set(more["train"]) < set(whole["train"])
    assert all(few[part] == whole[part] for part in ("val", "test")) and fewer(few, 10) == few
    assert fewer(whole, 10, seed=1) != few and few["train"] == sorted(few["train"])
    for count in (0, 61):
        with pytest.raises(ValueError, match=rf"1 to 60 patients to train on, received {count}"):
            fewer(whole, count)


def test_order_of_the_folders_does_not_matter():
    assert make_splits(dict(reversed(ACDC.items()))) == make_splits(ACDC)


def test_seed_changes_the_division():
    assert make_splits(ACDC, seed=0) != make_splits(ACDC, seed=1)


@given(st.lists(st.sampled_from(["A", "B", None]), min_size=3, max_size=60), st.integers(0, 5))
def test_every_patient_is_in_exactly_one_part_and_none_is_empty(groups, seed):
    patients = {f"p{number}": group for number, group in enumerate(groups)}
    splits = make_splits(patients, seed)
    assert sorted(sum(splits.values(), [])) == sorted(patients)
    assert all(splits.values())


def test_the_official_test_folder_stays_the_test_part():
    held_out = [f"patient{n:03d}" for n in range(60, 80)]
    splits = make_splits(ACDC, held_out=held_out)
    assert splits["test"] == held_out
    assert (len(splits["train"]), len(splits["val"])) == (54, 6)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (1.0, 0.0)])
def test_fractions_must_sum_to_one(fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        make_splits(ACDC, fractions=fractions)


def test_unknown_held_out_patient_is_named():
    with pytest.raises(ValueError, match="patient999"):
        make_splits(ACDC, held_out=["patient999"])


def test_file_round_trip(tmp_path):
    splits = make_splits(ACDC)
    assert load_splits(save_splits(splits, tmp_path / "run" / "splits.json")) == splits


def test_a_file_may_name_its_data_set(tmp_path):
    splits = make_splits(ACDC)
    plain, named = save_splits(splits, tmp_path / "plain.json"), save_splits(splits, tmp_path / "named.json", "acdc")
    assert load_splits(named) == splits and splits_name(named) == "acdc"
    assert splits_name(plain) is None and "data" not in json.loads(plain.read_text())


@given(st.integers(6, 60), st.integers(0, 5))
def test_parts_of_at_least_two(count, seed):
    parts = make_splits({f"p{number}": None for number in range(count)}, seed, least=2)
    assert min(map(len, parts.values())) >= 2 and sum(map(len, parts.values())) == count


@pytest.mark.parametrize("count", [1, 3, 5])
def test_too_few_for_parts_of_two_are_all_for_training(count):
    parts = make_splits({f"p{number}": None for number in range(count)}, least=2)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [count, 0, 0]


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        json.dumps({"train": ["a"], "val": []}),
        json.dumps({"train": ["a"], "val": [], "test": ["a"]}),
        json.dumps({"train": "abc", "val": [], "test": []}),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(DataError, match="splits.json"):
        load_splits(tmp_path / "splits.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="gone.json"):
        load_splits(tmp_path / "gone.json")
