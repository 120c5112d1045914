"""Pairs between subjects."""

import re
from collections import Counter
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetmorph.data import DataError, load
from hetmorph.data.dataset import Subject
from hetmorph.data.subjects import misfits, pair_of, ring
from tests.data.sets import save, write_hippocampus

IMAGE = np.zeros((2, 2), np.float32)
KNOWN = [("s002", "s000"), ("s003", "s001"), ("s001", "s002"), ("s000", "s003")]


def subjects(count):
    return [Subject(name, IMAGE, None, (1.0, 1.0)) for name in names(count)]


def names(count):
    return [f"s{number:03d}" for number in range(count)]


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(1, 3), st.integers(0, 3))
def test_each_is_as_often_moving_as_fixed_never_with_itself_and_no_pair_comes_twice(count, rounds, seed):
    if rounds >= count:
        return
    pairs = ring(names(count), seed, rounds)
    assert len(set(pairs)) == len(pairs) == count * rounds
    assert all(moving != fixed for moving, fixed in pairs)
    for role in (0, 1):
        assert set(Counter(pair[role] for pair in pairs).values()) == {rounds}


def test_one_round_is_one_ring():
    after = dict(ring(names(20)))
    seen, place = set(), "s000"
    while place not in seen:
        seen.add(place)
        place = after[place]
    assert len(seen) == 20


def test_pairs_follow_from_seed_and_names_alone():
    one = ring(names(12), 1)
    assert one == ring(names(12)[::-1], 1) != ring(names(12), 2)
    # written down once; a change would silently change every test set of pairs
    assert ring(names(4)) == KNOWN


def test_the_fixed_subject_is_the_patient_and_gives_the_order():
    fixed = [one for _, one in ring(names(7), rounds=2)]
    assert fixed == sorted(fixed)
    assert pair_of(*subjects(2)).patient == "s001"


def test_voxels_cut_from_either_are_counted(tmp_path):
    folder = write_hippocampus(tmp_path, 4)
    loaded = load("hippocampus", folder, split="all", size=(6, 6, 6))
    for pair in loaded.pairs:
        files = [folder / "labelsTr" / f"{name}.nii.gz" for name in pair.case_id.split("_to_")]
        there = sum(np.count_nonzero(nib.load(file).dataobj) for file in files)
        left = np.count_nonzero(pair.moving_labels) + np.count_nonzero(pair.fixed_labels)
        assert loaded.cut[pair.case_id] == there - left > 0


@pytest.mark.parametrize(("count", "rounds"), [(1, 1), (0, 1), (3, 3), (3, 0)])
def test_too_few_subjects_are_said(count, rounds):
    with pytest.raises(DataError, match=f"received {count} subjects and rounds={rounds}"):
        ring(names(count), rounds=rounds)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"spacing": (1.0, 1.2)}, r"s001: expected spacing \(1.0, 1.0\) mm as most .*received \(1.0, 1.2\)"),
        ({"axes": ("L", "A")}, r"s001: expected axes \('R', 'A'\) as most .*received \('L', 'A'\).*--skip-bad"),
    ],
)
def test_subjects_on_other_voxels_are_named(other, reason):
    usual = [replace(one, axes=("R", "A")) for one in subjects(4)]
    usual[2] = replace(usual[2], axes=None, spacing=(1.005, 1.0))
    assert misfits(usual) == {} == misfits(subjects(3))
    usual[1] = replace(usual[1], **other)
    [(name, said)] = misfits(usual).items()
    assert name == "s001" and re.search(reason, said)


@pytest.mark.parametrize("affine", [np.diag([1.0, 1, 1.5, 1]), np.diag([-1.0, 1, 1, 1])])
def test_a_file_on_other_voxels_is_named_or_skipped(tmp_path, affine):
    folder = write_hippocampus(tmp_path, 4)
    for part in ("imagesTr", "labelsTr"):
        path = folder / part / "hippocampus_002.nii.gz"
        save(path, np.asarray(nib.load(path).dataobj), affine=affine)
    with pytest.raises(DataError, match="hippocampus_002: expected"):
        load("hippocampus", folder, split="all", size=(16, 16, 12))
    loaded = load("hippocampus", folder, split="all", size=(16, 16, 12), skip_bad=True)
    assert [name for name, _ in loaded.skipped] == ["hippocampus_002"] and len(loaded.pairs) == 3
