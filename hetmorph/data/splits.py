"""Patient-level division into training, validation and test, the same on every machine."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from hetmorph.io import DataError
from hetmorph.io.atomic import write_text

NAMES = ("train", "val", "test")
FRACTIONS = (0.75, 0.1, 0.15)
JOINT = "+"  # between the names of sets, as in "acdc+oasis2d"
OWNER = "/"  # between a set and its patient, case or structure, as in "acdc/patient001"


def make_splits(
    groups: Mapping[str, str | None],
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    held_out: Collection[str] = (),
    least: int = 1,
) -> dict[str, list[str]]:
    """Divides patients into train, val and test, stratified by group.

    The order within a group comes from a hash of seed and name, so it depends neither on the order of the
    folders nor on a library's random generator. 80 patients give 60/8/12; from 3 · `least` patients on, no part
    has fewer than `least`.

    Args:
        groups: {patient: group}; None is a group of its own.
        seed: another seed gives another division.
        fractions: shares of train, val, test; they sum to 1.
        held_out: patients that are the test part by decree (ACDC's testing folder); the others are then
            divided between train and val only.
        least: patients that a part needs to be of use.

    Returns:
        {"train": […], "val": […], "test": […]}, each sorted.

    Raises:
        ValueError: fractions are negative or do not sum to 1, or a held-out patient is unknown.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"expected fractions of train, val, test that sum to 1, received {fractions}.")
    if unknown := sorted(set(held_out) - set(groups)):
        raise ValueError(f"held-out patients that are not in the set: {unknown}.")
    pool = {patient: group for patient, group in groups.items() if patient not in set(held_out)}
    order = _stratified_order(pool, seed)
    n_test = 0 if held_out else _share(fractions[2], len(order), least)
    n_val = _share(fractions[1], len(order), least)
    parts = (order[n_test + n_val :], order[n_test : n_test + n_val], [*order[:n_test], *held_out])
    return {name: sorted(part) for name, part in zip(NAMES, parts, strict=True)}


def save_splits(splits: Mapping[str, list[str]], path: Path | str, name: str | None = None) -> Path:
    """Writes a division, and the name of the data set that it divides, as JSON; returns the path.

    Args:
        splits: patients of each part, as `make_splits` returns them.
        path: the file to write.
        name: name of the data set that is divided; None leaves it out.
    """
    stored = {} if name is None else {"data": str(name)}
    stored |= {part: list(splits[part]) for part in NAMES}
    return write_text(path, json.dumps(stored, indent=1) + "\n")


def load_splits(path: Path | str, name: str | None = None) -> dict[str, list[str]]:
    """Reads a division written by `save_splits`.

    Args:
        path: a JSON file.
        name: the name of the data set that is to be divided; where the file divides several sets, its part of them is
            taken.

    Raises:
        DataError: the file is missing, is not such a division, or puts a patient into two parts.
    """
    splits, of = _read(path)
    return splits_of(splits, name) if is_member(name, of) else splits


def splits_name(path: Path | str) -> str | None:
    """Name of the data set that a file of `save_splits` divides, or None where it does not say; errors likewise.

    Args:
        path: a JSON file.
    """
    return _read(path)[1]


def is_member(name: Path | str | None, several: str | None) -> bool:
    """Whether a data set is one of several.

    Args:
        name: the name of the one.
        several: names joined by "+".
    """
    return JOINT in (several or "") and str(name) in several.split(JOINT)


def splits_of(splits: Mapping[str, list[str]], name: str) -> dict[str, list[str]]:
    """The division of one of the sets in that of several, its patients by their own names.

    Args:
        splits: splits of a set that `data.join` returned.
        name: the name of the one.
    """
    begin = f"{name}{OWNER}"
    return {part: [who[len(begin) :] for who in splits[part] if who.startswith(begin)] for part in NAMES}


def check_splits(splits: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Returns the division as plain lists; ValueError unless it has the three parts and no patient in two of them."""
    if not isinstance(splits, Mapping) or set(splits) - {"data"} != set(NAMES):
        raise ValueError(f"expected the parts {list(NAMES)}, received {splits!r:.200}.")
    splits = {name: splits[name] for name in NAMES}
    if not all(isinstance(part, list) and all(isinstance(one, str) for one in part) for part in splits.values()):
        raise ValueError("expected each part to be a list of patient names.")
    patients = [patient for part in splits.values() for patient in part]
    if twice := sorted({patient for patient in patients if patients.count(patient) > 1}):
        raise ValueError(f"patients in more than one place: {twice}.")
    return {name: list(part) for name, part in splits.items()}


def _read(path: Path | str) -> tuple[dict[str, list[str]], str | None]:
    """The division in a file and the name of the data set."""
    path = Path(path)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a splits file (JSON), received {error}.") from error
    try:
        return check_splits(stored), stored.get("data")
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _share(fraction: float, count: int, least: int) -> int:
    if fraction == 0 or count < 3 * least:
        return 0
    return max(least, round(fraction * count))


def fewer(splits: Mapping[str, list[str]], patients: int, seed: int = 0) -> dict[str, list[str]]:
    """The division with so many training patients; more of them hold those of fewer.

    Args:
        splits: patients of each part.
        patients: how many stay in the training part; the others are in none.
        seed: another seed takes other patients.

    Raises:
        ValueError: the training part has no such number of patients.
    """
    train = splits["train"]
    if not 1 <= patients <= len(train):
        raise ValueError(f"expected 1 to {len(train)} patients to train on, received {patients}.")
    return {**splits, "train": sorted(sorted(train, key=lambda patient: _draw(seed, patient))[:patients])}


def _draw(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()


def _stratified_order(groups: Mapping[str, str | None], seed: int) -> list[str]:
    """All patients so that every stretch of the list holds the groups in their proportion."""
    draw = functools.partial(_draw, seed)
    members = defaultdict(list)
    for patient, group in groups.items():
        members[group].append(patient)
    place = {}
    for group, patients in members.items():
        for rank, patient in enumerate(sorted(patients, key=draw)):
            place[patient] = ((rank + 0.5) / len(patients), draw(f"group {group}"), draw(patient))
    return sorted(groups, key=place.__getitem__)
