"""The data sets by name, and the one function that loads any of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from hetmorph.data import acdc, phantom
from hetmorph.data.crop import CROPS
from hetmorph.data.pair import LoadedSet
from hetmorph.data.splits import NAMES, check_splits, load_splits, make_splits
from hetmorph.io import DataError

_LOG = logging.getLogger(__name__)
SPLITS = (*NAMES, "all")


def datasets() -> list[str]:
    """Names that `load` knows."""
    return ["acdc", "phantom"]


def load(
    name: str,
    data_dir: Path | str | None = None,
    split: str = "train",
    crop: str = "paper",
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
    skip_bad: bool = False,
    splits: Mapping[str, list[str]] | Path | str | None = None,
) -> LoadedSet:
    """Loads one part of a data set into memory.

    Args:
        name: "acdc" or "phantom".
        data_dir: where the files are; None reads the environment variable HETMORPH_DATA. Unused by "phantom".
        split: "train", "val", "test", or "all" patients found.
        crop: ACDC only. "paper": round the end-diastolic myocardium of the middle slice; "center": round
            the motion, without labels; "none": the full field of view, whose size differs between patients.
        size: in-plane size of the samples, voxels.
        seed: of the division into train, val and test.
        skip_bad: leave out cases whose files are bad, and list them, instead of raising.
        splits: a division to use instead of drawing one: a mapping or a file written by `save_splits`.
            Patients that are not in it are in no part except "all".

    Returns:
        A `LoadedSet`: the samples, the skipped cases, and the whole division.

    Raises:
        DataError: data are missing or bad; the file and a remedy are named.
        ValueError: an argument is none of the choices.

    Example:
        >>> train = load("phantom", split="train", size=(64, 64))
        >>> train.pairs[0].moving.shape
        (64, 64)
    """
    for given, known, what in ((name, datasets(), "name"), (split, SPLITS, "split"), (crop, CROPS, "crop")):
        if given not in known:
            raise ValueError(f"expected {what} to be one of {tuple(known)}, received {given!r}.")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"expected size as two positive numbers of voxels, received {size}.")
    division = None if splits is None else _given_splits(splits)
    if name == "phantom":
        return _load_phantom(split, tuple(size), seed, division)
    return _load_acdc(data_dir, split, crop, tuple(size), seed, skip_bad, division)


def _given_splits(splits: Mapping[str, list[str]] | Path | str) -> dict[str, list[str]]:
    return check_splits(splits) if isinstance(splits, Mapping) else load_splits(splits)


def _chosen(split: str, division: Mapping[str, list[str]], patients: list[str]) -> list[str]:
    if split == "all":
        return patients
    wanted = set(division[split])
    if absent := sorted(wanted - set(patients)):
        listed = ", ".join(absent)
        raise DataError(
            f"patients of the {split} split that are not in the data: {listed}. Split 'all' takes every patient found."
        )
    if not wanted:
        raise DataError(f"the {split} split is empty: {len(patients)} patients found, at least 3 are needed.")
    return [patient for patient in patients if patient in wanted]


def _load_phantom(split: str, size: tuple[int, int], seed: int, division: dict | None) -> LoadedSet:
    groups = phantom.patients()
    division = division or make_splits(groups, seed)
    pairs = [pair for name in _chosen(split, division, list(groups)) for pair in phantom.read_pairs(name, size)]
    return LoadedSet(pairs, [], division)


def _load_acdc(data_dir, split, crop, size, seed, skip_bad, division) -> LoadedSet:
    folders, testing = acdc.find_patients(data_dir)
    groups, skipped = {}, {}
    for patient, folder in folders.items():
        try:
            groups[patient] = acdc.read_info(folder).group
        except DataError as error:
            if not skip_bad:
                raise
            # it keeps its place in the division: one bad file must not move other patients
            groups[patient], skipped[patient] = None, str(error)
    division = division or make_splits(groups, seed, held_out=testing)
    chosen = _chosen(split, division, list(folders))
    pairs, cut = [], {}
    for patient in chosen:
        if patient in skipped:
            continue
        try:
            samples, gone = acdc.read_pairs(folders[patient], crop, size)
        except DataError as error:
            if not skip_bad:
                raise
            skipped[patient] = str(error)
            continue
        pairs += samples
        cut |= gone
    left_out = [(patient, skipped[patient]) for patient in chosen if patient in skipped]
    if not pairs:
        reasons = "\n".join(reason for _, reason in left_out)
        raise DataError(f"no usable case among {len(chosen)} of the {split} split:\n{reasons}")
    if cut:
        some = ", ".join(list(cut)[:3]) + (", …" if len(cut) > 3 else "")
        _LOG.warning(
            "The %r crop to %s leaves labelled voxels outside in %d of %d slices (%s).",
            crop,
            size,
            len(cut),
            len(pairs),
            some,
        )
    return LoadedSet(pairs, left_out, division, cut)
