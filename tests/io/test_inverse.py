"""The inverse of transforms in the world, and what is said where there is none."""

import numpy as np
import pytest

from hetmorph.io import Chain, DataWarning, Grid, Transform, chain, inverse
from hetmorph.io.chain import Inverted, Linear
from hetmorph.transforms import Preimages
from hetmorph.transforms.sampling import pull
from tests.io.worlds import GRIDS_3D, moving_of, smooth_transform


@pytest.mark.parametrize("name", ["plain", "oblique flipped permuted"])
def test_the_inverse_in_the_world(name, rng):
    grid = GRIDS_3D[name]
    moving = moving_of(grid)
    transform = smooth_transform(rng, grid, 0.6)
    back = inverse(transform, moving)
    assert back.worst < 1e-4
    places = moving.world(moving.indices().reshape(-1, 3))
    np.testing.assert_allclose(transform.world(back.transform.world(places)), places, atol=1e-3 * min(grid.spacing))


def test_what_is_not_found_is_said(rng, monkeypatch):
    """By a search that stays where it starts; in voxels of 2 mm."""
    monkeypatch.setattr(chain, "preimages", lambda u, at: Preimages(at, np.linalg.norm(pull(u, at), axis=-1)))
    grid = Grid((20, 20), np.diag([2.0, 2.0, 1.0, 1.0]))
    transform = Transform(0.3 * rng.normal(size=(20, 20, 2)), grid)
    places = grid.world(rng.uniform(-1, 20, (500, 2)))
    missed = np.linalg.norm(transform.world(places) - places, axis=-1)
    share = 100 * (missed / 2 > 0.1).mean()
    said = rf"wrong by up to {missed.max() / 2:.2g} voxels \({missed.max():.2g} mm\), at {share:.2g} % of the points"
    with pytest.raises(ValueError, match=f"{said}.*expected at most 0.5, the inverse tolerance"):
        Chain([Inverted(transform, 0.5)], grid).world(places)
    with pytest.warns(DataWarning, match=said):
        Chain([Inverted(transform, 3)], grid).world(places)


def test_of_transforms_that_follow_each_other_each_is_inverted(rng):
    """A turn and a warp: beyond the fixed grid, where their composition on it goes on as a translation, too."""
    c, s = np.cos(0.8), np.sin(0.8)
    turn = Linear(np.array([[c, -s, 0, 4], [s, c, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]]))
    grid = GRIDS_3D["oblique"]
    warp = smooth_transform(rng, grid, 0.6)
    both = Chain([warp, turn], grid)
    affine = moving_of(grid).affine.copy()
    size = np.array((9, 11, 10))
    centre = both.world(grid.world((np.array(grid.shape) - 1) / 2)[None])[0]
    affine[:3, 3] = centre - affine[:3, :3] @ ((size - 1) / 2)
    moving = Grid(tuple(size), affine)
    back = inverse(both, moving)
    assert back.worst < 1e-4
    places = moving.world(moving.indices().reshape(-1, 3))
    there = back.transform.world(places)
    np.testing.assert_allclose(both.world(there), places, atol=1e-3 * min(grid.spacing))
    index = grid.index(there)
    within = ((index > 0) & (index < np.array(grid.shape) - 1)).all(-1)
    assert 0 < within.mean() < 1
    again = both.transform.world(there)  # what is written holds no more than the fixed grid
    np.testing.assert_allclose(again[within], places[within], atol=1e-3 * min(grid.spacing))
