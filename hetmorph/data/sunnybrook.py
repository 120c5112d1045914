"""Sunnybrook cine MRI: short-axis stacks of another vendor, end-diastole to end-systole, one sample a slice.

Layout: a file `SCDNNNNNNN.npz` for each patient, made from the DICOM series and contours of the Sunnybrook
Cardiac Data, with `cine [Z, T, Y, X]`, `spacing_zyx` (mm), `ed_phase` and `es_phase` (from 0), `endo_ED` and
`endo_ES [Z, Y, X]` (inside of the endocardial contour). A sample has axes (X, Y), as those of the other sets.
Slices without a contour have empty labels, whether the ventricle is absent or was not drawn.

Reference: Radau et al., The MIDAS Journal, 2009, https://hdl.handle.net/10380/3070
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from hetmorph.data.crop import fit_all
from hetmorph.data.dataset import Dataset, Found, Options
from hetmorph.data.files import ENVIRONMENT, checked_labels, find_entries
from hetmorph.data.pair import Pair
from hetmorph.io import DataError

LABELS = {"lv_endo": 1}
KEYS = ("cine", "spacing_zyx", "ed_phase", "es_phase", "endo_ED", "endo_ES")

HELP = f"""The Sunnybrook Cardiac Data (CC0) come from the Cardiac Atlas Project:
http://cardiacatlas.org/standards/sunnybrook-cardiac-data
Expected: a file SCD0000101.npz for each patient with the arrays {", ".join(KEYS)} (docs/data.md).
Point at them with --data-dir DIR or the environment variable {ENVIRONMENT}=DIR, DIR being the folder that holds
them, or one that holds Sunnybrook/."""


def find(data_dir: Path | str | None) -> Found:
    """Patient files below `data_dir`; DataError says how to get the data."""
    return Found(find_entries(data_dir, r"(SCD\d+)\.npz", ("Sunnybrook",), "file SCD….npz", HELP, Path.is_file))


def read(path: Path, options: Options) -> tuple[list[Pair], dict[str, int]]:
    """Reads one patient: moving = end-diastole, fixed = end-systole, each slice stretched to [0, 1] by itself.

    Raises:
        DataError: the file is damaged, lacks an array, or its arrays do not fit together.
    """
    arrays = _arrays(path)
    phases = [_phase(path, arrays, key) for key in ("ed_phase", "es_phase")]
    frames = [arrays["cine"][:, phase].swapaxes(1, 2) for phase in phases]
    masks = [checked_labels(path, arrays[key], LABELS).swapaxes(1, 2) for key in ("endo_ED", "endo_ES")]
    spacing = tuple(float(width) for width in arrays["spacing_zyx"][:0:-1])
    pairs, cut = [], {}
    for index in range(len(frames[0])):
        case_id = f"{path.stem}_slice{index:02d}"
        slices = [frame[index] for frame in frames], [mask[index] for mask in masks]
        images, kept, gone = fit_all(*slices, options.size)
        if gone:
            cut[case_id] = gone
        pairs.append(Pair(case_id, path.stem, index, None, *images, *kept, spacing))
    return pairs, cut


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with NpzFile(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a complete npz file ({type(error).__name__}: {error}); make it again.") from error
    if missing := [key for key in KEYS if key not in arrays]:
        raise DataError(f"{path}: expected the arrays {', '.join(KEYS)}, received none called {', '.join(missing)}.")
    shape = arrays["cine"].shape
    if len(shape) != 4:
        raise DataError(f"{path}: expected cine with axes (Z, T, Y, X), received shape {shape}; save the whole series.")
    expected = {"spacing_zyx": (3,), "ed_phase": (), "es_phase": ()}
    expected |= dict.fromkeys(("endo_ED", "endo_ES"), (shape[0], *shape[2:]))
    for key, wanted in expected.items():
        if arrays[key].shape != wanted:
            raise DataError(
                f"{path}: expected {key} of shape {wanted} (cine has {shape}), received {arrays[key].shape}; "
                "make the file again from one series."
            )
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise DataError(f"{path}: expected {key} to hold real numbers, received {array.dtype}; make it again.")
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {key} holds NaN or infinite values; replace them or leave it out (--skip-bad).")
    spacing = arrays["spacing_zyx"]
    if spacing.min() <= 0 or spacing[0] < 0.999 * spacing[1:].max():
        raise DataError(
            f"{path}: expected spacing_zyx as millimetres above 0, the largest, between slices, first; received "
            f"{tuple(spacing.tolist())}."
        )
    return arrays


def _phase(path: Path, arrays: dict[str, np.ndarray], key: str) -> int:
    phase, count = int(arrays[key]), arrays["cine"].shape[1]
    if phase != arrays[key]:
        raise DataError(f"{path}: expected {key} to be the number of a frame, received {arrays[key]:g}.")
    if not 0 <= phase < count:
        raise DataError(f"{path}: expected {key} from 0 to {count - 1}, received {phase}; phases count from 0.")
    if key == "es_phase" and phase == int(arrays["ed_phase"]):
        raise DataError(f"{path}: ed_phase and es_phase are the same ({phase}); nothing to register.")
    return phase


DATASET = Dataset(name="sunnybrook", labels=LABELS, main="lv_endo", size=(128, 128), find=find, read=read)
