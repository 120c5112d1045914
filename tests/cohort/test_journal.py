"""What is written stays; half a line, another run's file and a second writer do no harm."""

import errno
import json
import math
import os

import pytest

from hetmorph.cohort import Entries, Journal, journal
from hetmorph.cohort.shards import WHOLE, Shard

SETTINGS = {"model": "x.keras", "size": (32, 32)}


@pytest.fixture
def path(tmp_path):
    """A journal of two cases, in a folder that it has made."""
    with Journal(tmp_path / "new" / "j.jsonl", SETTINGS) as known:
        known.add("a", {"dice": math.nan, "failed": ""})
        known.add("b", {"dice": 0.1 + 0.2})
    return known.path


def test_entries_come_back_as_they_were_in_any_order(path):
    with Journal(path, SETTINGS) as known:
        assert [*known] == ["a", "b"] and len(known) == 2 and "a" in known and "c" not in known
        first, second = Entries(known, ["b", "a"])
        assert first == {"dice": 0.1 + 0.2} and math.isnan(second["dice"])


def test_the_last_entry_of_a_case_counts_and_the_same_is_not_written_twice(path):
    with Journal(path, SETTINGS) as known:
        size = path.stat().st_size
        known.add("b", {"dice": 0.1 + 0.2})
        assert path.stat().st_size == size
        known.add("a", {"dice": 1.0})
    with Journal(path, SETTINGS) as known:
        assert known["a"] == {"dice": 1.0} and len(known) == 2


def test_nothing_yet_makes_no_file(tmp_path):
    with Journal(tmp_path / "j.jsonl", SETTINGS) as known:
        assert len(known) == 0
        known.remove()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_what_a_killed_program_left_of_a_line_is_dropped(path, cut):
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - cut)
    with Journal(path, SETTINGS) as known:
        assert [*known] == ["a"]
        known.add("c", {"dice": 2})
    with Journal(path, SETTINGS) as known:
        assert [*known] == ["a", "c"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_other_settings_are_named_and_refused(path):
    with pytest.raises(ValueError, match="another noise, size;"):
        Journal(path, SETTINGS | {"size": (16, 16), "noise": 0.1})
    with pytest.raises(ValueError, match="another model, size;"):
        Journal(path)


@pytest.mark.parametrize("text", ["{\n", "[]\n", '{"settings": {}}\n{"row": 1}\n', "x\n"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "j.jsonl").write_text(text)
    with pytest.raises(ValueError, match="j.jsonl is damaged"):
        Journal(tmp_path / "j.jsonl", {})


def test_one_writes_at_a_time(path):
    with Journal(path, SETTINGS), pytest.raises(ValueError, match="written by another process"):
        Journal(path, SETTINGS)
    Journal(path, SETTINGS).close()


def test_a_full_disk_leaves_no_half_entry(path, monkeypatch):
    class Full:
        """A file that takes ten bytes more."""

        def __init__(self, file):
            self.file = file

        def write(self, content):
            self.file.write(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name):
            return getattr(self.file, name)

    before = path.read_bytes()
    with Journal(path, SETTINGS) as known:
        known._file = Full(known._file)
        with pytest.raises(OSError, match="No space left"):
            known.add("c", {"dice": 3})
        assert "c" not in known
    assert path.read_bytes() == before


def test_without_locks_of_the_system_all_else_is_the_same(path, monkeypatch):
    monkeypatch.setattr(journal, "fcntl", None)
    with Journal(path, SETTINGS) as known, Journal(path, SETTINGS):
        assert len(known) == 2


def test_parts_have_files_of_their_own():
    assert (WHOLE.table, WHOLE.journal) == ("cases.csv", "cases.partial.jsonl")
    assert (Shard.of("2/3").table, Shard(2, 3).journal) == ("cases-2-of-3.csv", "cases-2-of-3.partial.jsonl")
