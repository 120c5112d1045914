"""Tiny data sets made of numbers, one writer for each adapter; each returns the folder to load from."""

import csv

import nibabel as nib
import numpy as np

from tests.data.conftest import write_patient


def save(path, array, spacing=None, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if affine is None:
        affine = np.diag([*(spacing or (1.0,) * 3), *(1.0,) * 4][:3] + [1.0])
    nib.save(nib.Nifti1Image(array, affine), path)


def blob(shape, radius, value=1):
    """A ball of a label in the middle of an array."""
    grid = np.indices(shape)
    middle = (np.array(shape).reshape(-1, *[1] * len(shape)) - 1) / 2
    return np.where(((grid - middle) ** 2).sum(0) < radius**2, value, 0).astype(np.uint8)


def shell(shape, outer, inner):
    """Cavity 1 in a wall 2."""
    return np.where(blob(shape, inner) == 1, 1, blob(shape, outer, 2)).astype(np.uint8)


def picture(labels, seed):
    rng = np.random.default_rng(seed)
    return (60 * labels + rng.integers(0, 50, labels.shape)).astype(np.uint8)


def write_acdc(root, count=4):
    for number in range(1, count + 1):
        write_patient(root / "ACDC" / "training" / f"patient{number:03d}", seed=number)
    return root / "ACDC"


def write_camus(root, count=4, shape=(30, 44)):
    for number in range(1, count + 1):
        name = f"patient{number:04d}"
        for view in ("2CH", "4CH"):
            for time, radius in (("ED", 10), ("ES", 8)):
                labels = shell((*shape, 1), radius, radius - 4)
                labels[:, -6:] = 3 * (labels[:, -6:] == 0)
                stem = root / "CAMUS" / name / f"{name}_{view}_{time}"
                save(stem.with_name(f"{stem.name}.nii.gz"), picture(labels, number), (0.308, 0.154, 1.54))
                save(stem.with_name(f"{stem.name}_gt.nii.gz"), labels, (0.308, 0.154, 1.54))
    return root / "CAMUS"


def write_hippocampus(root, count=5):
    for number in range(1, count + 1):
        labels = shell((9 + number, 12, 10), 4, 2)
        for part, array in (("imagesTr", picture(labels, number)), ("labelsTr", labels)):
            save(root / "Task04_Hippocampus" / part / f"hippocampus_{number:03d}.nii.gz", array)
    return root / "Task04_Hippocampus"


def write_oasis(root, count=5):
    for number in range(1, count + 1):
        labels = np.zeros((160, 192, 1), np.uint8)
        labels[20:140, 20:170, 0] = 1 + (np.arange(150) + number) % 24
        folder = root / "OASIS2D" / f"OASIS_OAS1_{number:04d}_MR1"
        save(folder / "slice_norm.nii.gz", picture(labels // 8, number))
        save(folder / "slice_seg24.nii.gz", labels)
        save(folder / "slice_seg4.nii.gz", (labels + 5) // 6 * (labels > 0))
    return root / "OASIS2D"


def sunnybrook_arrays(seed=0, shape=(20, 22), slices=3):
    rng = np.random.default_rng(seed)
    return {
        "cine": rng.integers(0, 500, (slices, 6, *shape)).astype(np.int16),
        "spacing_zyx": np.array([8.0, 1.25, 1.5]),
        "ed_phase": np.array(5),
        "es_phase": np.array(2),
        "endo_ED": np.repeat(blob(shape, 6)[None], slices, 0),
        "endo_ES": np.repeat(blob(shape, 4)[None], slices, 0),
    }


def write_sunnybrook(root, count=4):
    (root / "Sunnybrook").mkdir()
    for number in range(1, count + 1):
        np.savez(root / "Sunnybrook" / f"SCD{number:07d}.npz", **sunnybrook_arrays(number))
    return root / "Sunnybrook"


def write_echo(root, count=4, shape=(12, 10, 16), spacing=(1.2, 1.3, 0.9)):
    for number in range(1, count + 1):
        for time, radius in (("ED", 5), ("ES", 4)):
            labels = shell(shape, radius, radius - 2)
            stem = root / "ECHO" / f"p{number}" / f"p{number}_{time}"
            save(stem.with_name(f"{stem.name}.nii.gz"), picture(labels, number), spacing)
            save(stem.with_name(f"{stem.name}_gt.nii.gz"), labels, spacing)
    return root / "ECHO"


def write_table(root, count=4, shape=(20, 24), columns=("moving_labels", "fixed_labels"), **more):
    """A table pairs.csv and its images; `more` gives further columns as lists."""
    rows = []
    for number in range(count):
        row = {}
        for role, radius in (("moving", 6), ("fixed", 5)):
            labels = shell(shape, radius, 3)
            row[role], row[f"{role}_labels"] = f"images/{role}{number}.nii.gz", f"images/{role}{number}_seg.nii.gz"
            save(root / row[role], picture(labels, number), (1.5, 1.25, 2.0)[: len(shape)])
            save(root / row[f"{role}_labels"], labels, (1.5, 1.25, 2.0)[: len(shape)])
        rows.append({name: row[name] for name in ("moving", "fixed", *columns)})
        rows[-1] |= {name: values[number] for name, values in more.items()}
    return write_csv(root / "pairs.csv", rows)


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


WRITERS = {
    "acdc": write_acdc,
    "camus": write_camus,
    "echo": write_echo,
    "hippocampus": write_hippocampus,
    "oasis2d": write_oasis,
    "oasis2d-tissue": write_oasis,
    "sunnybrook": write_sunnybrook,
}
SIZES = {"echo": (16, 16, 16), "hippocampus": (16, 16, 12), "oasis2d": (160, 192), "oasis2d-tissue": (160, 192)}
