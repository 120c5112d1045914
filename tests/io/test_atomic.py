"""Files appear complete or not at all, also on a full disk."""

import re
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from hetmorph.io import DataError, Grid, Image, Transform, replacing, write_image, write_sidecar, write_transform
from hetmorph.io.atomic import clear_parts

GRID = Grid((24, 24, 24), np.diag([1.5, 2, 3, 1]))


@contextmanager
def full_disk(size=4096):
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(name, folder, value):
    array = np.random.default_rng(value).normal(size=GRID.shape)
    if name.startswith("warp"):
        format = "voxelmorph" if name.endswith("npz") else None
        return write_transform(folder / name, Transform(np.stack([array] * 3, -1), GRID), format)
    if name.endswith("json"):
        return write_sidecar(folder / name, {"numbers": array.ravel().tolist()})
    return write_image(folder / name, array, Image(array, GRID.spacing, GRID.affine, True, folder / "x"))


NAMES = ["a.nii", "a.nii.gz", "a.npz", "a.npy", "a.mha", "a.nrrd", "a.json"]
NAMES += ["warp.nii.gz", "warp.h5", "warp.tfm", "warp.mat", "warp.npz"]


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, name):
    if name.endswith(("mha", "nrrd", "h5", "tfm", "mat")):
        pytest.importorskip("SimpleITK")
    path = write(name, tmp_path, 1)
    content = path.read_bytes()
    with full_disk(), pytest.raises(OSError, match=re.escape(str(path))):
        write(name, tmp_path, 2)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    write(name, tmp_path, 2)
    assert path.read_bytes() != content


def test_an_error_or_an_interruption_leaves_nothing(tmp_path):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), replacing(tmp_path / "deep" / "a.nii.gz") as part:
            assert part.parent == tmp_path / "deep" and part.name.endswith(".nii.gz")
            part.write_bytes(b"half")
            raise error
        assert list((tmp_path / "deep").iterdir()) == []


def test_missing_folders_are_made(tmp_path):
    assert write("a.nii.gz", tmp_path / "new" / "er", 0).is_file()


def test_a_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(OSError):
        write("a.nii.gz", tmp_path, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_modes_follow_the_umask(tmp_path):
    (tmp_path / "b").write_text("")
    assert write("a.nii.gz", tmp_path, 0).stat().st_mode == (tmp_path / "b").stat().st_mode


def test_nothing_is_written_of_a_wrong_shape(tmp_path):
    like = Image(np.zeros(GRID.shape), GRID.spacing, GRID.affine, True, tmp_path / "fixed.nii.gz")
    with pytest.raises(ValueError, match=r"as fixed.nii.gz, received \(2, 2, 2\)"):
        write_image(tmp_path / "a.nii.gz", np.zeros((2, 2, 2)), like)
    assert list(tmp_path.iterdir()) == []
    assert issubclass(DataError, ValueError)


def test_rests_of_killed_programs_are_cleared_and_nothing_else(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.nii.gz") as part:
        part.write_bytes(b"half")
        kept = part.read_bytes()
        name = part.name
        raise KeyboardInterrupt
    for one in (name, ".hidden", ".0123.nii.gz", "b.nii.gz"):
        (tmp_path / one).write_bytes(kept)
    clear_parts(tmp_path)
    clear_parts(tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0123.nii.gz", ".hidden", "b.nii.gz"]
