"""Points go the other way than images."""

import numpy as np
import pytest

from hetmorph.io import DataError, DataWarning, Grid, Transform, read_points, transform_points, warp_image, write_points
from tests.io.worlds import GRIDS_2D, GRIDS_3D, TURN, moving_of, smooth_transform

every_grid = pytest.mark.parametrize("grid", [*GRIDS_3D.values(), *GRIDS_2D.values()])


@every_grid
def test_a_spot_is_found_where_the_point_says(grid):
    # a spot of the moving image appears in the moved one at x where x + u(x) is the spot
    moving = moving_of(grid)
    transform = Transform(np.full((*grid.shape, grid.ndim), 0.0) + [1.5, -0.5, 0.7][: grid.ndim], grid)
    fixed_point = (np.array(grid.shape) - 1.0) // 2
    there = transform_points(transform, fixed_point[None], "voxel", moving)
    distance = np.linalg.norm((moving.indices() - there[0]) @ moving.linear.T, axis=-1)
    spot = np.exp(-((distance / min(grid.spacing) / 2) ** 2))
    moved = warp_image(transform, spot, moving)
    assert np.unravel_index(moved.argmax(), moved.shape) == tuple(fixed_point.astype(int))


@every_grid
def test_frames_agree(grid, rng):
    transform, moving = smooth_transform(rng, grid), moving_of(grid)
    index = rng.uniform(1, np.array(grid.shape) - 2, (20, grid.ndim))
    ras = transform_points(transform, grid.world(index), "RAS")
    lps = transform_points(transform, grid.world(index) * [-1, -1, 1], "LPS")
    np.testing.assert_allclose(lps * [-1, -1, 1], ras, atol=1e-9)
    np.testing.assert_allclose(
        transform_points(transform, index, "voxel", moving), moving.index(ras), rtol=0, atol=1e-6
    )
    on_voxels = grid.indices().reshape(-1, grid.ndim)
    expected = on_voxels + transform.displacement.reshape(on_voxels.shape)
    np.testing.assert_allclose(transform_points(transform, on_voxels, "voxel"), expected, atol=1e-4)


def test_points_of_a_plane_in_two_coordinates(rng):
    grid = GRIDS_2D["oblique"]
    transform = smooth_transform(rng, grid)
    index = rng.uniform(1, 10, (8, 2))
    lps = grid.world(index) * [-1, -1, 1]
    np.testing.assert_allclose(
        transform_points(transform, lps[:, :2]), transform_points(transform, lps)[:, :2], atol=1e-9
    )
    tilted = np.eye(4)
    tilted[:3, :3] = TURN
    with pytest.raises(ValueError, match=r"\[P, 3\]"):
        transform_points(Transform(transform.displacement, Grid(grid.shape, tilted)), lps[:, :2])


def test_outside_the_grid_the_edge_vector_counts():
    grid = Grid((5, 5, 5), np.eye(4))
    transform = Transform(np.full((5, 5, 5, 3), [1.0, 2, 3]), grid)
    np.testing.assert_allclose(transform_points(transform, [[8.0, -3, 3]], "RAS"), [[9, -1, 6]])


@pytest.mark.parametrize("bad", [[[1.0, 2]], [[np.nan, 1, 2]], [1.0, 2, 3], np.zeros((2, 4))])
def test_bad_points_are_refused(bad):
    grid = GRIDS_3D["plain"]
    transform = Transform(np.zeros((*grid.shape, 3)), grid)
    with pytest.raises(ValueError, match="point"):
        transform_points(transform, bad)
    with pytest.raises(ValueError, match="frames"):
        transform_points(transform, [[1.0, 2, 3]], "lps")


def test_a_table_keeps_its_other_columns(tmp_path):
    (tmp_path / "a.csv").write_text("label,x,y,z,comment\n1,1.5,-2,3,apex\n2,4,5e0,6,base\n")
    points = read_points(tmp_path / "a.csv")
    np.testing.assert_array_equal(points.coordinates, [[1.5, -2, 3], [4, 5, 6]])
    path = write_points(tmp_path / "b.csv", points.moved_to(points.coordinates + 0.25))
    assert path.read_text() == "label,x,y,z,comment\n1,1.75,-1.75,3.25,apex\n2,4.25,5.25,6.25,base\n"


def test_tables_without_names_and_of_two_coordinates(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3\n4,5,6\n")
    assert read_points(tmp_path / "a.csv").coordinates.shape == (2, 3)
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbfX, Y\n1, 2\n")
    points = read_points(tmp_path / "b.csv")
    np.testing.assert_array_equal(points.coordinates, [[1, 2]])
    assert write_points(tmp_path / "c.csv", points).read_text() == "X,Y\n1.0,2.0\n"


def test_coordinates_survive_writing(tmp_path, rng):
    (tmp_path / "a.csv").write_text("x,y,z\n0,0,0\n")
    values = rng.normal(0, 100, (1, 3))
    path = write_points(tmp_path / "b.csv", read_points(tmp_path / "a.csv").moved_to(values))
    np.testing.assert_allclose(read_points(path).coordinates, values, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no point"),
        ("x,y,z\n", "no point"),
        ("a,b,c\n1,2,3\n", "expected columns x, y"),
        ("x,y,z\n1,2,3\n1,two,3\n", "line 3: expected numbers"),
        ("x,y,z\n1,2\n", "line 2: expected numbers"),
        ("x,y,z\n1,nan,3\n", "line 2: expected numbers"),
        ("1\n", "line 1"),
    ],
)
def test_broken_tables_are_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_points(tmp_path / "a.csv")
    assert "a.csv" in str(error.value)
    with pytest.raises(DataError, match="gone.csv"):
        read_points(tmp_path / "gone.csv")


def vtk_text(points):
    lines = "\n".join(" ".join(map(str, point)) for point in points)
    return (
        f"# vtk DataFile Version 3.0\nmesh\nASCII\nDATASET POLYDATA\nPOINTS {len(points)} float\n{lines}\n"
        "POLYGONS 1 4\n3 0 1 2\n"
    ).encode()


def test_a_mesh_keeps_its_faces(tmp_path, rng):
    values = np.round(rng.normal(size=(3, 3)), 3)
    (tmp_path / "a.vtk").write_bytes(vtk_text(values))
    points = read_points(tmp_path / "a.vtk")
    np.testing.assert_array_equal(points.coordinates, values)
    path = write_points(tmp_path / "b.vtk", points.moved_to(values + 1))
    assert path.read_bytes().endswith(b"\nPOLYGONS 1 4\n3 0 1 2\n")
    np.testing.assert_allclose(read_points(path).coordinates, values + 1)
    with pytest.raises(ValueError, match="read from a .vtk file"):
        write_points(tmp_path / "b.csv", points)


@pytest.mark.parametrize(("word", "kind"), [("float", ">f4"), ("double", ">f8")])
def test_a_binary_mesh(tmp_path, rng, word, kind):
    values = rng.normal(size=(5, 3))
    head = f"# vtk DataFile Version 4.2\nmesh\nBINARY\nDATASET POLYDATA\nPOINTS 5 {word}\n".encode()
    tail = b"\nVERTICES 1 2\n\x00\x00\x00\x01\x00\x00\x00\x00"
    (tmp_path / "a.vtk").write_bytes(head + values.astype(kind).tobytes() + tail)
    points = read_points(tmp_path / "a.vtk")
    np.testing.assert_allclose(points.coordinates, values, rtol=1e-6)
    again = write_points(tmp_path / "b.vtk", points.moved_to(values * 2)).read_bytes()
    assert again == head + (values * 2).astype(kind).tobytes() + tail


@pytest.mark.parametrize("change", [lambda b: b[:90], lambda b: b.replace(b"POINTS 3", b"POINTS 9"), lambda b: b[9:]])
def test_broken_meshes_are_named(tmp_path, rng, change):
    (tmp_path / "a.vtk").write_bytes(change(vtk_text(rng.normal(size=(3, 3)))))
    with pytest.raises(DataError, match="a.vtk"):
        read_points(tmp_path / "a.vtk")
    with pytest.raises(DataError, match="a.stl: expected points"):
        read_points(tmp_path / "a.stl")


def test_points_far_outside_are_told_of_and_those_near_are_not(recwarn):
    grid = Grid((10, 10, 10), np.eye(4))
    still = Transform(np.zeros((10, 10, 10, 3)), grid)
    transform_points(still, [[15.0, 5, 5], [-9, 0, 0]], "RAS")
    assert not recwarn.list
    with pytest.warns(DataWarning, match="1 of 2 points lie up to 99991 mm outside"):
        moved = transform_points(still, [[1e5, 5, 5], [5, 5, 5]], "RAS")
    np.testing.assert_array_equal(moved, [[1e5, 5, 5], [5, 5, 5]])


def test_the_error_does_not_grow_with_the_index():
    """Of a field that jumps from voxel to voxel, in a grid whose indices single precision does not tell apart."""
    grid = Grid((4_200_000, 2), np.eye(4))
    u = np.zeros((4_200_000, 2, 2), np.float32)
    u[..., 0] = (np.arange(4_200_000) % 2)[:, None]
    points = np.array([[4_000_000.3, 0.5], [4_100_001.125, 0.5]])
    np.testing.assert_allclose(
        transform_points(Transform(u, grid), points, "voxel") - points, [[0.3, 0], [0.875, 0]], atol=1e-6
    )
