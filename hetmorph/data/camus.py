"""CAMUS: apical two- and four-chamber echocardiograms, end-diastole to end-systole, one sample a view.

Layout (official): `patientNNNN/patientNNNN_{2CH,4CH}_{ED,ES}.nii.gz` with `…_gt.nii.gz` beside each.
Arrays keep the files' axes: axis 0 is the file's X, across the sector, axis 1 its Y, along the beam.
Labels: 1 cavity of the left ventricle, 2 myocardium, 3 left atrium.

Reference: Leclerc et al., IEEE TMI 38(9), 2019, https://doi.org/10.1109/TMI.2019.2900516
"""

from __future__ import annotations

import logging
from pathlib import Path

from hetmorph.data.dataset import Dataset, Found, Options
from hetmorph.data.files import ENVIRONMENT, check_same_grid, find_entries, read_frame, read_labels
from hetmorph.data.pair import Pair
from hetmorph.data.resize import CROPS, resized_pair
from hetmorph.io import DataError

_LOG = logging.getLogger(__name__)
LABELS = {"lv": 1, "myo": 2, "la": 3}
VIEWS = ("2CH", "4CH")

HELP = f"""CAMUS is obtained, free for research, from the CAMUS challenge (CREATIS):
https://www.creatis.insa-lyon.fr/Challenge/camus/
Expected layout:
  CAMUS/patient0001/patient0001_2CH_ED.nii.gz   and patient0001_2CH_ED_gt.nii.gz
  CAMUS/patient0001/patient0001_2CH_ES.nii.gz   and patient0001_2CH_ES_gt.nii.gz
  CAMUS/patient0001/patient0001_4CH_...
Point at it with --data-dir DIR or the environment variable {ENVIRONMENT}=DIR, DIR being the folder that holds
patientNNNN/, or one that holds CAMUS/ or database_nifti/."""


def find(data_dir: Path | str | None) -> Found:
    """Patient folders below `data_dir`; DataError says how to get the data."""
    inner = ("CAMUS", "camus", "database_nifti", "CAMUS/database_nifti", "CAMUS_public/database_nifti")
    return Found(find_entries(data_dir, r"(patient\d{4})", inner, "folder patientNNNN of CAMUS", HELP))


def read(folder: Path, options: Options) -> tuple[list[Pair], dict[str, int]]:
    """Reads one patient: moving = end-diastole, fixed = end-systole, a sample for each view.

    Args:
        folder: the patient's folder.
        options: `crop` "paper" squeezes the whole image to `size`; "aspect" keeps its proportions.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others; it is named.
    """
    views = [view for view in VIEWS if any(folder.glob(f"{folder.name}_{view}_E[DS]*.nii*"))]
    if not views:
        raise DataError(f"{folder}: expected {folder.name}_2CH_ED.nii.gz and others, found no image of a view.")
    if missing := set(VIEWS) - set(views):
        _LOG.warning("%s: no image of the view %s; only the other is a sample.", folder, *missing)
    return [_read_view(folder, view, options) for view in views], {}


def _read_view(folder: Path, view: str, options: Options) -> Pair:
    stems = [folder / f"{folder.name}_{view}_{time}" for time in ("ED", "ES")]
    frames = [read_frame(stem, 2, f"{view} {stem.name[-2:]}") for stem in stems]
    check_same_grid(*frames)
    labels = [read_labels(Path(f"{stem}_gt"), frame, LABELS) for stem, frame in zip(stems, frames, strict=True)]
    return resized_pair(f"{folder.name}_{view}", folder.name, frames, labels, options.size, options.crop)


DATASET = Dataset(name="camus", labels=LABELS, main="myo", size=(128, 128), find=find, read=read, crops=CROPS)
