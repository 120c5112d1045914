"""`hetmorph register --affine`: one transform of both stages, whatever is written of it."""

import json
import re
import sys

import numpy as np
import pytest

from hetmorph.io import Grid, read_transform, write_image
from hetmorph.io.itk import read_linear
from tests import anatomy
from tests.cli.conftest import arrays
from tests.cli.test_register import register
from tests.registration.test_affine import fixed_of, motion, moved_by

GRID = Grid((20, 22, 18), np.diag([-2.0, 2.0, 2.0, 1.0]))
MOTION = motion(GRID, (0, 0, 20), (0.2, -0.1, 0.05))


@pytest.fixture
def apart(tmp_path):
    """A pair of files far from each other, and labels of both."""
    pytest.importorskip("SimpleITK")
    write_image(tmp_path / "f.nii.gz", fixed_of(GRID).array, GRID)
    write_image(tmp_path / "m.nii.gz", moved_by(MOTION, GRID).array, GRID)
    labels = anatomy.labels(GRID).array
    write_image(tmp_path / "fl.nii.gz", labels, GRID)
    places = GRID.index(GRID.world(GRID.indices()) @ np.linalg.inv(MOTION)[:3, :3].T + np.linalg.inv(MOTION)[:3, 3])
    index = np.rint(places).astype(int)
    inside = ((index >= 0) & (index < GRID.shape)).all(-1)
    moving = np.where(inside, labels[tuple(np.moveaxis(index.clip(0, np.array(GRID.shape) - 1), -1, 0))], 0)
    write_image(tmp_path / "l.nii.gz", moving.astype(np.uint8), GRID)
    return tmp_path


@pytest.mark.slow
def test_all_results_are_of_both_stages(hetmorph, apart, models):
    sitk = pytest.importorskip("SimpleITK")
    results = ("moved", "transform", "inverse", "jacobian", "labels-out")
    more = ("--labels-fixed", apart / "fl.nii.gz", "--report", apart / "r.html", "--affine-out", apart / "a.mat")
    said = register(hetmorph, apart, models["vxm3d"], "--affine", "rigid", *more, "--draws", 2, results=results).stdout
    line = next(line for line in said.splitlines() if line.startswith("rigid stage, from "))
    assert "normalised mutual information 1." in line and "rotation 2" in line and "°, shift" in line
    assert line in (apart / "r.html").read_text()
    dice = next(line for line in said.splitlines() if line.startswith("Dice of label 3"))
    undeformed, placed, _ = (float(number) for number in re.findall(r"\d\.\d+", dice))
    assert "undeformed, " in dice and "after the rigid stage, " in dice and undeformed < 0.6 < placed

    found = json.loads((apart / "moved.json").read_text())["affine"]
    assert found["kind"] == "rigid" and found["after"] > found["before"] and 19 < found["rotation_degrees"] < 21
    matrix = np.array(found["matrix_ras_mm"])
    np.testing.assert_allclose(read_linear(apart / "a.mat"), matrix, atol=1e-6)
    assert json.loads((apart / "a.mat.json").read_text())["frame"] == "LPS"
    there, back = (read_transform(apart / f"{name}.nii.gz") for name in ("transform", "inverse"))
    start = GRID.world(np.argwhere(anatomy.labels(GRID).array > 0))
    linear = start @ matrix[:3, :3].T + matrix[:3, 3]
    between = np.linalg.norm(there.world(start) - linear, axis=-1)
    assert between.max() > 0.1  # the model moves something, too
    voxels = GRID.world(GRID.indices().reshape(-1, 3))
    index = GRID.index(back.world(voxels))
    known = ((index >= 0) & (index <= np.array(GRID.shape) - 1)).all(-1)
    assert known.mean() > 0.3
    np.testing.assert_allclose(there.world(back.world(voxels[known])), voxels[known], atol=0.02)
    hetmorph(
        *("apply", "-t", apart / "transform.nii.gz", "--moving", apart / "m.nii.gz", "--moved", apart / "again.nii.gz")
    )
    np.testing.assert_allclose(*arrays(apart / "again.nii.gz", apart / "moved.nii.gz"), atol=0.5)

    register(hetmorph, apart, "undeformed", "--affine", "rigid", "--affine-out", apart / "b.tfm")
    fixed, moving = (sitk.ReadImage(str(apart / name), sitk.sitkFloat32) for name in ("f.nii.gz", "m.nii.gz"))
    theirs = sitk.Resample(moving, fixed, sitk.ReadTransform(str(apart / "b.tfm")), sitk.sitkLinear, 0.0)
    np.testing.assert_allclose(sitk.GetArrayFromImage(theirs).T, arrays(apart / "moved.nii.gz")[0], atol=0.02)


def test_a_stage_alone_is_no_loss_of_its_own(hetmorph, apart):
    """Labels after the stage are interpolated as the registered ones: without a model, nothing is worse than before."""
    labels = ("--labels-moving", apart / "l.nii.gz", "--labels-fixed", apart / "fl.nii.gz")
    said = register(hetmorph, apart, "undeformed", "--affine", "rigid", *labels)
    after, registered = re.search(r"mean: .* (\S+) after the rigid stage, (\S+) registered", said.stdout).groups()
    assert after == registered and "Dice is lower" not in said.stderr


def test_masks_of_the_stage_need_no_optimisation(hetmorph, apart):
    """And, since they steer nothing after it, a map of uncertainty can be made."""
    masks = ("--mask-moving", apart / "m.nii.gz", "--mask-fixed", apart / "f.nii.gz")
    said = register(hetmorph, apart, "undeformed", "--affine", "rigid", *masks, "--draws", 2, results=("uncertainty",))
    assert "rotation 2" in said.stdout and (apart / "uncertainty.nii.gz").exists()


def test_it_starts_from_an_initial_transform(hetmorph, apart):
    words = ("--affine", "rigid", "--affine-out")
    register(hetmorph, apart, "undeformed", *words, apart / "a.mat")
    said = register(hetmorph, apart, "undeformed", *words, apart / "b.mat", "--initial", apart / "a.mat")
    assert "rigid stage, from initial" in said.stdout
    first, second = (read_linear(apart / f"{name}.mat") for name in "ab")
    places = GRID.world(GRID.corners())
    assert np.abs(places @ (first - second)[:3, :3].T + (first - second)[:3, 3]).max() < 0.5


def test_a_table_of_pairs(hetmorph, apart):
    (apart / "pairs.csv").write_text("case,moving,fixed\none,m.nii.gz,f.nii.gz\n")
    words = ("--affine", "rigid", "--affine-out", "a.txt", "--model", "undeformed", "--transform", "t.nii.gz")
    said = hetmorph("register", "--pairs", apart / "pairs.csv", "--out", apart / "out", *words)
    assert "one: rigid stage, from" in said.output
    found = json.loads((apart / "out" / "one" / "t.json").read_text())["affine"]
    np.testing.assert_allclose(read_linear(apart / "out" / "one" / "a.txt"), found["matrix_ras_mm"], atol=1e-6)


def test_a_dry_run_says_what_it_finds(hetmorph, apart):
    before = sorted(apart.iterdir())
    said = register(hetmorph, apart, "undeformed", "--affine", "affine", "--dry-run").stdout
    assert "affine stage, from" in said and sorted(apart.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--affine-out", "{}/a.mat"), "--affine-out has no effect without --affine"),
        (("--affine-start", "header"), "--affine-start has no effect without --affine"),
        (("--affine-metric", "mi"), "--affine-metric has no effect without --affine"),
        (("--affine", "rigid", "--affine-out", "{}/a.nii.gz"), "expected a name that ends in .h5, .tfm, .txt, .mat"),
        (
            ("--affine", "rigid", "--affine-start", "header", "--initial", "{}/f.nii.gz"),
            "--affine-start and --initial both say where",
        ),
        (("--affine", "rigid", "--mask", "{}/empty.nii.gz"), "the mask is empty"),
        (("--affine", "rigid", "--mask-fixed", "{}/empty.nii.gz", "--mask", "{}/f.nii.gz"), "the mask is empty"),
        (("--affine", "rigid", "--mask-moving", "{}/empty.nii.gz"), "the mask is empty"),
        (("--affine", "rigid", "--moving", "{}/empty.nii.gz"), "the moving image is constant"),
    ],
)
def test_a_mistake_is_named_in_one_line(hetmorph, apart, words, message):
    write_image(apart / "empty.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    before = sorted(apart.iterdir())
    said = register(hetmorph, apart, "undeformed", *(word.format(apart) for word in words), status=2).stderr
    assert message in said and len(said.splitlines()) == 1
    assert sorted(apart.iterdir()) == before


def test_of_a_pair_only(hetmorph, apart):
    words = ("--moving", apart / "m.nii.gz", "--reference", "ED", "--moved", apart / "x.nii.gz", "--affine", "rigid")
    assert "--affine is of a pair" in hetmorph("register", *words, "--model", "undeformed", status=2).stderr


def test_without_simpleitk(hetmorph, apart, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    said = register(hetmorph, apart, "undeformed", "--affine", "rigid", status=2).stderr
    assert "needs SimpleITK: pip install" in said and len(said.splitlines()) == 1


def test_an_affine_stage_is_not_the_default(hetmorph, apart):
    register(hetmorph, apart, "undeformed")
    assert "affine" not in json.loads((apart / "moved.json").read_text())
    assert not read_transform(apart / "transform.nii.gz").displacement.any()
