"""Several data sets as one: which they are, where they lie, whose patients and labels are whose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hetmorph.data.lazy import LazyPairs
from hetmorph.data.pair import LoadedSet, Pair
from hetmorph.data.splits import NAMES, OWNER


def join(parts: Mapping[str, LoadedSet]) -> LoadedSet:
    """Loaded sets as one, whose pairs say which set they are of.

    Names of patients, cases and structures get that of their set before them: "acdc/patient001". Label values are
    numbered anew, 1 … K over the structures of all sets, since the same value means something else in each.

    Args:
        parts: the sets by name, their pairs read when they are asked for.

    Returns:
        Their pairs, one set after the other, without a `main` structure; `parts` are the sets as they were.
    """
    labels, renumbered = {}, []
    for name, part in parts.items():
        new = {value: len(labels) + place for place, value in enumerate(part.labels.values(), 1)}
        labels |= {_of(name, structure): new[value] for structure, value in part.labels.items()}
        renumbered.append(new)
    members = [_Member(name, part.pairs, new) for (name, part), new in zip(parts.items(), renumbered, strict=True)]
    keys = [(number, place) for number, member in enumerate(members) for place in range(len(member.pairs))]
    cases = [
        case._replace(case_id=_of(name, case.case_id), patient=_of(name, case.patient), dataset=name)
        for name, part in parts.items()
        for case in part.cases
    ]
    return LoadedSet(
        LazyPairs(cases, keys, _Reader(members)),
        [(_of(name, patient), reason) for name, part in parts.items() for patient, reason in part.skipped],
        {one: [_of(name, who) for name, part in parts.items() for who in part.splits[one]] for one in NAMES},
        {_of(name, case): lost for name, part in parts.items() for case, lost in part.cut.items()},
        labels,
        parts=dict(parts),
    )


def check_owners(splits: Mapping[str, list[str]], names: Sequence[str]) -> None:
    """Refuse a division of several sets that names a patient of none of them.

    Args:
        splits: the division.
        names: the names of the sets.

    Raises:
        ValueError: a patient is of no set.
    """
    begins = tuple(f"{name}{OWNER}" for name in names)
    if strange := [who for part in NAMES for who in splits[part] if not who.startswith(begins)]:
        raise ValueError(
            f"expected patients of a division of several sets as {begins[0]}NAME, received {strange[0]!r} and "
            f"{len(strange) - 1} others of none of {', '.join(names)}."
        )


def folders(names: Sequence[str], given: Path | str | None) -> dict[str, Path | str | None]:
    """Where each of several sets lies.

    Args:
        names: the names of the sets that lie on disk.
        given: one folder, that holds them all; or "acdc=DIR,oasis2d=DIR"; or None.

    Raises:
        ValueError: folders of some sets and not of others, of an unknown one, or twice; or of sets without files.
    """
    if given is not None and not names:
        raise ValueError(f"expected data_dir to be left out, none of the sets needs files; received {given}.")
    if given is None or not re.match(r"[\w-]+=", str(given)):
        return dict.fromkeys(names, given)
    entries = [entry.partition("=") for entry in re.split(r",(?=[\w-]+=)", str(given))]
    found = {name: folder for name, _, folder in entries}
    if len(found) < len(entries) or set(found) != set(names) or not all(found.values()):
        wanted = ",".join(f"{name}=DIR" for name in names)
        raise ValueError(f"expected one folder of all sets, or {wanted}; received {given}.")
    return found


@dataclass(frozen=True)
class _Member:
    """One of the sets, and the new number of each of its label values."""

    name: str
    pairs: Sequence[Pair]
    numbers: Mapping[int, int]


class _Reader:
    """Function of (set, place in it) that returns a pair of the whole; a class, so that other processes can have it."""

    def __init__(self, members: Sequence[_Member]):
        self._members = members

    def __call__(self, key: tuple[int, int]) -> Pair:
        member = self._members[key[0]]
        pair = member.pairs[key[1]]
        return replace(
            pair,
            case_id=_of(member.name, pair.case_id),
            patient=_of(member.name, pair.patient),
            dataset=member.name,
            **{side: _renumbered(getattr(pair, side), member.numbers) for side in ("moving_labels", "fixed_labels")},
        )


def _renumbered(labels: np.ndarray | None, numbers: Mapping[int, int]) -> np.ndarray | None:
    """Labels with other values; those that nobody named become background."""
    if labels is None or not numbers:
        return labels
    largest = max(int(labels.max()), *numbers)
    table = np.zeros(largest + 1, np.uint8 if max(numbers.values()) < 256 else np.uint16)
    table[list(numbers)] = list(numbers.values())
    return table[labels]


def _of(name: str, what: str) -> str:
    return f"{name}{OWNER}{what}"
