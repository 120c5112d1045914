"""docs/command-line.md: its commands run, one after the other, on files of these names."""

import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import numpy as np

from hetmorph.io import Grid, write_image
from tests import anatomy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"


def commands():
    """The words of each `hetmorph …` in the page's bash blocks, without `hetmorph`."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("hetmorph ")]


def test_its_commands_run(hetmorph, volumes, models, monkeypatch):
    monkeypatch.chdir(volumes)
    shutil.copytree(Path(models["vxm3d"]).parent, "models")
    grid = Grid((20, 18, 2), np.diag([-1.5, 1.5, 8.0, 1.0]))
    cine = np.stack([anatomy.image(grid, (shift, 0.0, 0.0)).array for shift in (0.0, 1.5)], -1)
    write_image("cine.nii.gz", cine, dataclasses.replace(anatomy.image(grid), spacing=(*grid.spacing, 0.05)))
    write_image("ed_labels.nii.gz", anatomy.labels(grid).array, grid)
    Path("fixed_landmarks.csv").write_text("x,y,z\n5,60,-9\n")
    Path("pairs.csv").write_text("case,moving,fixed\none,m.nii.gz,f.nii.gz\n")
    assert len(commands()) == 8
    for words in commands():
        hetmorph(*words)
        named = [word for option, word in zip(words, words[1:], strict=False) if option in ("--moved", "--points-out")]
        folder = Path("results/one") if "--pairs" in words else Path()
        assert all((folder / name).exists() for name in named), words
    assert Path("curve.png").exists() and Path("cine_warp_frame-01.nii.gz").exists()


def test_every_verb_is_in_it():
    from hetmorph.cli.main import cli

    assert all(f"`{verb}`" in PAGE.read_text() for verb in cli.commands)
