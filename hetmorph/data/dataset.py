"""What an adapter says about its data set; `registry.load` needs nothing else to load it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hetmorph.data.pair import Pair
from hetmorph.io import Image
from hetmorph.io.chain import Linear


@dataclass(frozen=True)
class Options:
    """What was asked for, defaults filled in.

    Attributes:
        size: voxels of a sample; None keeps each as it is.
        crop: one of the set's `crops`, or None where it has none.
        clean: without noise of the set's own making (phantom).
        align: `(moving, fixed) → transform`, a linear one that each moving image shall be seen through; or None.
    """

    size: tuple[int, ...] | None
    crop: str | None = None
    clean: bool = False
    align: Callable[[Image, Image], Linear] | None = None


@dataclass(frozen=True)
class Found:
    """What lies in the folder of a set.

    Attributes:
        patients: {patient: what `Dataset.read` takes}, ordered.
        held_out: patients that are the test part by decree.
        splits: a division that the data bring with them, or None.
    """

    patients: dict[str, Any]
    held_out: set[str] = field(default_factory=set)
    splits: dict[str, list[str]] | None = None


@dataclass(frozen=True)
class Subject:
    """One image of a set whose pairs are made between subjects; fields as in `Pair`, `cut` as in `LoadedSet`.

    Attributes:
        axes: anatomical directions of the axes, e.g. ("R", "A", "S"); None where the file does not tell.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray | None
    spacing: tuple[float, ...]
    cut: int = 0
    axes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Dataset:
    """One data set: how to find and read it, and what its labels mean.

    Attributes:
        name: what `load` and `--data` call it.
        labels: {structure: label value}; None: discovered in the files.
        main: structure that surface distances, failures and validation refer to; None with `labels`.
        size: default voxels of a sample; None: as the files have it.
        find: `find(data_dir) -> Found`; raises DataError with what would help.
        read: `read(entry of Found.patients, Options)`: the patient's pairs and {case_id: labelled voxels
            outside the crop}; where `between`, a `Subject` instead.
        pieces: parts of an entry that `read` takes one by one, so that the pairs of one patient need not be in
            memory together; only of pairs within patients.
        crops: choices of `crop`, the default first; empty: there is none.
        group: stratum of a patient for the division, or None; may raise DataError.
        between: pairs are made between subjects, see `hetmorph.data.subjects`.
        files: whether the set lies on disk.
        aligns: whether `read` minds `Options.align`, so that an image is interpolated once, from its own voxels; else
            the pairs are aligned as they have been read.
    """

    name: str
    labels: Mapping[str, int] | None
    main: str | None
    size: tuple[int, ...] | None
    find: Callable[[Path | str | None], Found]
    read: Callable[[Any, Options], tuple[list[Pair], dict[str, int]] | Subject]
    pieces: Callable[[Any], Sequence[Any]] = lambda entry: (entry,)
    crops: tuple[str, ...] = ()
    group: Callable[[Any], str | None] = lambda _: None
    between: bool = False
    files: bool = True
    aligns: bool = False

    @property
    def ndims(self) -> tuple[int, ...]:
        """Numbers of dimensions that its samples may have."""
        return (2, 3) if self.size is None else (len(self.size),)
