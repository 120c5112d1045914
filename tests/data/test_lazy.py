"""Sets larger than memory: pairs are read when needed, few are alive at once, and the numbers stay the same."""

import dataclasses
import weakref
from collections import Counter

import numpy as np
import pytest

from hetmorph.data import csv_pairs, load, pipeline, subset
from hetmorph.data.lazy import RECENT, Kept, LazyPairs
from hetmorph.data.pair import Case, Pair
from hetmorph.data.pipeline import READERS
from tests.data.sets import write_acdc, write_csv, write_hippocampus, write_table

SHAPE = (20, 24)
KB = 1000 / 2**30  # in GiB


class Watched:
    """Makes pairs and counts those that are alive."""

    def __init__(self):
        self.alive, self.most, self.made = weakref.WeakSet(), 0, Counter()

    def __call__(self, *arguments, **named):
        pair = Pair(*arguments, **named)
        self.alive.add(pair)
        self.most, self.made[pair.case_id] = max(self.most, len(self.alive)), self.made[pair.case_id] + 1
        return pair


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(csv_pairs, "Pair", watch := Watched())
    return watch


@pytest.fixture(scope="module")
def atlas_table(tmp_path_factory):
    """Forty images on one atlas: to the table all of them are one patient."""
    folder = tmp_path_factory.mktemp("atlas")
    rows = []
    with open(write_table(folder, 40, SHAPE, ())) as file:
        rows = [dict(zip(("moving", "fixed"), line.strip().split(","), strict=True)) for line in file][1:]
    return write_csv(folder / "pairs.csv", [row | {"fixed": rows[0]["fixed"], "split": "train"} for row in rows])


def everything(pairs, **options):
    return [
        np.concatenate([x.ravel() for x in batch[0]])
        for batch in pipeline(pairs, 4, 12, 0, **options).as_numpy_iterator()
    ]


@pytest.mark.parametrize("count", [10, 40])
def test_few_pairs_are_alive_at_once_however_many_there_are(watched, atlas_table, count):
    loaded = load(atlas_table, memory=0)
    loaded = dataclasses.replace(loaded, pairs=loaded.pairs[:count])
    for _ in pipeline(loaded.pairs, 4, 20, 0):
        pass
    assert sum(watched.made.values()) > 40 + 20 * 4 / 2  # read when needed: only the last few are ever at hand
    assert watched.most <= RECENT + 2 * READERS


def test_what_fits_into_memory_is_read_once(watched, atlas_table):
    everything(load(atlas_table).pairs)
    assert set(watched.made.values()) == {1}


def test_the_budget_says_how_many_stay(watched, atlas_table):
    one = 2 * 4 * np.prod(SHAPE) / 1000
    pairs = load(atlas_table, memory=10.5 * one * KB).pairs
    for _ in range(3):
        for _ in pairs:
            pass
    assert Counter(watched.made.values()) == {1: 10, 4: 30}


@pytest.mark.quick("write_acdc-acdc-size0-options0")
@pytest.mark.parametrize("options", [{}, {"noise": 0.1, "known_warp": 1.5}])
@pytest.mark.parametrize(("write", "name", "size"), [
    (write_acdc, "acdc", (16, 16)), (write_hippocampus, "hippocampus", (16, 16, 16)),
])  # fmt: skip
def test_numbers_do_not_depend_on_the_memory(tmp_path, write, name, size, options):
    folder = write(tmp_path, 4)
    all_there, few, none = (
        everything(load(name, folder, split="all", size=size, memory=memory, **options).pairs)
        for memory in (4, 40 * KB, 0)
    )
    for one, *others in zip(all_there, few, none, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_a_set_that_does_not_fit_is_said(atlas_table, caplog):
    load(atlas_table, memory=0)
    assert "the 40 pairs take more than the 0 GiB of memory" in caplog.text
    caplog.clear()
    load(atlas_table)
    assert not caplog.text


def test_a_slice_of_lazy_pairs_reads_nothing():
    cases = [Case(f"c{k}", "p", None, None, (2, 2), (1.0, 1.0)) for k in range(5)]
    read = []
    pairs = LazyPairs(cases, range(5), lambda key: read.append(key) or key)
    part = pairs[1:4]
    assert [case.case_id for case in part.cases] == ["c1", "c2", "c3"] and len(part) == 3 and not read
    assert list(part) == [1, 2, 3] and part[-1] == 3
    with pytest.raises(IndexError):
        part[3]


def test_kept_results_stay_and_others_are_computed_anew():
    calls = Counter()

    def make(key):
        calls[key] += 1
        return np.zeros(10, np.uint8)

    kept = Kept(make, 25)
    for _ in range(3):
        for key in range(8):
            kept(key)
    assert kept.full and [calls[key] for key in range(8)] == [1, 1, 3, 3, 3, 3, 3, 3]
    kept.forget()
    assert [kept(0) is kept(0), calls[0]] == [True, 2]  # the last ones stay


@pytest.mark.parametrize(
    ("write", "name", "size", "options"),
    [(write_acdc, "acdc", (32, 32), {}), (write_hippocampus, "hippocampus", None, {})],
)
def test_another_process_gets_pairs_without_their_images(tmp_path, write, name, size, options):
    """As they go to workers: some of them, which read their own files there."""
    pickle = pytest.importorskip("cloudpickle")
    write(tmp_path)
    pairs = load(name, data_dir=tmp_path, split="all", size=size, noise=0.1, **options).pairs
    packed = pickle.dumps(subset(pairs, [2]))
    assert len(packed) < 30_000
    (there,) = pickle.loads(packed)
    assert there.case_id == pairs.cases[2].case_id
    np.testing.assert_array_equal(there.moving, pairs[2].moving)
    np.testing.assert_array_equal(there.fixed, pairs[2].fixed)
