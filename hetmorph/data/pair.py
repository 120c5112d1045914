"""One sample of a data set: a moving and a fixed image with what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from hetmorph.ops.points import outside

MASKS = ("mask_moving", "mask_fixed")
POINTS = ("points_moving", "points_fixed")
ARTEFACTS = ("artefact_moving", "artefact_fixed")


@dataclass(frozen=True, eq=False)
class Pair:
    """A moving and a fixed image on the same grid.

    Attributes:
        case_id: unique name, used in tables.
        patient: the patient it belongs to; splits never divide a patient. Pairs between subjects: the
            fixed one.
        slice_index: position along the slice axis of the volume, from 0; None for volumes.
        group: stratum of the patient (ACDC: pathology), or None.
        moving: float32 `[*S]` in [0, 1] (ACDC: end-diastole).
        fixed: float32 `[*S]` in [0, 1] (ACDC: end-systole).
        moving_labels: uint8 `[*S]` (uint16 where values exceed 255) or None where no segmentation exists. A
            slice may hold background only.
        fixed_labels: the same of the fixed image.
        spacing: millimetres per array axis.
        displacement: true displacement, float32 `[*S, N]`, voxels, on the fixed grid, moved(x) = moving(x +
            u(x)); or None where unknown.
        sigma: true noise level of the fixed image, float32 `[*S]`, in intensity units; or None.
        foreground: where the moving or the fixed image was not 0 before noise was added, bool `[*S]`; or None
            where none was: then the images tell.
        in_mm: whether the spacing is known; pictures without a header have ones, which are no millimetres.
        mask_moving: where the moving image counts in an image loss, bool `[*S]`; None counts everywhere.
        mask_fixed: the same of the fixed image.
        points_moving: landmarks in the moving image, float32 `[P, N]` voxels; or None.
        points_fixed: the same in the fixed image.
        artefact_moving: where an artefact of known place has changed the moving image, bool `[*S]`; or None.
        artefact_fixed: the same of the fixed image.
        dataset: which of several joined sets it is of; None where there is one.
    """

    case_id: str
    patient: str
    slice_index: int | None
    group: str | None
    moving: np.ndarray
    fixed: np.ndarray
    moving_labels: np.ndarray | None
    fixed_labels: np.ndarray | None
    spacing: tuple[float, ...]
    displacement: np.ndarray | None = None
    sigma: np.ndarray | None = None
    foreground: np.ndarray | None = None
    in_mm: bool = True
    mask_moving: np.ndarray | None = None
    mask_fixed: np.ndarray | None = None
    points_moving: np.ndarray | None = None
    points_fixed: np.ndarray | None = None
    artefact_moving: np.ndarray | None = None
    artefact_fixed: np.ndarray | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        shape = self.moving.shape
        arrays = ("fixed", "moving_labels", "fixed_labels", "sigma", "foreground", *MASKS, *ARTEFACTS)
        expected = dict.fromkeys(arrays, shape)
        expected["displacement"] = (*shape, len(shape))
        for name, wanted in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != wanted:
                raise ValueError(
                    f"{self.case_id}: expected {name} of shape {wanted} (moving has {shape}), received {value.shape}."
                )
        if len(self.spacing) != len(shape):
            raise ValueError(f"{self.case_id}: expected {len(shape)} spacings (mm), received {self.spacing}.")
        for name in MASKS:
            if getattr(self, name) is not None and not getattr(self, name).any():
                raise ValueError(f"{self.case_id}: {name} is empty, so that no voxel would count.")
        self._check_points(shape)

    def _check_points(self, shape: tuple[int, ...]) -> None:
        shapes = [None if getattr(self, name) is None else getattr(self, name).shape for name in POINTS]
        if shapes == [None, None]:
            return
        if None in shapes or shapes[0] != shapes[1] or shapes[0][1:] != (len(shape),):
            raise ValueError(
                f"{self.case_id}: expected as many points [P, {len(shape)}] of either image, received points_moving "
                f"{shapes[0]} and points_fixed {shapes[1]}."
            )
        if (beyond := outside(self.points_fixed, shape)).any():
            number = int(np.argmax(beyond))
            at = np.round(self.points_fixed[number], 2).tolist()
            raise ValueError(
                f"{self.case_id}: point {number + 1} of points_fixed, {at}, lies outside the image of {shape} voxels."
            )

    def slices(self) -> list[Pair]:
        """The slices of a volume along its last axis; of a true displacement, the part within them.

        Masks and points, which nothing asks for slice by slice, are left out.
        """
        arrays = ("moving", "fixed", "moving_labels", "fixed_labels", "sigma", "foreground", *ARTEFACTS)
        given = {name: getattr(self, name) for name in arrays if getattr(self, name) is not None}
        within = None if self.displacement is None else self.displacement[..., :-1]
        return [
            replace(
                self,
                slice_index=index,
                spacing=self.spacing[:-1],
                displacement=None if within is None else within[..., index, :],
                **dict.fromkeys((*MASKS, *POINTS)),
                **{name: array[..., index] for name, array in given.items()},
            )
            for index in range(self.fixed.shape[-1])
        ]


def foreground(pair: Pair) -> np.ndarray:
    """Voxels where the moving or the fixed image is not 0 (before noise), `[*S]`: the mask M of the method."""
    return (pair.moving != 0) | (pair.fixed != 0) if pair.foreground is None else pair.foreground


class Case(NamedTuple):
    """What is known of a pair without its images; fields as in `Pair`, `shape` that of its images.

    `masks` names those of `MASKS` that it has, `points` is the number of its landmarks.
    """

    case_id: str
    patient: str
    slice_index: int | None
    group: str | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    masks: tuple[str, ...] = ()
    points: int = 0
    dataset: str | None = None

    @classmethod
    def of(cls, pair: Pair) -> Case:
        """The case of a pair."""
        masks = tuple(name for name in MASKS if getattr(pair, name) is not None)
        points = 0 if pair.points_fixed is None else len(pair.points_fixed)
        named = pair.case_id, pair.patient, pair.slice_index, pair.group
        return cls(*named, pair.moving.shape, pair.spacing, masks, points, pair.dataset)


def cases_of(pairs: Sequence[Pair]) -> Sequence[Case]:
    """The cases of pairs; of a sequence that knows them without reading the images.

    Args:
        pairs: a list, or `LoadedSet.pairs`.
    """
    known = getattr(pairs, "cases", None)
    return [Case.of(pair) for pair in pairs] if known is None else known


@dataclass(frozen=True, eq=False)
class LoadedSet:
    """What `hetmorph.data.load` returns.

    Attributes:
        pairs: the samples of the split asked for, ordered by patient and slice; of a set that does not fit into
            memory each is read when it is asked for.
        skipped: (patient, reason) of each case of this split that was left out because its files are bad.
        splits: the whole division, {"train": [patient, …], "val": […], "test": […]}, skipped patients
            included.
        cut: {case_id: number of labelled voxels outside the crop}, only cases that lost some.
        labels: {structure: label value}, e.g. {"rv": 1, "myo": 2, "lv": 3}; empty where nothing is labelled.
        main: structure that surface distances, failures and validation refer to; None with empty `labels`, and of
            several sets.
        parts: the parts of several sets each by its name, as it is alone; empty where there is one.
    """

    pairs: Sequence[Pair]
    skipped: list[tuple[str, str]]
    splits: dict[str, list[str]]
    cut: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    main: str | None = None
    parts: dict[str, LoadedSet] = field(default_factory=dict)

    @property
    def cases(self) -> Sequence[Case]:
        """What is known of each pair without its images, in the order of `pairs`."""
        return cases_of(self.pairs)

    @property
    def skipped_entries(self) -> list[dict[str, str]]:
        """`skipped` as it goes into a summary."""
        return [{"patient": patient, "reason": reason} for patient, reason in self.skipped]

    @property
    def unlabelled(self) -> list[str]:
        """Cases of which the moving or the fixed segmentation does not exist."""
        return [pair.case_id for pair in self.pairs if pair.moving_labels is None or pair.fixed_labels is None]
