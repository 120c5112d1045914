"""A tiny ACDC tree, made of numbers, for everything about layout and damage."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

SHAPE = (20, 18, 4)
SPACING = (1.5, 1.5, 8.0)


def write_nifti(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1.0]) if affine is None else affine), path)


def heart(radius, shape=SHAPE):
    """Labels of a short heart: LV in a ring of myocardium, RV beside it; the last slice is empty."""
    x, y = np.indices(shape[:2])
    distance = np.hypot(x - 10, y - 8)
    labels = np.zeros(shape, np.uint8)
    labels[(distance < radius + 2) & (distance >= radius), :-1] = 2
    labels[distance < radius, :-1] = 3
    labels[(np.abs(x - 4) < 2) & (np.abs(y - 8) < 2), :-1] = 1
    return labels


def write_patient(folder, ed=1, es=9, group="DCM", suffix=".nii.gz", seed=0, labels=True):
    """Writes one patient and returns the paths of its files by short names."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    (folder / "Info.cfg").write_text(f"ED: {ed}\nES: {es}\nGroup: {group}\nHeight: 180.0\nNbFrame: 30\nWeight: 80\n")
    paths = SimpleNamespace(folder=folder, info=folder / "Info.cfg")
    for name, frame, radius in (("ed", ed, 4), ("es", es, 2)):
        mask = heart(radius)
        stem = f"{folder.name}_frame{frame:02d}"
        setattr(paths, name, folder / f"{stem}{suffix}")
        write_nifti(getattr(paths, name), (60 * mask + rng.integers(0, 50, SHAPE)).astype(np.int16))
        setattr(paths, f"{name}_gt", folder / f"{stem}_gt{suffix}")
        if labels:
            write_nifti(getattr(paths, f"{name}_gt"), mask)
    return paths


@pytest.fixture
def patient(tmp_path):
    """One good patient below tmp_path/ACDC/training."""
    return write_patient(tmp_path / "ACDC" / "training" / "patient001")


@pytest.fixture
def acdc_tree(tmp_path):
    """A training folder of ten good patients, two of each group."""
    groups = ("NOR", "DCM", "HCM", "MINF", "RV")
    for number in range(1, 11):
        write_patient(tmp_path / "training" / f"patient{number:03d}", group=groups[number % 5], seed=number)
    return tmp_path
