"""ACDC: cine short-axis MRI of 150 patients, end-diastole to end-systole, one sample a slice.

Layout (official): `training/patientNNN/` and `testing/patientNNN/`, each with `Info.cfg`,
`patientNNN_frameFF.nii.gz`, `patientNNN_frameFF_gt.nii.gz` and `patientNNN_4d.nii.gz`.
Arrays keep the files' axes: a volume is (X, Y, Z), so axis 0 of a sample is the file's X, axis 1 its Y, and
`spacing` is millimetres along these two. Labels: 1 right ventricle, 2 myocardium, 3 left ventricle.

Reference: Bernard et al., IEEE TMI 37(11), 2018, https://doi.org/10.1109/TMI.2018.2837502
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hetmorph.data import crop as crops
from hetmorph.data.dataset import Dataset, Found
from hetmorph.data.files import ENVIRONMENT, check_same_grid, frame_of, nothing_found, read_labels, root_folder
from hetmorph.data.normalise import minmax
from hetmorph.data.pair import Pair
from hetmorph.io import DataError, Image, read_image
from hetmorph.io.images import find_image

CROPS = ("paper", "center", "none")
LABELS = {"rv": 1, "myo": 2, "lv": 3}
WHAT = "folder patientNNN of ACDC"
_PATIENT = re.compile(r"patient(\d{3,})")

HELP = f"""The ACDC set is obtained, free for research after registration, from the ACDC challenge
(Human Heart Project, CREATIS): https://www.creatis.insa-lyon.fr/Challenge/acdc/
Expected layout:
  ACDC/training/patient001/Info.cfg
  ACDC/training/patient001/patient001_frame01.nii.gz   and patient001_frame01_gt.nii.gz
  ACDC/training/patient001/patient001_frame12.nii.gz   and patient001_frame12_gt.nii.gz
  ACDC/testing/patient101/...                          (optional)
Point at it with --data-dir DIR or the environment variable {ENVIRONMENT}=DIR, DIR being the ACDC folder,
a folder that holds ACDC/, or one that directly holds patientNNN/.
`--data phantom` needs no files."""


@dataclass(frozen=True)
class Info:
    """What `Info.cfg` says: frame numbers count from 1; group is the pathology or None."""

    ed: int
    es: int
    group: str | None
    frames: int | None


def find_patients(data_dir: Path | str | None) -> tuple[dict[str, Path], set[str]]:
    """Finds the patient folders.

    Args:
        data_dir: the ACDC folder, its parent, or a folder of patients; None reads the environment variable
            HETMORPH_DATA.

    Returns:
        {patient: folder} ordered by number, and the patients of the official testing folder where a
        training folder exists beside it.

    Raises:
        DataError: no folder given, it does not exist, or it holds no patient; the message says how to get
            the data.
    """
    root = root_folder(data_dir, WHAT, HELP)
    found: dict[str, Path] = {}
    testing: set[str] = set()
    for folder in _patient_parents(root):
        for path in sorted(folder.iterdir()):
            if not (path.is_dir() and _PATIENT.fullmatch(path.name)):
                continue
            if path.name in found:
                raise DataError(f"{path}: the patient is also at {found[path.name]}; keep one of the two.")
            found[path.name] = path
            if folder.name.lower() == "testing":
                testing.add(path.name)
    if not found:
        raise nothing_found(root, WHAT, HELP)
    ordered = sorted(found, key=lambda name: int(_PATIENT.fullmatch(name)[1]))
    return {name: found[name] for name in ordered}, testing if len(testing) < len(found) else set()


def read_info(folder: Path) -> Info:
    """Reads `Info.cfg` of a patient folder.

    Raises:
        DataError: the file is missing or unreadable, or ED and ES are not two different frame numbers ≥ 1.
    """
    path = folder / "Info.cfg"
    if not path.is_file():
        raise DataError(f"{path}: no such file; it says which frames are end-diastole and end-systole.")
    values = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            values[key.strip().lower()] = value.strip()
    ed, es = (_frame_number(path, values, key) for key in ("ED", "ES"))
    if ed == es:
        raise DataError(f"{path}: ED and ES are the same frame ({ed}); nothing to register.")
    frames = _frame_number(path, values, "NbFrame") if "nbframe" in values else None
    if frames is not None and max(ed, es) > frames:
        raise DataError(f"{path}: ED {ed} and ES {es} must not exceed NbFrame {frames}.")
    return Info(ed, es, values.get("group") or None, frames)


def read_pairs(
    folder: Path, crop: str = "paper", size: tuple[int, int] = (128, 128)
) -> tuple[list[Pair], dict[str, int]]:
    """Reads one patient: moving = end-diastole, fixed = end-systole, a sample for every slice.

    Each slice of each frame is stretched to [0, 1] by itself, after cropping (the paper's per-image
    min-max). Where the field of view is smaller than `size`, zeros are added round it afterwards.

    Args:
        folder: the patient's folder.
        crop: "paper" (round the myocardium, needs labels), "center" (round the motion, needs none), "none".
        size: in-plane window in native voxels.

    Returns:
        The samples, and {case_id: labelled voxels outside the window} for those that lost some.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others; it is named.
    """
    info = read_info(folder)
    stems = [folder / f"{folder.name}_frame{number:02d}" for number in (info.ed, info.es)]
    frames = [_read_frame(folder, number, name) for number, name in ((info.ed, "ED"), (info.es, "ES"))]
    check_same_grid(*frames)
    labels = [read_labels(Path(f"{stem}_gt"), frame, LABELS) for stem, frame in zip(stems, frames, strict=True)]
    center = _center(crop, f"{stems[0]}_gt.nii.gz", frames, labels[0])
    pairs, cut = [], {}
    for index in range(frames[0].array.shape[2]):
        case_id = f"{folder.name}_slice{index:02d}"
        images = [crops.cut_out(frame.array[:, :, index], center, size, minmax) for frame in frames]
        masks = [one if one is None else one[:, :, index] for one in labels]
        kept = [one if one is None else crops.cut_out(one, center, size) for one in masks]
        gone = sum(crops.lost(a, b) for a, b in zip(masks, kept, strict=True) if a is not None)
        if gone:
            cut[case_id] = gone
        pairs.append(Pair(case_id, folder.name, index, info.group, *images, *kept, frames[0].spacing[:2]))
    return pairs, cut


def _patient_parents(root: Path) -> Iterator[Path]:
    for base in (root, root / "ACDC", root / "acdc", root / "database", root / "ACDC" / "database"):
        folders = [folder for folder in (base, base / "training", base / "testing") if folder.is_dir()]
        with_patients = [folder for folder in folders if any(map(_is_patient, folder.iterdir()))]
        if with_patients:
            yield from with_patients
            return


def _is_patient(path: Path) -> bool:
    return path.is_dir() and _PATIENT.fullmatch(path.name) is not None


def _frame_number(path: Path, values: dict[str, str], key: str) -> int:
    text = values.get(key.lower())
    if text is None or not text.isdecimal() or int(text) < 1:
        raise DataError(f"{path}: expected a line '{key}: <number from 1>', received {text!r}.")
    return int(text)


def _read_frame(folder: Path, number: int, name: str) -> Image:
    stem = folder / f"{folder.name}_frame{number:02d}"
    path = find_image(stem)
    if path is not None:
        frame = read_image(path, ndim=3)
    else:
        cine = find_image(folder / f"{folder.name}_4d")
        if cine is None:
            raise DataError(f"{stem}.nii.gz: no such file ({name} in Info.cfg), nor {folder.name}_4d.nii.gz.")
        frame = frame_of(read_image(cine, ndim=4), number, name)
    _check_slices_last(frame)
    return frame


def _check_slices_last(image: Image) -> None:
    shape, spacing = image.array.shape, image.spacing
    if shape[2] > min(shape[:2]) or spacing[2] < 0.999 * max(spacing[:2]):
        raise DataError(
            f"{image.path}: expected axes (X, Y, slice) with the few, thick slices last; received shape {shape} "
            f"with spacing {tuple(round(value, 3) for value in spacing)} mm. Reorder the axes of the file."
        )


def _center(crop: str, labels_file: str, frames: list[Image], labels: np.ndarray | None) -> tuple[float, float] | None:
    if crop == "none":
        return None
    if crop == "center":
        return crops.motion_center(frames[0].array, frames[1].array, frames[0].spacing)
    if crop != "paper":
        raise ValueError(f"expected crop to be one of {CROPS}, received {crop!r}.")
    center = None if labels is None else crops.myocardium_center(labels)
    if center is None:
        lacks = "no such file" if labels is None else "holds no myocardium (label 2)"
        raise DataError(f"{labels_file}: {lacks}; the paper's crop needs it, --crop center does not.")
    return center


DATASET = Dataset(
    name="acdc",
    labels=LABELS,
    main="myo",
    size=(128, 128),
    find=lambda data_dir: Found(*find_patients(data_dir)),
    read=lambda folder, options: read_pairs(folder, options.crop, options.size),
    crops=CROPS,
    group=lambda folder: read_info(folder).group,
)
