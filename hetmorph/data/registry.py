"""The data sets by name, and the one function that loads any of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from hetmorph.data import acdc, camus, csv_pairs, echo, hippocampus, oasis2d, phantom, sunnybrook, triangles
from hetmorph.data.aligned import aligned
from hetmorph.data.artefacts import RICIAN, add_noise, check_noise
from hetmorph.data.dataset import Dataset, Found, Options
from hetmorph.data.join import check_owners, folders, join
from hetmorph.data.known_warp import warp_known
from hetmorph.data.lazy import GIB, LazyPairs
from hetmorph.data.pair import LoadedSet, Pair
from hetmorph.data.splits import JOINT, NAMES, check_splits, fewer, load_splits, make_splits, splits_of
from hetmorph.data.survey import survey
from hetmorph.io import DataError, Image
from hetmorph.io.chain import Linear

_LOG = logging.getLogger(__name__)
_SETS = {
    one.name: one
    for one in (
        acdc.DATASET,
        camus.DATASET,
        echo.DATASET,
        hippocampus.DATASET,
        oasis2d.DATASET,
        oasis2d.TISSUE_DATASET,
        phantom.DATASET,
        sunnybrook.DATASET,
        triangles.DATASET,
        triangles.HOLLOW_DATASET,
    )
}
CROPS = (*dict.fromkeys(crop for one in _SETS.values() for crop in one.crops), *csv_pairs.CROPS)
SPLITS = (*NAMES, "all")
WAY_OUT = "Split 'all' (evaluate.py --split all) takes every patient found."


class EmptySplit(DataError):
    """Nobody is in the part of the division that was asked for."""


def datasets() -> list[str]:
    """Names that `load` knows; besides, it takes the path of a table of pairs that ends in .csv."""
    return list(_SETS)


def register(dataset: Dataset) -> Dataset:
    """Make a data set known to `load`, and so to `--data` of the commands that this program calls.

    Args:
        dataset: what an adapter says about it, see docs/how-to-add-a-method.md.

    Raises:
        ValueError: there is another set of this name.
    """
    if _SETS.setdefault(dataset.name, dataset) is not dataset:
        raise ValueError(f"there is a data set called {dataset.name!r} already")
    return dataset


def is_table(name: Path | str) -> bool:
    """Whether a name of `load` is the path of a table of pairs and not a data set's.

    Args:
        name: as `load` takes it.
    """
    return str(name).lower().endswith(".csv")


def members(name: Path | str) -> tuple[str, ...]:
    """Names of the sets that a name of `load` joins; none where it is that of one set.

    Args:
        name: as `load` takes it.

    Raises:
        ValueError: one of them is unknown, or there twice.
    """
    return tuple(_members(name))


def dataset(name: Path | str) -> Dataset:
    """What is known about a set before loading it: labels, default size, crops.

    Args:
        name: as `load` takes it.

    Raises:
        ValueError: neither a name of `datasets()` nor a path that ends in .csv.
    """
    if is_table(name):
        return csv_pairs.dataset(name)
    if name not in _SETS:
        raise ValueError(f"expected name to be one of {tuple(_SETS)} or a file .csv, received {name!r}.")
    return _SETS[name]


def load(
    name: Path | str,
    data_dir: Path | str | None = None,
    split: str = "train",
    crop: str | None = None,
    size: tuple[int, ...] | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    splits: Mapping[str, list[str]] | Path | str | None = None,
    noise: float = 0.0,
    known_warp: float = 0.0,
    rounds: int = 1,
    memory: float = 4.0,
    align: Callable[[Image, Image], Linear] | None = None,
    noise_kind: str = RICIAN,
    noise_in: str = "both",
    patients: int | None = None,
) -> LoadedSet:
    """Loads one part of a data set: every file is read and checked, and images stay in memory as far as they fit.

    Args:
        name: one of `datasets()`, or a table of pairs of one's own (.csv, see `hetmorph.data.csv_pairs`); or several
            names joined by "+", see `hetmorph.data.join`.
        data_dir: where the files are; None reads the environment variable HETMORPH_DATA, for a table its
            own folder. Of several sets one folder that holds theirs, or "acdc=DIR,oasis2d=DIR".
        split: "train", "val", "test", or "all" patients found.
        crop: one of `dataset(name).crops`, None the first of them. ACDC: "paper": round the end-diastolic
            myocardium of the middle slice; "center": round the motion, without labels; "none": the full
            field of view, whose size differs between patients. CAMUS and echo: "paper": the whole image
            squeezed to `size`; "aspect": with its proportions kept. A table: "middle": cropped or padded round the
            middle; "resize": each image resized from its own field of view.
        size: voxels of a sample along each axis; None is the set's own.
        seed: seed of the division into train, val and test, the pairing of subjects, noise and warps (default: 0).
        skip_bad: leave out cases whose files are bad, and list them, instead of raising.
        splits: a division to use instead of drawing one: a mapping or a file written by `save_splits`, of this set or
            of several of which it is one. Patients that are not in it are in no part except "all".
        noise: level of the noise to add, see `add_rician` and `add_artefact`; the phantom's own is then left out.
        known_warp: where above 0, `warp_known` with this amplitude (voxels) replaces the fixed images.
        rounds: sets of subjects: how often each is moving and fixed, see `hetmorph.data.subjects.ring`.
        memory: GiB of images that may stay in memory; pairs beyond are read anew each time they are asked for. The
            numbers do not depend on it.
        align: `(moving, fixed) → transform`, fixed to moving: each moving image, its labels, mask and landmarks are
            seen through it, as `registration.aligner("rigid")` finds one.
        noise_kind: "rician", or an artefact: "void", "flow", "ghost", "band", "speckle".
        noise_in: the image that an artefact goes into: "moving", "fixed" or "both".
        patients: how many of the training part there are to be, of each set; None leaves all. A larger number
            holds those of a smaller.

    Returns:
        A `LoadedSet`: the samples, the skipped cases, the whole division, and what the labels mean.

    Raises:
        DataError: data are missing or bad; the file and a remedy are named.
        ValueError: an argument is none of the choices, or has no effect on this set.

    Example:
        >>> train = load("phantom", split="train", size=(64, 64))
        >>> train.pairs[0].moving.shape
        (64, 64)
    """
    if split not in SPLITS:
        raise ValueError(f"expected split to be one of {SPLITS}, received {split!r}.")
    check_noise(noise_kind, noise_in)
    if noise_kind != RICIAN and not noise:
        raise ValueError(f"expected a level of noise above 0 (--noise) for kind {noise_kind!r}, received {noise}.")
    added = _Noise(noise, seed, noise_kind, noise_in)
    wanted = _Wanted(split, crop, size, seed, skip_bad, added, known_warp, rounds, memory * GIB, align, patients)
    division = None if splits is None else _given_splits(splits, name)
    if several := _members(name):
        return _load_several(several, data_dir, wanted, division)
    return _load_one(dataset(name), data_dir, wanted, division)


@dataclasses.dataclass(frozen=True)
class _Noise:
    """Arguments of `add_noise`."""

    level: float
    seed: int
    kind: str
    into: str

    def __bool__(self) -> bool:
        return self.level != 0

    def __call__(self, pair: Pair) -> Pair:
        return add_noise(pair, self.level, self.seed, self.kind, self.into)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What `load` was asked for, of any set; fields as its arguments, `memory` in bytes."""

    split: str
    crop: str | None
    size: tuple[int, ...] | None
    seed: int
    skip_bad: bool
    noise: _Noise
    known_warp: float
    rounds: int
    memory: float
    align: Callable[[Image, Image], Linear] | None
    patients: int | None


def _load_one(
    chosen: Dataset, data_dir: Path | str | None, wanted: _Wanted, division: dict[str, list[str]] | None
) -> LoadedSet:
    """One set alone; `division` None is its own, or drawn."""
    asked = wanted.align if chosen.aligns else None
    size, crop = _checked_size(chosen, wanted.size), _checked_crop(chosen, wanted.crop)
    options = Options(size, crop, clean=wanted.noise.level > 0, align=asked)
    _check_effect(chosen, data_dir, wanted.rounds)
    if size is None and crop == csv_pairs.RESIZE:
        raise ValueError(f"expected a size (--size) with crop {crop!r}, to which each image is resized; received none.")
    if wanted.size is not None and options.crop == "none":
        raise ValueError(
            f"expected size to be left out, crop 'none' takes the full field of view; received {wanted.size}."
        )
    found = chosen.find(data_dir)
    division = found.splits if division is None else division
    later = None if chosen.aligns else wanted.align
    adjust = None
    if later or wanted.known_warp or wanted.noise:
        adjust = _adjustment(later, wanted.known_warp, wanted.noise, wanted.seed)
    return _load(chosen, found, wanted, options, division, adjust)


def _members(name: Path | str) -> dict[str, Dataset]:
    """The sets that a name joins, or a table, by theirs; none where there is one."""
    if is_table(name):
        return {one: csv_pairs.dataset(name, one) for one in csv_pairs.datasets(name)}
    names = [] if str(name) in _SETS else str(name).split(JOINT)
    if len(names) < 2:
        return {}
    if unknown := [one for one in names if one not in _SETS]:
        raise ValueError(
            f"expected names joined by {JOINT!r} to be of {tuple(_SETS)}, received {unknown[0]!r} in {str(name)!r}; "
            "a table joins sets by its column dataset."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"expected each name of {str(name)!r} once.")
    return {one: _SETS[one] for one in names}


def _load_several(
    several: Mapping[str, Dataset],
    data_dir: Path | str | None,
    wanted: _Wanted,
    division: dict[str, list[str]] | None,
) -> LoadedSet:
    """Several sets, each as it is alone, joined; without those that have no patient in this split, as sets of a table
    may that are there to be scored only."""
    _check_together(several, wanted)
    lying = folders([name for name, one in several.items() if one.files], data_dir)
    if division is not None:
        check_owners(division, list(several))
    parts, empty = {}, []
    for name, one in several.items():
        own = dataclasses.replace(
            wanted,
            crop=wanted.crop if wanted.crop in one.crops else None,
            rounds=wanted.rounds if one.between else 1,
            memory=wanted.memory / len(several),
        )
        known = {} if division is None else splits_of(division, name)
        try:
            parts[name] = _load_one(one, lying.get(name), own, known if any(known.values()) else None)
        except EmptySplit as error:
            empty.append(error)
            _LOG.warning("%s: no patient in the %s split, which does without.", name, wanted.split)
    if not parts:
        raise empty[0]
    return join(parts)


def _check_together(several: Mapping[str, Dataset], wanted: _Wanted) -> None:
    """Refuse what no set of several could do, and sets of which no sample could stand beside one of another."""
    ndims = {name: one.ndims for name, one in several.items()}
    if not set.intersection(*map(set, ndims.values())):
        told = ", ".join(f"{name} {' or '.join(map(str, some))}-D" for name, some in ndims.items())
        raise ValueError(f"expected sets of the same number of dimensions, received {told}.")
    sizes = {name: one.size for name, one in several.items()}
    if wanted.size is None and len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"expected a size (--size) for all of the sets, whose own differ: {told}.")
    crops = tuple(dict.fromkeys(crop for one in several.values() for crop in one.crops))
    if wanted.crop is not None and wanted.crop not in crops:
        raise ValueError(f"expected crop to be one of {crops} ({JOINT.join(several)}), received {wanted.crop!r}.")
    if wanted.rounds != 1 and not any(one.between for one in several.values()):
        raise ValueError(f"expected rounds=1, {JOINT.join(several)} have pairs within patients only.")


def _adjustment(align: Callable | None, known_warp: float, noise: _Noise, seed: int) -> Callable[[Pair], Pair]:
    """What is done to a pair after reading: it follows from the seed and the pair alone."""

    def adjust(pair: Pair) -> Pair:
        pair = pair if align is None else aligned(pair, align)
        return noise(warp_known(pair, seed, known_warp) if known_warp else pair)

    return adjust


def _checked_crop(chosen: Dataset, crop: str | None) -> str | None:
    if crop is None:
        return chosen.crops[0] if chosen.crops else None
    if not chosen.crops:
        raise ValueError(f"expected crop to be left out, {chosen.name!r} has no choice of it; received {crop!r}.")
    if crop not in chosen.crops:
        raise ValueError(f"expected crop to be one of {chosen.crops} ({chosen.name}), received {crop!r}.")
    return crop


def _checked_size(chosen: Dataset, size: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if size is None:
        return chosen.size
    if len(size) not in chosen.ndims or min(size) < 1:
        wanted = " or ".join(map(str, chosen.ndims))
        raise ValueError(f"expected size as {wanted} positive numbers of voxels ({chosen.name}), received {size}.")
    return tuple(size)


def _check_effect(chosen: Dataset, data_dir: Path | str | None, rounds: int) -> None:
    if data_dir is not None and not chosen.files:
        raise ValueError(f"expected data_dir to be left out, {chosen.name!r} needs no files; received {data_dir}.")
    if rounds < 1:
        raise ValueError(f"expected rounds of at least 1, received {rounds}.")
    if rounds != 1 and not chosen.between:
        raise ValueError(f"expected rounds=1, {chosen.name!r} has pairs within patients only; received {rounds}.")


def _given_splits(splits: Mapping[str, list[str]] | Path | str, name: Path | str) -> dict[str, list[str]]:
    return check_splits(splits) if isinstance(splits, Mapping) else load_splits(splits, str(name))


def _chosen(split: str, division: Mapping[str, list[str]], patients: list[str], hint: str) -> list[str]:
    if split == "all":
        return patients
    wanted = set(division[split])
    if absent := sorted(wanted - set(patients)):
        listed = ", ".join(absent)
        raise DataError(f"patients of the {split} split that are not in the data: {listed}. {WAY_OUT}")
    if not wanted:
        parts = ", ".join(f"{name} {len(division[name])}" for name in NAMES)
        raise EmptySplit(
            f"the {split} split is empty; the division of the {len(patients)} patients found is {parts}.{hint} "
            f"{WAY_OUT}"
        )
    return [patient for patient in patients if patient in wanted]


def _load(
    chosen: Dataset,
    found: Found,
    asked: _Wanted,
    options: Options,
    division: dict[str, list[str]] | None,
    adjust: Callable[[Pair], Pair] | None,
) -> LoadedSet:
    skipped, hint, split, seed, skip_bad, budget = {}, "", asked.split, asked.seed, asked.skip_bad, asked.memory
    if division is None:
        groups, skipped = _groups(chosen, found, skip_bad)
        least = 2 if chosen.between else 1  # a pair between subjects takes two
        division = make_splits(groups, seed, held_out=found.held_out, least=least)
        hint = f" Drawing one takes at least {3 * least}."
    if asked.patients is not None and division["train"]:  # without any, the set is there to be scored
        division = fewer(division, asked.patients, seed)
    wanted = _chosen(split, division, list(found.patients), hint)
    entries = {patient: found.patients[patient] for patient in wanted if patient not in skipped}
    seen = survey(chosen, entries, options, budget, skip_bad)
    skipped |= seen.skipped
    left_out = [(patient, skipped[patient]) for patient in wanted if patient in skipped]
    if len(left_out) == len(wanted):
        reasons = "\n".join(reason for _, reason in left_out)
        raise DataError(f"no usable case among {len(wanted)} of the {split} split:\n{reasons}")
    try:
        pairs = seen.between(seed, asked.rounds) if chosen.between else seen.within()
    except DataError as error:
        raise DataError(f"the {split} split: {error} {WAY_OUT}") from error
    if seen.read.full:
        _warn_of_size(chosen, pairs, budget)
    if adjust is not None:
        pairs = pairs.adjusted(adjust, budget)
        seen.read.forget()
    _warn_of_cuts(pairs, seen.cut, options)
    labels = {f"label_{value}": value for value in sorted(seen.values)} if chosen.labels is None else chosen.labels
    return LoadedSet(pairs, left_out, division, seen.cut, dict(labels), chosen.main or next(iter(labels), None))


def _groups(chosen: Dataset, found: Found, skip_bad: bool) -> tuple[dict[str, str | None], dict[str, str]]:
    """The stratum of each patient, and why some have none."""
    groups, skipped = {}, {}
    for patient, entry in found.patients.items():
        try:
            groups[patient] = chosen.group(entry)
        except DataError as error:
            if not skip_bad:
                raise
            groups[patient], skipped[patient] = None, str(error)
    return groups, skipped


def _warn_of_size(chosen: Dataset, pairs: LazyPairs, budget: float) -> None:
    _LOG.warning(
        "%s: the %d pairs take more than the %.3g GiB of memory they may; the others are read whenever they are used.",
        chosen.name,
        len(pairs),
        budget / GIB,
    )


def _warn_of_cuts(pairs: LazyPairs, cut: dict[str, int], options: Options) -> None:
    if not cut:
        return
    _LOG.warning(
        "The %scrop to %s leaves labelled voxels outside in %d of %d %s (%s).",
        f"{options.crop!r} " if options.crop else "",
        options.size,
        len(cut),
        len(pairs),
        "pairs" if pairs.cases[0].slice_index is None else "slices",
        ", ".join(list(cut)[:3]) + (", …" if len(cut) > 3 else ""),
    )
