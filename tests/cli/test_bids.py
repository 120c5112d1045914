"""`hetmorph bids`: later sessions are registered to the first, and what is written is a data set of derivatives."""

import json

import numpy as np
import pytest

from hetmorph.io import read_image, read_transform, write_image
from hetmorph.io.bids import follow_ups
from tests import anatomy
from tests.io.worlds import GRIDS_3D


@pytest.fixture
def study(tmp_path):
    """Two participants with follow-ups, one of two acquisitions; a third with one session only."""
    root = tmp_path / "study"
    grid = GRIDS_3D["oblique"]
    for name in (
        *("sub-01_ses-a_T1w", "sub-01_ses-b_T1w", "sub-01_ses-c_T1w", "sub-01_ses-b_acq-fast_T1w"),
        *("sub-02_ses-a_acq-fast_T1w", "sub-02_ses-b_acq-fast_T1w", "sub-02_ses-b_T2w", "sub-03_ses-a_T1w"),
    ):
        folder = root / name.split("_")[0] / name.split("_")[1] / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        moved = (0.06 * anatomy.extent(grid) if "ses-b" in name else 0.0) * np.ones(3)
        image = anatomy.image(grid, moved)
        write_image(folder / f"{name}.nii.gz", image.array, image)
    (root / "dataset_description.json").write_text('{"Name": "made up", "BIDSVersion": "1.9.0"}')
    return root


def test_pairs_differ_in_the_session_only(study):
    pairs, without = follow_ups(study)
    found = {name: first.name for name, (first, _) in pairs.items()}
    assert found == {
        "sub-01_ses-b_T1w": "sub-01_ses-a_T1w.nii.gz",
        "sub-01_ses-c_T1w": "sub-01_ses-a_T1w.nii.gz",
        "sub-02_ses-b_acq-fast_T1w": "sub-02_ses-a_acq-fast_T1w.nii.gz",
    }
    assert without == ["sub-03: no two sessions with a T1w image of the same name in anat"]


def test_derivatives_lie_where_bids_has_them_and_are_made_once(hetmorph, study, models, tmp_path):
    out = tmp_path / "derivatives"
    words = ("bids", study, out, "participant", "--participant_label", "sub-02 03", "--model", models["vxm3d"])
    assert "would write" in hetmorph(*words, "--dry-run").output and not out.exists()
    said = hetmorph(*words)
    assert "left out: sub-03: no two sessions" in said.stderr and "1 of 1 pairs registered, 0 failed" in said.stdout
    folder = out / "sub-02" / "ses-b" / "anat"
    moved = read_image(folder / "sub-02_ses-b_acq-fast_space-a_desc-moved_T1w.nii.gz")
    first = study / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_acq-fast_T1w.nii.gz"
    assert moved.grid.same(read_image(first).grid)
    transform = folder / "sub-02_ses-b_acq-fast_from-b_to-a_mode-image_xfm.nii.gz"
    assert np.isfinite(read_transform(transform).displacement).all()
    assert (folder / "sub-02_ses-b_acq-fast_from-a_to-b_mode-image_xfm.nii.gz").exists()
    told = json.loads((out / "dataset_description.json").read_text())
    assert told["DatasetType"] == "derivative" and (out / ".bidsignore").read_text() == "hetmorph\n*_xfm.*\n"
    assert told["DatasetLinks"] == {"raw": study.as_uri()}
    sidecar = json.loads((folder / "sub-02_ses-b_acq-fast_space-a_desc-moved_T1w.json").read_text())
    assert sidecar["SpatialReference"] == f"bids:raw:{first.relative_to(study)}" and sidecar["SkullStripped"] is False
    when = transform.stat().st_mtime_ns
    assert "0 of 1 pairs registered, 1 were done before" in hetmorph(*words).stdout
    assert transform.stat().st_mtime_ns == when


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--participant-label", "09"), "has no sub-09; there are sub-01, sub-02, sub-03"),
        (("--suffix", "bold"), "nothing to register"),
        (("--mask", "m.nii.gz"), "--mask is of one pair"),
    ],
)
def test_mistakes_are_one_line(hetmorph, study, tmp_path, words, message):
    said = hetmorph("bids", study, tmp_path / "out", "participant", *words, "--model", "undeformed", status=2)
    assert message in said.stderr and not (tmp_path / "out").exists()


def test_a_folder_that_is_no_data_set_is_refused(hetmorph, tmp_path):
    (tmp_path / "in").mkdir()
    said = hetmorph("bids", tmp_path / "in", tmp_path / "out", "participant", status=2)
    assert "expected a BIDS data set, which has a dataset_description.json" in said.stderr
