"""`training/equivariance.py`: a row for each model, numbers that its names promise."""

import re

import pytest

from training import equivariance

FEW = ["--size", "32", "32", "--pairs", "1", "--moves", "1", "--draws", "2", "--kinds", "translation"]
pytestmark = pytest.mark.usefixtures("eager")


def rows(capsys, *more):
    assert equivariance.main([*FEW, *more]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    header, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in cells]


def test_random_and_trained_models_have_a_row_each(capsys, tmp_path):
    pair = equivariance.first_pairs(equivariance.load_set(equivariance.arguments(FEW)).pairs, 1)[0]
    model = equivariance.random_model("vxm", 1.0, pair, 0)
    model.save(tmp_path / "model.keras")
    more = ["--model", str(tmp_path / "model.keras"), "--picture", str(tmp_path / "dice.png")]
    random, trained = rows(capsys, "--random", "vxm", *more)
    assert (tmp_path / "dice.png").stat().st_size > 1000
    assert random["model"] == "vxm, random" and trained["model"].endswith("model.keras")
    assert [*random.values()][1:] == [*trained.values()][1:]  # the same network
    assert float(random["Dice, 0 %"]) > 2 * float(random["Dice, 25 %"])
    assert float(random["[U,U], by 16"]) < 1
    assert float(random["[W,U], 25 %"].split()[0]) > 2  # which it does not see
    assert random["believed"] in ("yes", "no", "blind")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(["--random", "vgg"], "--random of vxm, .* received vgg"), (["--draws", "1"], "2 of --draws")],
)
def test_what_it_does_not_know_is_refused(wrong, message, capsys):
    with pytest.raises(SystemExit):
        equivariance.arguments([*FEW, *wrong])
    assert re.search(message, capsys.readouterr().err)
