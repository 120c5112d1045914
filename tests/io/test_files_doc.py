"""The code of docs/files.md runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from hetmorph.io import Image, model_grid, through_plane, write_image, write_transform
from tests.io.worlds import GRIDS_3D, moving_of, smooth_transform

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8"), re.S)


def test_every_block_runs(tmp_path, rng, monkeypatch):
    pytest.importorskip("SimpleITK")
    monkeypatch.chdir(tmp_path)
    grid = GRIDS_3D["oblique"]
    for name, one in (("fixed", grid), ("moving", moving_of(grid))):
        array = rng.normal(size=one.shape).astype(np.float32)
        write_image(f"{name}.nii.gz", array, Image(array, one.spacing, one.affine, True, Path(name)))
    write_transform("warp.nii.gz", smooth_transform(rng, grid))
    seen = model_grid(grid, spacing=(1.5, 1.5, None), slice_axis=through_plane(grid))
    names = {"displacements": np.ones((seen.shape[2], *seen.shape[:2], 2), np.float32)}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(block, names)
    assert names["transform"].displacement.shape == (*grid.shape, 3)
    assert Path("disp_0001_0002.npz").is_file() and Path("warp.h5").is_file()
