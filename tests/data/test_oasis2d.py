"""The neurite-OASIS adapter."""

import shutil

import numpy as np
import pytest

from hetmorph.data import DataError, dataset, load
from hetmorph.data.oasis2d import STRUCTURES, TISSUES
from tests.data.sets import save, write_oasis


@pytest.fixture
def folder(tmp_path):
    return write_oasis(tmp_path, 4)


def test_structures_have_the_values_of_the_official_table():
    assert list(STRUCTURES.values()) == list(range(1, 25)) and len(STRUCTURES) == 24
    some = {"l_wm": 1, "l_thalamus": 5, "3rdvent": 9, "brainstem": 10, "l_choroid": 13, "r_wm": 14, "r_choroid": 24}
    assert some.items() <= STRUCTURES.items()


@pytest.mark.parametrize(("name", "labels"), [("oasis2d", STRUCTURES), ("oasis2d-tissue", TISSUES)])
def test_each_segmentation_is_a_set_of_its_own(folder, name, labels):
    loaded = load(name, folder, split="all")
    assert loaded.labels == labels and loaded.main in labels
    pair = loaded.pairs[0]
    assert set(np.unique(pair.fixed_labels)) == {0, *labels.values()}
    assert (pair.moving.shape, pair.spacing, pair.patient) == ((160, 192), (1.0, 1.0), "OASIS_OAS1_0001")


def test_second_sessions_are_left_alone(folder):
    shutil.copytree(folder / "OASIS_OAS1_0001_MR1", folder / "OASIS_OAS1_0001_MR2")
    assert len(load("oasis2d", folder, split="all").pairs) == 4


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("slice_norm", np.ones((192, 160, 1), np.uint8), r"expected \(160, 192\) voxels.*received \(192, 160\)"),
        ("slice_norm", np.full((160, 192, 1), np.nan, np.float32), "30720 voxels are NaN"),
        (
            "slice_seg24",
            np.full((160, 192, 1), 25, np.uint8),
            "expected the labels 0 background, 1 l_wm.* … 24; received",
        ),
        ("slice_seg24", np.ones((160, 190, 1), np.uint8), "expected shape"),
        ("slice_norm", None, "no such file"),
    ],
)
def test_damage_is_named_or_skipped(folder, file, array, message):
    path = folder / "OASIS_OAS1_0002_MR1" / f"{file}.nii.gz"
    path.unlink() if array is None else save(path, array)
    with pytest.raises(DataError, match=f"OASIS_OAS1_0002_MR1/{file}.nii.gz: {message}"):
        load("oasis2d", folder, split="all")
    loaded = load("oasis2d", folder, split="all", skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["OASIS_OAS1_0002"] and len(loaded.pairs) == 3


@pytest.mark.quick("oasis2d")
@pytest.mark.parametrize("name", ["oasis2d", "oasis2d-tissue"])
def test_real_slices_show_the_main_structure_everywhere(data_dir, name):
    if not (data_dir / "OASIS2D").is_dir():
        pytest.skip(f"no OASIS2D in {data_dir}")
    loaded = load(name, data_dir, split="all")
    assert all((pair.fixed_labels == loaded.labels[loaded.main]).any() for pair in loaded.pairs)
    assert len(loaded.pairs) == len(loaded.splits["train"] + loaded.splits["val"] + loaded.splits["test"])


def test_real_names_are_those_of_the_official_table(data_dir):
    table = data_dir / "OASIS2D" / "seg24_labels.txt"
    if not table.is_file():
        pytest.skip(f"no {table}")
    rows = [line.split()[:2] for line in table.read_text().splitlines() if line[:1].isdigit() and line[0] != "0"]
    short = {"Cerebral-White-Matter": "wm", "Cerebral-Cortex": "cortex", "Lateral-Ventricle": "latvent"}
    short |= {"Inf-Lat-Ventricle": "inflatvent", "3rd-Ventricle": "3rdvent", "Ventral-DC": "ventraldc"}
    short |= {"Choroid-Plexus": "choroid", "Brain-Stem": "brainstem"}
    for value, name in rows:
        side, _, rest = name.partition("-") if name.startswith(("Left", "Right")) else ("", "", name)
        expected = short.get(rest, rest.lower())
        assert dataset("oasis2d").labels[f"{side[0].lower()}_{expected}" if side else expected] == int(value)
