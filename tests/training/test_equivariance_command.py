"""`training/equivariance.py`: a row for each model, numbers that its names promise."""

import re

import numpy as np
import pytest

from hetmorph.networks import VxmDense
from tests.networks.models import lively
from training import equivariance

FEW = ["--size", "32", "32", "--pairs", "1", "--moves", "1", "--draws", "2", "--kinds", "translation"]
pytestmark = pytest.mark.usefixtures("eager")


def rows(capsys, *more):
    assert equivariance.main([*FEW, *more]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    header, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in cells]


def test_a_trained_model_has_a_row_and_a_curve(capsys, tmp_path):
    lively(VxmDense((32, 32), [[4], [4]], int_steps=1), np.random.default_rng(0), 0.1).save(tmp_path / "model.keras")
    (row,) = rows(capsys, "--model", str(tmp_path / "model.keras"), "--picture", str(tmp_path / "dice.png"))
    assert row["model"] == str(tmp_path)
    assert float(row["[U,U], by 16"]) < 0.5  # away from the edges nothing
    assert row["[W,U], 25 %"].endswith("(100 %)")  # which it does not see
    assert float(row["Dice, 0 %"]) > 2 * float(row["Dice, 25 %"])
    assert float(row["Dice, 0 %"]) > float(row["Dice, 30°"]) > 0
    assert row["believed"] in ("yes", "no", "blind")
    assert (tmp_path / "dice.png").stat().st_size > 1000


@pytest.mark.slow
def test_an_affine_stage_has_a_row_of_its_own(capsys, monkeypatch):
    """It is asked anew for each motion, which it finds and the network does not see."""
    monkeypatch.setattr(equivariance, "ANGLES_DRAWN", (30, 90))
    alone, aligned = rows(capsys, "--model", "undeformed", "--affine", "rigid")
    assert aligned["model"] == "undeformed, rigid first" and aligned["[U,U], by 16"] == aligned["error"] == ""
    for motion in ("25 %", "30°"):
        assert float(alone[f"Dice, {motion}"]) + 0.1 < float(aligned[f"Dice, {motion}"]) <= 1


@pytest.mark.slow
def test_random_networks_have_displacements_of_two_voxels(capsys):
    pair = equivariance.load_set(equivariance.arguments(FEW)).pairs[0]
    displacement = equivariance.random_model("vxm", 0.1, pair, 0).register(*equivariance._batch(pair))
    assert np.linalg.norm(displacement, axis=-1).mean() == pytest.approx(equivariance.LENGTH, rel=0.3)
    assert rows(capsys, "--random", "vxm")[0]["model"] == "vxm, random"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(["--random", "vgg"], "--random of vxm, .* received vgg"), (["--draws", "1"], "2 of --draws")],
)
def test_what_it_does_not_know_is_refused(wrong, message, capsys):
    with pytest.raises(SystemExit):
        equivariance.arguments([*FEW, *wrong])
    assert re.search(message, capsys.readouterr().err)
