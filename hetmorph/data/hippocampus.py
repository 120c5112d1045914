"""Hippocampus (Medical Segmentation Decathlon, task 4): small T1 volumes, subject to subject.

Layout (official): `imagesTr/hippocampus_NNN.nii.gz` and `labelsTr/hippocampus_NNN.nii.gz`. Volumes differ in
size; each is placed in the middle of the common one. Labels: 1 anterior (head), 2 posterior (body, tail).

Reference: Simpson et al., 2019, https://arxiv.org/abs/1902.09063
"""

from __future__ import annotations

from pathlib import Path

from hetmorph.data.dataset import Dataset, Found, Options, Subject
from hetmorph.data.files import ENVIRONMENT, find_entries, read_array, read_labels
from hetmorph.data.subjects import fitted_subject

LABELS = {"anterior": 1, "posterior": 2}

HELP = f"""The set is task 4 of the Medical Segmentation Decathlon (CC BY-SA 4.0): http://medicaldecathlon.com/
Expected layout:
  Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz
  Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz
Point at it with --data-dir DIR or the environment variable {ENVIRONMENT}=DIR, DIR being the folder that holds
imagesTr/, or one that holds Task04_Hippocampus/."""


def find(data_dir: Path | str | None) -> Found:
    """Image files below `data_dir`; DataError says how to get the data."""
    inner = ("imagesTr", "Task04_Hippocampus/imagesTr")
    what = "file hippocampus_NNN.nii.gz in imagesTr"
    return Found(find_entries(data_dir, r"(hippocampus_\d+)\.nii(?:\.gz)?", inner, what, HELP, Path.is_file))


def read(path: Path, options: Options) -> Subject:
    """Reads one subject; its image is stretched to [0, 1] by itself.

    Raises:
        DataError: a file is damaged, or image and labels do not fit; it is named.
    """
    name = path.name.split(".")[0]
    image = read_array(path, (3,))
    labels = read_labels(path.parent.parent / "labelsTr" / name, image, LABELS)
    return fitted_subject(name, image, labels, options.size)


DATASET = Dataset(
    name="hippocampus", labels=LABELS, main="anterior", size=(48, 64, 48), find=find, read=read, between=True
)
