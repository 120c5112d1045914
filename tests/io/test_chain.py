"""Transforms one after the other: the order that ANTs states, affine ones exactly, inverses."""

import numpy as np
import pytest

from hetmorph.io import Chain, DataError, Grid, Transform, read_chain, transform_points, warp_image, write_transform
from hetmorph.io.chain import Linear, path_of
from tests.io.worlds import GRIDS_3D, smooth_transform

GRID = GRIDS_3D["oblique"]
AFFINE = np.array([[1.1, 0.1, 0, 3], [-0.2, 0.9, 0, -1], [0, 0.05, 1, 2], [0, 0, 0, 1.0]])  # RAS mm


@pytest.fixture
def files(tmp_path, rng):
    """A displacement on a grid, and an affine transform of ITK."""
    sitk = pytest.importorskip("SimpleITK")
    write_transform(tmp_path / "warp.nii.gz", smooth_transform(rng, GRID))
    turn = np.diag([-1, -1, 1, 1.0])
    lps = turn @ AFFINE @ turn
    affine = sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())
    sitk.WriteTransform(affine, str(tmp_path / "affine.mat"))
    return tmp_path


def places(rng):
    return GRID.world(rng.uniform(-2, np.array(GRID.shape) + 1, (30, 3)))


def test_points_go_through_the_first_one_first(files, rng):
    """As antsApplyTransformsToPoints: fixed, warp, affine, moving. Outside its grid an affine one goes on."""
    chain = read_chain([files / "warp.nii.gz", files / "affine.mat"])
    (warp,) = [link for link in chain.links if isinstance(link, Transform)]
    start = places(rng)
    expected = warp.world(start) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    np.testing.assert_allclose(chain.world(start), expected, atol=1e-5)
    assert chain.grid.same(GRID)
    np.testing.assert_allclose(transform_points(chain, start, "RAS"), expected, atol=1e-5)


def test_simpleitk_composes_alike(files, rng):
    """Its composite applies the transform added last first."""
    sitk = pytest.importorskip("SimpleITK")
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(files / "warp.nii.gz"), sitk.sitkVectorFloat64))
    both = sitk.CompositeTransform([sitk.ReadTransform(str(files / "affine.mat")), field])
    start = GRID.world(rng.uniform(1, np.array(GRID.shape) - 2, (30, 3))) * [-1, -1, 1]
    expected = [both.TransformPoint(point.tolist()) for point in start]
    chain = read_chain([files / "warp.nii.gz", files / "affine.mat"])
    np.testing.assert_allclose(transform_points(chain, start), expected, atol=1e-4)


def test_there_and_back_is_nothing(files, rng):
    start = GRID.world(rng.uniform(3, np.array(GRID.shape) - 4, (30, 3)))
    for name, backwards in (("warp.nii.gz", "[{},inverse]"), ("affine.mat", "[{},1]")):
        chain = read_chain([files / name, backwards.format(files / name)], fixed=GRID)
        np.testing.assert_allclose(chain.world(start), start, atol=1e-3)


def test_an_image_is_interpolated_once(files, rng):
    """The composed transform is exact at the voxels: a ramp comes out as the place itself."""
    chain = Chain([read_chain([files / "warp.nii.gz"]), Linear(AFFINE)], GRID)
    affine = np.eye(4)
    affine[:3, 3] = chain.world(GRID.world(GRID.corners())).mean(0) - 45
    moving = Grid((90, 90, 90), affine)
    expected = moving.index(chain.world(GRID.world(GRID.indices().reshape(-1, 3)))).reshape(*GRID.shape, 3)
    for axis in range(3):
        moved = warp_image(chain.transform, moving.indices()[..., axis], moving, outside=None)
        np.testing.assert_allclose(moved, np.clip(expected[..., axis], 0, 89), atol=1e-3)


def test_an_affine_transform_alone_goes_on_outside_the_grid(files, rng):
    start = GRID.world(rng.uniform(-9, 9, (30, 3)))
    there = read_chain([files / "affine.mat"], fixed=GRID).world(start)
    np.testing.assert_allclose(there, start @ AFFINE[:3, :3].T + AFFINE[:3, 3], atol=1e-6)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.h5", ("a.h5", False)),
        ("[a.h5]", ("a.h5", False)),
        ("[a.h5,0]", ("a.h5", False)),
        ("[a.h5, inverse]", ("a.h5", True)),
        ("[x/a,b.h5,1]", ("x/a,b.h5", True)),
    ],
)
def test_words(word, expected):
    path, backwards = path_of(word)
    assert (str(path), backwards) == expected


def test_results_need_a_grid(files):
    for words in (["[{}/warp.nii.gz,inverse]"], ["{}/affine.mat", "{}/warp.nii.gz"]):
        with pytest.raises(DataError, match="does not say on which grid"):
            read_chain([word.format(files) for word in words])
