"""Provenance beside a file, and BIDS names."""

import json

import pytest

from hetmorph.io import bids_names, describe_dataset, provenance, sidecar_of, write_sidecar
from hetmorph.io.sidecar import sha256_of
from hetmorph.version import __version__


def test_provenance_names_versions_model_and_command(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"weights")
    entries = provenance(["hetmorph", "register"], tmp_path / "model.keras", {"moving": "m.nii"}, seed=3)
    stored = json.loads(write_sidecar(tmp_path / "warp.nii.gz", entries).read_text())
    assert stored == entries
    assert stored["hetmorph"] == __version__ and stored["seed"] == 3
    assert {"keras", "numpy"} <= set(stored["packages"])
    assert stored["model"]["sha256"] == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    assert provenance(model="demons")["model"] == {"name": "demons"}


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path):
    folder = tmp_path / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")
    first = sha256_of(folder)
    assert first == sha256_of(folder)
    (folder / "variables" / "data").write_bytes(b"weight2")
    changed = sha256_of(folder)
    (folder / "variables" / "data").rename(folder / "variables" / "other")
    assert len({first, changed, sha256_of(folder)}) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", "a.json"), ("a.b.h5", "a.b.h5.json"), ("out/warp.nii", "out/warp.json"), ("plain", "plain.json")],
)
def test_the_sidecar_lies_beside(name, expected):
    assert sidecar_of(name).as_posix() == expected


def test_bids_names_keep_the_entities():
    names = bids_names("data/sub-01_ses-2_frame-ES_cine.nii.gz", "ED", "ES")
    assert names["transform"] == "sub-01_ses-2_frame-ES_from-ES_to-ED_mode-image_xfm.nii.gz"
    assert names["inverse"] == "sub-01_ses-2_frame-ES_from-ED_to-ES_mode-image_xfm.nii.gz"
    assert names["moved"] == "sub-01_ses-2_frame-ES_space-ED_desc-moved_cine.nii.gz"
    assert names["labels"].endswith("_space-ED_desc-moved_dseg.nii.gz")
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("name", ["patient 01.nii", "my_scan.mha", "ß.nii", "sub-01.nii.gz", "sub-1_x y.nii"])
def test_other_names_become_subjects(name):
    for one in bids_names(name).values():
        stem, *_ = one.split(".")
        entities = stem.split("_")[:-1]
        assert entities[0].startswith("sub-")
        assert all(entity.count("-") == 1 and entity.replace("-", "").isalnum() for entity in entities)


def test_a_space_entity_of_the_moving_image_is_not_repeated():
    assert bids_names("sub-1_space-T1w_desc-preproc_bold.nii.gz")["moved"] == "sub-1_space-fixed_desc-moved_bold.nii.gz"


@pytest.mark.parametrize("labels", [("a b", "c"), ("fixed", "fixed"), ("", "x")])
def test_bad_labels_are_refused(labels):
    with pytest.raises(ValueError, match="label"):
        bids_names("a.nii", *labels)


def test_a_folder_becomes_a_data_set_once(tmp_path):
    path = describe_dataset(tmp_path / "derivatives")
    stored = json.loads(path.read_text())
    assert path.name == "dataset_description.json" and stored["DatasetType"] == "derivative"
    assert (
        stored["Name"]
        and stored["BIDSVersion"]
        and stored["GeneratedBy"] == [{"Name": "hetmorph", "Version": __version__}]
    )
    path.write_text("{}")
    assert describe_dataset(tmp_path / "derivatives") is None and path.read_text() == "{}"
