"""A cohort divided among processes that know nothing of each other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One of so many parts of a cohort.

    Attributes:
        number: from 1.
        count: how many there are.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """What `I/N` says, from 1/N to N/N.

        Args:
            text: as it was typed.

        Raises:
            ValueError: it says something else.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"expected I/N with I from 1 to N, such as 2/5, received {text}")
        return cls(int(found[1]), int(found[2]))

    def cases(self, names: Iterable[str]) -> list[str]:
        """Those of the cases that are its own: by a hash of the name, so that no other row of the table matters.

        Args:
            names: the names of all cases.
        """
        return [name for name in names if _hash(name) % self.count == self.number - 1]

    @property
    def table(self) -> str:
        """Name of the file with its verdicts and scores."""
        return f"{self._stem}.csv"

    @property
    def journal(self) -> str:
        """Name of the file in which they are gathered."""
        return f"{self._stem}.partial.jsonl"

    @property
    def _stem(self) -> str:
        return "cases" if self.count == 1 else f"cases-{self.number}-of-{self.count}"


WHOLE = Shard()


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
