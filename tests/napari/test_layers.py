"""Between layers and images, without a viewer: the world, the segments, what is kept."""

import numpy as np
import pytest

from hetmorph.io import DataError, Grid, read_transform, write_image
from hetmorph.napari import files, lines, process, work, world
from tests.io.worlds import GRIDS_2D, GRIDS_3D, smooth_transform

GRIDS = {**GRIDS_3D, **{f"2-D {name}": grid for name, grid in GRIDS_2D.items() if grid.in_xy_plane}}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


@every_grid
def test_an_image_goes_to_a_layer_and_back(grid, rng):
    """And to the place that ITK gives its voxels, whose coordinates (x, y, z) the viewer shows as (z, y, x)."""
    array = rng.random(grid.shape)
    matrix = world.layer_affine(grid)
    image = world.image_of(array.T, matrix, "layer")
    np.testing.assert_array_equal(image.array, array)
    if grid.ndim == 2:  # the height of its plane is none of the two axes
        grid = Grid(grid.shape, grid.affine * np.where(np.arange(16).reshape(4, 4) == 11, 0, 1))
    assert image.grid.same(grid)
    index = np.array(grid.shape) - 1
    lps = (grid.world(index) * [-1, -1, 1])[: grid.ndim]
    np.testing.assert_allclose((matrix @ [*index[::-1], 1])[:-1], lps[::-1], atol=1e-6)


def test_units_of_length_are_millimetres():
    pint = pytest.importorskip("pint")
    unit = pint.UnitRegistry()
    image = world.image_of(np.ones((4, 5)), np.diag([2.0, 3.0, 1.0]), "cell", [unit.um, unit.mm])
    np.testing.assert_allclose(image.spacing, (3.0, 0.002))
    assert world.image_of(np.ones((4, 5)), np.eye(3), "cell", [unit.pixel] * 2).spacing == (1, 1)
    assert world.in_length([unit.um, unit.mm]) and not world.in_length([unit.pixel])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 4), complex), "red: expected a 2-D or 3-D image of real numbers, received complex128"),
        (np.zeros((2, 2, 2, 2)), r"red: expected .* received float64 \(2, 2, 2, 2\)"),
        (np.full((4, 4), np.nan), "red: holds NaN"),
    ],
)
def test_what_is_no_image_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        world.image_of(data, np.eye(data.ndim + 1), "red")


def test_a_matrix_of_its_function():
    matrix = np.array([[1.0, 2, 3], [4, 5, 6], [0, 0, 1]])
    np.testing.assert_allclose(world.affine_by(lambda x: tuple((matrix @ [*x, 1])[:2]), 2), matrix)


@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 4)])
def test_arrows_lead_to_where_voxels_are_taken_from(shape, rng):
    u = rng.normal(size=(*shape, len(shape)))
    starts, vectors = np.moveaxis(lines.arrows(u, 3), 1, 0)
    assert len(starts) == 4 * 3 * np.prod(shape[2:])
    for start, vector in zip(starts.astype(int), vectors, strict=True):
        np.testing.assert_allclose(vector[::-1], u[tuple(start[::-1])], rtol=1e-5)


def test_lines_of_the_deformed_grid():
    """Each is a chain from border to border of the image; in a volume it stays in its slice."""
    u = np.zeros((11, 8, 3, 3))
    u[..., 0], u[..., 1], u[..., 2] = 0.5, -0.25, 0.4
    starts, steps = np.moveaxis(lines.deformed_grid(u, 4), 1, 0)
    assert set(starts[:, 0]) == {0, 1, 2} and not steps[:, 0].any()
    along = steps[:, 2] != 0  # axis 0 of the image is the last of the layer
    assert steps[along, 2].sum() == 10 * 2 * 3 and steps[~along, 1].sum() == 7 * 3 * 3
    assert starts[along, 2].min() == 0.5 and starts[~along, 1].min() == -0.25


@pytest.mark.parametrize("name", ["warp.nii.gz", "warp.tfm"])
def test_the_displacement_is_written_from_what_a_layer_keeps(tmp_path, rng, name):
    if name.endswith("tfm"):
        pytest.importorskip("SimpleITK")
    grid = GRIDS_3D["oblique"]
    transform = smooth_transform(rng, grid)
    metadata = {files.KEY: {"transform": transform, "moving": grid, "about": {"model": "m"}}}
    assert files.write_layer(str(tmp_path / name), None, {"metadata": metadata}) == [str(tmp_path / name)]
    np.testing.assert_allclose(read_transform(tmp_path / name).displacement, transform.displacement, atol=1e-3)
    with pytest.raises(ValueError, match="this layer holds no displacement"):
        files.write_layer(str(tmp_path / "x.nii.gz"), None, {"metadata": {}})


def test_a_file_is_read_to_its_place(tmp_path, rng):
    """A sequence, too, whose frames come first."""
    grid = Grid((5, 6, 4), GRIDS_3D["oblique"].affine)
    for name, array in (("a.nii.gz", rng.random(grid.shape)), ("b.nii.gz", rng.random((*grid.shape, 3)))):
        write_image(tmp_path / name, array, grid)
        [(data, look, kind)] = files.reader(str(tmp_path / name))(None)
        assert kind == "image" and data.shape == array.T.shape and look["name"] == name
        matrix = look["affine"]
        np.testing.assert_allclose(data[..., 1, 2, 3], array[3, 2, 1])
        n = data.ndim
        place = matrix @ np.array([*[0] * (n - 3), 1, 2, 3, 1])
        np.testing.assert_allclose(place[n - 3 : n][::-1], grid.world([3, 2, 1]) * [-1, -1, 1], rtol=1e-5)


@pytest.mark.slow
def test_the_sample_is_a_pair_of_one_size():
    """Of another process, whose answer is what this one would give."""
    moving, fixed = files.phantom()
    expected = work.phantom()
    np.testing.assert_array_equal(moving[0].T, expected["end-diastole"])
    np.testing.assert_array_equal(fixed[0].T, expected["end-systole"])
    assert moving[1]["scale"] == fixed[1]["scale"] == expected["spacing"][::-1]


def test_what_happens_in_the_other_process_is_told(monkeypatch):
    with pytest.raises(RuntimeError, match="AttributeError: .*nothing"):
        work.last_of(process._asked("nothing"))
    monkeypatch.setattr(process.sys, "executable", "/bin/false")
    assert "ended with status 1" in work.last_of(process._asked("phantom")).line
