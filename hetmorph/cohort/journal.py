"""What is known of the cases of a run that goes on, on disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nobody is kept from writing twice
    fcntl = None

_CASE, _SETTINGS = "case", "settings"


class Journal:
    """Entries of cases in one file, a line of JSON each, written as they come.

    Whatever ends the program, every whole line stays, and half a line is dropped by who goes on. Nothing is kept in
    memory but where the line of each case begins. One process writes at a time.

    Args:
        path: the file; it is made with the first entry.
        settings: whatever decides the entries (model, data, …), JSON values; the first line.

    Raises:
        ValueError: the file is damaged, was begun with other settings, or another process writes it.

    Example:
        >>> with Journal("out/cases.partial.jsonl", {"model": "demons"}) as journal:
        ...     journal.add("a", {"dice": 0.9})
        ...     journal["a"]
        {'dice': 0.9}
    """

    def __init__(self, path: Path | str, settings: Mapping | None = None):
        self.path, self.settings = Path(path), json.loads(json.dumps(settings))
        self._places: dict[str, int] = {}
        self._file = self._lines = None
        if self.path.exists():
            self._open()
            try:
                self._read()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """Names of the cases, in the order in which they came."""
        return iter(self._places)

    def __contains__(self, case: str) -> bool:
        return case in self._places

    def __getitem__(self, case: str) -> dict:
        """The last entry of a case."""
        entry = json.loads(self._line(self._places[case]))
        del entry[_CASE]
        return entry

    def add(self, case: str, entry: Mapping) -> None:
        """Write the entry of a case, unless the same is there.

        Args:
            case: its name.
            entry: JSON values; "case" is no name among them.

        Raises:
            OSError: the disk is full, or likewise; nothing of the entry is left.
        """
        line = _line_of({_CASE: case, **entry})
        if case in self._places and self._line(self._places[case]) == line:
            return
        if self._file is None:
            self._open()
        if self._end() == 0:
            self._append(_line_of({_SETTINGS: self.settings}))
        self._places[case] = self._append(line)

    def close(self) -> None:
        """Let others write."""
        for file in (self._file, self._lines):
            if file is not None:
                file.close()
        self._file = self._lines = None

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.close()
        self._places.clear()
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            self.close()
            raise ValueError(f"{self.path} is being written by another process; wait for it, or stop it") from error

    def _read(self) -> None:
        """Find the lines; drop what a stopped program left of its last one."""
        place, before = 0, None
        with open(self.path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    if place == 0:
                        before = entry[_SETTINGS] or {}
                    else:
                        self._places[entry[_CASE]] = place
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{self.path} is damaged ({error!r}); delete it to start over") from error
                place += len(line)
        self._file.truncate(place)
        now = self.settings or {}
        names = sorted({} if before is None else before.keys() | now.keys())
        if changed := [name for name in names if before.get(name) != now.get(name)]:
            raise ValueError(f"{self.path} was begun with another {', '.join(changed)}; delete it to start over")

    def _line(self, place: int) -> bytes:
        if self._lines is None:
            self._lines = open(self.path, "rb")  # noqa: SIM115
        self._lines.seek(place)
        return self._lines.readline()

    def _end(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def _append(self, line: bytes) -> int:
        """Write a line, all of it or nothing; where it begins."""
        place = self._end()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self._file.truncate(place)
            raise
        return place


class Entries(Sequence):
    """The entries of some cases of a journal, read when they are asked for.

    Args:
        journal: it.
        cases: their names, in the order that is wanted.
    """

    def __init__(self, journal: Journal, cases: Sequence[str]):
        self._journal, self._cases = journal, cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> dict:
        return self._journal[self._cases[index]]


def _line_of(entry: Mapping) -> bytes:
    return (json.dumps(entry) + "\n").encode()
