"""Training by a table with masks, landmarks and an affine stage, from the flags to what applies the model."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from hetmorph import config, data, registration
from hetmorph.cli import evaluate, train
from hetmorph.cli.models import affine_of_run
from hetmorph.cli.register_job import Settings
from hetmorph.data.aligned import aligned
from hetmorph.io import write_image
from hetmorph.io.chain import Linear
from hetmorph.registration import aligner
from tests import anatomy
from tests.data.sets import write_csv
from tests.data.test_csv_pairs import rows_of
from tests.registration.test_affine import VOLUME, fixed_of, motion, moved_by

pytestmark = pytest.mark.usefixtures("eager")
MOTION = motion(VOLUME, (0, 0, 15), (0.1, -0.06, 0.04))


def lps(path, places):
    np.savetxt(path, places * [-1, -1, 1], delimiter=",", header="x,y,z", comments="")
    return path.name


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Pairs of volumes far from each other, with labels, masks and landmarks of the moving and the fixed image."""
    folder = tmp_path_factory.mktemp("volumes")
    labels = anatomy.labels(VOLUME).array
    inside = VOLUME.world(np.argwhere(labels > 0)[::150])
    moved = Linear(np.linalg.inv(MOTION)).world(VOLUME.world(VOLUME.indices().reshape(-1, 3)))
    index = np.rint(VOLUME.index(moved)).astype(int)
    within = ((index >= 0) & (index < VOLUME.shape)).all(-1)
    moving_labels = np.where(within, labels[tuple(index.clip(0, np.array(VOLUME.shape) - 1).T)], 0)
    arrays = {
        "fixed": fixed_of(VOLUME).array,
        "moving": moved_by(MOTION, VOLUME).array,
        "fixed_labels": labels,
        "moving_labels": moving_labels.reshape(VOLUME.shape).astype(np.uint8),
    }
    arrays["mask_fixed"], arrays["mask_moving"] = (
        (arrays[f"{x}_labels"] > 0).astype(np.uint8) for x in ("fixed", "moving")
    )
    for name, array in arrays.items():
        write_image(folder / f"{name}.nii.gz", array, VOLUME)
    for number in range(3):  # other files of the same: a table has no pair twice
        write_image(folder / f"moving{number}.nii.gz", arrays["moving"], VOLUME)
    row = {name: f"{name}.nii.gz" for name in arrays}
    row |= {"points_fixed": lps(folder / "f.csv", inside)}
    row |= {"points_moving": lps(folder / "m.csv", Linear(MOTION).world(inside))}
    splits = ("train", "val", "test")
    rows = [row | {"moving": f"moving{n}.nii.gz", "split": splits[n], "case": splits[n]} for n in range(3)]
    return write_csv(folder / "pairs.csv", rows)


@pytest.fixture
def counted(monkeypatch):
    """How often the search ran."""
    pytest.importorskip("SimpleITK")
    calls, search = [], registration.aligner.__globals__["align"]
    monkeypatch.setitem(registration.aligner.__globals__, "align", lambda *a: calls.append(a) or search(*a))
    return calls


def test_all_of_a_pair_goes_through_the_affine_stage(table, counted):
    """Once, however often it is read; landmarks come where they lie in the fixed image, labels and masks follow."""
    stage = aligner("rigid")
    far = data.load(table, split="train").pairs[0]
    for _ in range(2):
        near = data.load(table, split="train", align=stage, memory=0).pairs[0]
    assert len(counted) == 1
    assert np.abs(far.points_moving - far.points_fixed).max() > 2
    np.testing.assert_allclose(near.points_moving, near.points_fixed, atol=0.4)
    for name in ("labels", "mask"):
        one, other = (getattr(near, f"{x}_{name}" if name == "labels" else f"{name}_{x}") for x in ("moving", "fixed"))
        assert np.mean(one == other) > 0.97 and one.any()
    assert np.abs(near.moving - near.fixed).mean() < 0.25 * np.abs(far.moving - far.fixed).mean()
    np.testing.assert_array_equal(near.fixed, far.fixed)


def test_pairs_that_are_read_already_are_aligned_as_they_are(table):
    """What is left of a true displacement undoes what the linear transform left of the motion."""
    pair = data.load(table, split="train").pairs[0]
    matrix = np.diag([*1 / np.array(VOLUME.spacing), 1]) @ motion(VOLUME, (0, 0, 15)) @ np.diag([*VOLUME.spacing, 1])
    voxels = Linear(matrix)  # of voxels, as their spacing makes the world
    world = Linear(np.diag([*pair.spacing, 1]) @ matrix @ np.diag([*1 / np.array(pair.spacing), 1]))
    index = np.stack(np.indices(VOLUME.shape), -1).astype(float)
    truth = voxels.world(index.reshape(-1, 3)).reshape(index.shape) - index + [0.5, 0, 0]
    near = aligned(dataclasses.replace(pair, displacement=truth.astype(np.float32)), lambda moving, fixed: world)
    back = voxels.world((index + near.displacement).reshape(-1, 3)).reshape(index.shape)
    np.testing.assert_allclose(back, index + truth, atol=1e-3)
    np.testing.assert_allclose(voxels.world(near.points_moving.astype(float)), pair.points_moving, atol=1e-3)
    assert near.mask_moving.dtype == bool and near.moving_labels.dtype == pair.moving_labels.dtype


TINY = ("--objective", "het", "--steps", "2", "--steps-per-epoch", "2", "--batch-size", "2", "--warm-start", "0")


@pytest.mark.slow
def test_a_training_with_all_of_it(table, tmp_path, counted):
    """It is written down, shown, and what applies the model does the same without being asked."""
    stored = tmp_path / "tiny.yaml"
    stored.write_text("network: {features: [[2, 2], [2, 2]], int_steps: 1}\n")
    flags = ["--config", str(stored), "--data", str(table), *TINY, "--landmark-weight", "0.5", "--affine", "rigid"]
    flags += ["--dice-weight", "0.3"]
    out = tmp_path / "run"
    train._aligner.cache_clear()
    settings = train.configuration(train.parser("train").parse_args(flags))
    model = train.train(settings, out, resume=False)
    assert len(counted) == 2  # of train and val
    assert [term.weight for term in model.terms] == [0.5, 0.3] and config.load(
        out / "config.yaml"
    ).data.affine == "rigid"
    with open(out / "log.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["landmarks"]) < 1 and 0 < float(row["overlap"]) < 1
    path = str(out / "model.keras")
    assert affine_of_run(path) == ("rigid", out / "config.yaml") and affine_of_run("demons") == ("none", None)
    asked = ["--data", str(table), "--model", path, "--out", str(tmp_path / "scores")]
    assert evaluate.main(asked) == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["affine"] == "rigid" and summary["undeformed"]["dice_mean"] > 0.8
    assert evaluate.data_options(evaluate.arguments([*asked, "--affine", "none"])).get("affine") is None
    assert evaluate.data_options(evaluate.arguments(["--data", "acdc", *asked[2:]])) == {"affine": "rigid"}
    assert Settings(path).affine_kind == "rigid" and Settings(path, affine="none").affine_kind == "none"
    assert Settings(path, reference="0").affine_kind == "none"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--landmark-weight", "-1"], "objective.landmark_weight must be at least 0, got -1"),
        (["--affine", "shear"], "data.affine must be one of .*'shear'"),
        (
            ["--landmark-weight", "1", "BARE"],
            "--landmark-weight has no effect: no pair of the train split has landmarks",
        ),
        (["--pre-registered", "0.5"], "--pre-registered does not go with masks, landmarks or --dice-weight"),
        (["--dice-weight", "-1"], "objective.dice_weight must be at least 0, got -1"),
        (["--dice-weight", "1", "BARE"], "--dice-weight has no effect: no pair of the train split has labels"),
    ],
)
def test_mistakes_end_in_one_line(table, tmp_path, capsys, flags, message):
    if "BARE" in flags:
        flags = flags[:-1]
        bare = [
            {k: v for k, v in row.items() if not k.startswith("points") and not k.endswith("labels")}
            for row in rows_of(table)
        ]
        table = write_csv(table.parent / "bare.csv", bare)
    asked = ["--data", str(table), "--batch-size", "2", *flags, "--out", str(tmp_path / "run"), "--dry-run"]
    assert train.main(asked) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and re.search(message, said[0]), said


@pytest.mark.slow
def test_landmarks_without_a_weight_are_told_of(table, tmp_path, capsys):
    assert train.main(["--data", str(table), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "landmarks of the table have no effect without --landmark-weight" in capsys.readouterr().err
