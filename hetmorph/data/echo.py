"""3-D+t echocardiograms, end-diastole to end-systole, one sample a patient, resampled to 64 x 64 x 64.

Layout, for sets of one's own: a folder for each patient P, of any name, with

- `P_ED.nii.gz` and `P_ES.nii.gz`, or the cine `P_4d.nii.gz` with `Info.cfg` (lines `ED: n` and `ES: n`, frames
  from 1, as ACDC has it);
- optionally, for both frames, `P_ED_gt.nii.gz` with 1 cavity and 2 myocardium, or the filled masks
  `P_ED_endo.nii.gz` and `P_ED_epi.nii.gz`.

Reference: the third data set of Zhang et al., 2024, https://arxiv.org/abs/2312.00836, is of this kind.
"""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np

from hetmorph.data.acdc import read_info
from hetmorph.data.dataset import Dataset, Found, Options
from hetmorph.data.files import ENVIRONMENT, check_same_grid, find_entries, frame_of, read_frame, read_labels
from hetmorph.data.pair import Pair
from hetmorph.data.resize import CROPS, resized_pair
from hetmorph.io import DataError, Image, read_image
from hetmorph.io.images import find_image

LABELS = {"lv": 1, "myo": 2}
_OUTSIDE = 0.01

HELP = f"""`echo` reads 3-D echocardiograms of your own. Expected layout, a folder for each patient:
  ECHO/patient001/patient001_ED.nii.gz        and patient001_ES.nii.gz
  ECHO/patient001/patient001_ED_gt.nii.gz     and patient001_ES_gt.nii.gz   (1 cavity, 2 myocardium; optional)
Instead of …_gt: …_ED_endo.nii.gz and …_ED_epi.nii.gz; instead of the frames: patient001_4d.nii.gz and Info.cfg.
Point at it with --data-dir DIR or the environment variable {ENVIRONMENT}=DIR, DIR being the folder that holds
the patients, or one that holds ECHO/."""


def find(data_dir: Path | str | None) -> Found:
    """Patient folders below `data_dir`; DataError says what a folder must hold."""
    inner = ("ECHO", "echo")
    return Found(find_entries(data_dir, r"(.+)", inner, "folder P with P_ED.nii.gz or P_4d.nii.gz", HELP, _is_patient))


def read(folder: Path, options: Options) -> tuple[list[Pair], dict[str, int]]:
    """Reads one patient: moving = end-diastole, fixed = end-systole.

    Args:
        folder: the patient's folder.
        options: `crop` "paper" stretches every axis to `size`; "aspect" makes voxels cubes.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others; it is named.
    """
    frames = _frames(folder)
    check_same_grid(*frames)
    stems = [folder / f"{folder.name}_{time}" for time in ("ED", "ES")]
    labels = [_labels(stem, frame) for stem, frame in zip(stems, frames, strict=True)]
    return [resized_pair(folder.name, folder.name, frames, labels, options.size, options.crop)], {}


def _is_patient(path: Path) -> bool:
    # of whatever kind: a patient whose frames are gone is to be named, not overlooked
    return path.is_dir() and any(path.glob(f"{glob.escape(path.name)}_*.nii*"))


def _frames(folder: Path) -> list[Image]:
    cine = find_image(folder / f"{folder.name}_4d")
    stems = [folder / f"{folder.name}_{time}" for time in ("ED", "ES")]
    if cine is None or all(map(find_image, stems)):
        return [read_frame(stem, 3, stem.name[-2:]) for stem in stems]
    info, image = read_info(folder), read_image(cine, ndim=4)
    return [frame_of(image, number, name) for number, name in ((info.ed, "ED"), (info.es, "ES"))]


def _labels(stem: Path, frame: Image) -> np.ndarray | None:
    labels = read_labels(Path(f"{stem}_gt"), frame, LABELS)
    if labels is not None:
        return labels
    endo, epi = (read_labels(Path(f"{stem}_{wall}"), frame, {"inside": 1}) for wall in ("endo", "epi"))
    if endo is None and epi is None:
        return None
    for wall, mask in (("endo", endo), ("epi", epi)):
        if mask is None:
            raise DataError(f"{stem}_{wall}.nii.gz: no such file; labels need both _endo and _epi, or _gt.")
    outside = np.count_nonzero((endo == 1) & (epi == 0))
    if outside > _OUTSIDE * np.count_nonzero(endo):
        raise DataError(
            f"{stem}_endo.nii.gz: {outside} voxels lie outside {stem.name}_epi; expected the filled endocardium "
            "within the filled epicardium. The two may be swapped."
        )
    return np.where(endo == 1, LABELS["lv"], np.where(epi == 1, LABELS["myo"], 0)).astype(np.uint8)


DATASET = Dataset(name="echo", labels=LABELS, main="myo", size=(64, 64, 64), find=find, read=read, crops=CROPS)
