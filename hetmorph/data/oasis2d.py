"""neurite-OASIS 2-D: one coronal slice of each of 414 affinely aligned brains, subject to subject.

Layout (official): `OASIS_OAS1_NNNN_MR1/slice_norm.nii.gz`, `slice_seg24.nii.gz`, `slice_seg4.nii.gz`, 160 x 192
voxels of 1 mm. "oasis2d" has the 24 structures, "oasis2d-tissue" the four tissues. Second sessions (MR2) are
not read: they show a person twice.

Reference: Marcus et al., J. Cogn. Neurosci. 19, 2007, https://doi.org/10.1162/jocn.2007.19.9.1498; prepared by
Hoopes et al., 2021, https://arxiv.org/abs/2101.01035
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hetmorph.data.dataset import Dataset, Found, Options, Subject
from hetmorph.data.files import ENVIRONMENT, find_entries, read_frame, read_labels
from hetmorph.data.subjects import fitted_subject
from hetmorph.io import DataError

SHAPE = (160, 192)
_LEFT = "wm cortex latvent inflatvent thalamus caudate putamen pallidum 3rdvent brainstem hippocampus ventraldc choroid"
_RIGHT = "wm cortex latvent inflatvent thalamus caudate putamen pallidum hippocampus ventraldc choroid"
_MIDLINE = ("3rdvent", "brainstem")
STRUCTURES = {
    name: value
    for value, name in enumerate(
        [one if one in _MIDLINE else f"l_{one}" for one in _LEFT.split()] + [f"r_{one}" for one in _RIGHT.split()], 1
    )
}
TISSUES = {"cortex": 1, "subcortical": 2, "wm": 3, "csf": 4}

HELP = f"""The set is neurite-OASIS, under the OASIS data use agreement (https://oasis-brains.org/#access):
https://github.com/adalca/medical-datasets/blob/master/neurite-oasis.md
Expected layout:
  OASIS_OAS1_0001_MR1/slice_norm.nii.gz, slice_seg24.nii.gz, slice_seg4.nii.gz
Point at it with --data-dir DIR or the environment variable {ENVIRONMENT}=DIR, DIR being the folder that holds
OASIS_OAS1_NNNN_MR1/, or one that holds OASIS2D/ or neurite-oasis/."""


def find(data_dir: Path | str | None) -> Found:
    """Subject folders below `data_dir`; DataError says how to get the data."""
    inner = ("OASIS2D", "neurite-oasis", "neurite-oasis.2d.v1.0", "neurite-oasis.v1.0")
    return Found(find_entries(data_dir, r"(OASIS_OAS1_\d{4})_MR1", inner, "folder OASIS_OAS1_NNNN_MR1", HELP))


def read(segmentation: str, labels: dict[str, int], folder: Path, options: Options) -> Subject:
    """Reads one subject; its image is stretched to [0, 1] by itself.

    Raises:
        DataError: a file is missing, damaged, or not of 160 x 192 voxels; it is named.
    """
    image = read_frame(folder / "slice_norm", 2, "the slice")
    if image.array.shape != SHAPE:
        raise DataError(
            f"{image.path}: expected {SHAPE} voxels, in which all subjects are aligned, received {image.array.shape}; "
            "fetch the prepared 2-D slices."
        )
    mask = read_labels(folder / segmentation, image, labels)
    return fitted_subject(folder.name.removesuffix("_MR1"), image, mask, options.size)


_COMMON = {"size": SHAPE, "find": find, "between": True}
DATASET = Dataset(
    name="oasis2d",
    labels=STRUCTURES,
    main="l_hippocampus",
    read=partial(read, "slice_seg24", STRUCTURES),
    **_COMMON,
)
TISSUE_DATASET = Dataset(
    name="oasis2d-tissue", labels=TISSUES, main="cortex", read=partial(read, "slice_seg4", TISSUES), **_COMMON
)
