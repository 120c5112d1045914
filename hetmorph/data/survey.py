"""The first look at every file of a split: what is good, how many pairs there are, which labels occur."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hetmorph.data.dataset import Dataset, Options, Subject
from hetmorph.data.lazy import Kept, LazyPairs
from hetmorph.data.pair import Case, Pair
from hetmorph.data.subjects import misfits, pair_of, ring
from hetmorph.io import DataError


@dataclass
class Survey:
    """What `survey` found. The images are left to `read`, which keeps those that fit into memory.

    Attributes:
        read: what the adapter makes of (patient, number of the piece).
        cases: the pairs within patients without their images; `between` adds those between subjects.
        keys: where each of the same pairs comes from, (patient, piece, position).
        subjects: the subjects of a set of pairs between them, each without its voxels.
        cut: {case_id: labelled voxels outside the crop}.
        values: label values above 0 that occur, of a set that does not say which it has.
        skipped: {patient: what is wrong with its files}.
    """

    read: Kept
    cases: list[Case] = field(default_factory=list)
    keys: list[tuple[str, int, int]] = field(default_factory=list)
    subjects: dict[str, Subject] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    values: set[int] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)

    def within(self) -> LazyPairs:
        """The pairs within patients."""
        read = self.read
        return LazyPairs(self.cases, self.keys, lambda key: read(key[:2])[0][key[2]])

    def between(self, seed: int, rounds: int) -> LazyPairs:
        """The pairs between subjects, see `ring`.

        Args:
            seed: seed of the order in the ring.
            rounds: pairs of each subject as the fixed image.

        Raises:
            DataError: too few subjects for so many rounds.
        """
        keys, read = ring(list(self.subjects), seed, rounds), self.read
        for moving, fixed in ([self.subjects[name] for name in key] for key in keys):
            case = Case.of(pair_of(moving, fixed))
            self.cases.append(case)
            if moving.cut + fixed.cut:
                self.cut[case.case_id] = moving.cut + fixed.cut
        return LazyPairs(self.cases, keys, lambda key: pair_of(*(read((name, 0)) for name in key)))

    def look(self, patient: str, pieces: int, values: bool) -> Survey:
        """What the pieces of one patient hold; a bad one leaves nothing of the others.

        Args:
            patient: name of the patient.
            pieces: how many it has.
            values: whether to look for label values.

        Raises:
            DataError: a file is bad.
        """
        seen = Survey(self.read)
        for number in range(pieces):
            result = self.read((patient, number))
            if isinstance(result, Subject):
                seen.subjects[patient] = hollow(result)
                continue
            pairs, cut = result
            seen.cases += [Case.of(pair) for pair in pairs]
            seen.keys += [(patient, number, position) for position in range(len(pairs))]
            seen.cut |= cut
            if values:
                seen.values |= label_values(pairs)
        return seen

    def add(self, other: Survey) -> None:
        """Take over what another has found."""
        self.cases += other.cases
        self.keys += other.keys
        for name in ("subjects", "cut", "values", "skipped"):
            getattr(self, name).update(getattr(other, name))


def survey(chosen: Dataset, entries: Mapping[str, Any], options: Options, budget: float, skip_bad: bool) -> Survey:
    """Reads every file once, so that a bad one is named before hours of training and not in the midst of them.

    Args:
        chosen: the data set.
        entries: {patient: what the adapter takes}.
        options: for the adapter.
        budget: bytes of images that may stay in memory.
        skip_bad: list patients whose files are bad instead of raising.

    Raises:
        DataError: a file is bad, or subjects cannot be paired; the file or the subject is named.
    """
    pieces = {patient: chosen.pieces(entry) for patient, entry in entries.items()}
    found = Survey(Kept(lambda key: chosen.read(pieces[key[0]][key[1]], options), budget))
    for patient, parts in pieces.items():
        try:
            found.add(found.look(patient, len(parts), values=chosen.labels is None))
        except DataError as error:
            if not skip_bad:
                raise
            found.skipped[patient] = str(error)
    if odd := misfits(list(found.subjects.values())):
        if not skip_bad:
            raise DataError(next(iter(odd.values())))
        found.skipped |= odd
        found.subjects = {name: one for name, one in found.subjects.items() if name not in odd}
    return found


def hollow(subject: Subject) -> Subject:
    """The subject with an image of the same shape that takes no memory, and without labels."""
    return dataclasses.replace(subject, image=np.broadcast_to(np.float32(0), subject.image.shape), labels=None)


def label_values(pairs: Iterable[Pair]) -> set[int]:
    """Values above 0 that occur in the labels of any of the pairs."""
    masks = [mask for pair in pairs for mask in (pair.moving_labels, pair.fixed_labels) if mask is not None]
    return {int(value) for mask in masks for value in np.unique(mask)} - {0}
