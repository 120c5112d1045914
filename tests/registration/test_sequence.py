"""Volumes and strains of motions that are known in closed form."""

import csv

import numpy as np
import pytest

from hetmorph.io import Grid, Transform
from hetmorph.registration import (
    curve,
    draw_curve,
    reference_frame,
    register_sequence,
    strains,
    volumes_ml,
    write_curve,
)
from tests import anatomy

GRID = Grid((41, 37, 3), np.diag([-1.0, 1.3, 8.0, 1.0]))


def ring(low=6, high=12, grid=GRID):
    places = grid.indices()[..., :2] * grid.spacing[:2]
    distance = np.linalg.norm(places - places.reshape(-1, 2).mean(0), axis=-1)
    return (distance > low) & (distance < high)


def scaled(grid, factors, axis=2):
    """The reference was `factors` times as large in the plane, about the centre of the grid."""
    centred = grid.indices() - (np.array(grid.shape) - 1) / 2
    stretch = np.insert(np.asarray(factors, float) - 1, axis, 0)
    return Transform(centred * stretch, grid)


def test_a_region_that_shrank_evenly():
    """The reference 1.25 times as large: every line element is 1/1.25 of what it was, −20 %."""
    around, across = strains(scaled(GRID, (1.25, 1.25)), ring(), 2)
    assert around == pytest.approx(-0.2, abs=1e-4) and across == pytest.approx(-0.2, abs=1e-4)


def test_rest_and_rotation_are_no_strain():
    assert strains(Transform(np.zeros((*GRID.shape, 3)), GRID), ring(), 2) == pytest.approx((0, 0), abs=1e-6)
    c, s = np.cos(0.3), np.sin(0.3)
    mm = (GRID.indices() - (np.array(GRID.shape) - 1) / 2)[..., :2] * GRID.spacing[:2]
    u = np.zeros((*GRID.shape, 3))
    u[..., :2] = (mm @ np.array([[c, -s], [s, c]]).T - mm) / GRID.spacing[:2]
    assert strains(Transform(u, GRID), ring(), 2) == pytest.approx((0, 0), abs=1e-4)


def test_a_ring_that_contracts_at_constant_area():
    """R² = r² + k: the ring shortens around by r/R − 1 and thickens by R/r − 1."""
    size = np.array(GRID.spacing[:2])
    mm = (GRID.indices() - (np.array(GRID.shape) - 1) / 2)[..., :2] * size
    r = np.maximum(np.linalg.norm(mm, axis=-1), 1e-6)
    k = 60.0
    u = np.zeros((*GRID.shape, 3))
    u[..., :2] = mm * (np.sqrt(r**2 + k) / r - 1)[..., None] / size
    region = ring(8, 14)
    around, across = strains(Transform(u, GRID), region, 2)
    R = np.sqrt(r**2 + k)
    assert around == pytest.approx((r / R - 1)[region].mean(), abs=0.01)
    assert across == pytest.approx((R / r - 1)[region].mean(), abs=0.01)
    assert around < -0.1 and across > 0.1


@pytest.mark.parametrize("axis", [0, 1])
def test_the_slices_may_lie_across_any_axis(axis):
    """The first axis of the plane shortens twice as much as the other: only the mean of both is the same everywhere."""
    order = np.insert([0, 1], axis, 2)
    grid = Grid(tuple(np.array(GRID.shape)[order]), np.diag([*np.array(GRID.spacing)[order], 1.0]))
    region = np.moveaxis(ring(), 2, axis)
    around, across = strains(scaled(grid, (1.25, 1.25), axis), region, axis)
    assert around == pytest.approx(-0.2, abs=1e-4) and across == pytest.approx(-0.2, abs=1e-4)


def test_nothing_there_has_no_strain():
    assert np.isnan(strains(scaled(GRID, (1, 1)), np.zeros(GRID.shape, bool), 2)).all()


def test_volume_is_voxels_times_their_size():
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:10, :10] = 3
    assert volumes_ml(labels, GRID, (2, 3)) == pytest.approx({2: 0.0, 3: 300 * 1.0 * 1.3 * 8 / 1000})


def test_a_curve_on_disk(tmp_path):
    labels = [ring().astype(np.uint8), np.zeros(GRID.shape, np.uint8)]
    rows = curve([scaled(GRID, (1, 1))] * 2, labels, 0.04, (1,), 2)
    with open(write_curve(tmp_path / "curve.csv", rows)) as file:
        table = list(csv.DictReader(file))
    assert [row["time"] for row in table] == ["0", "0.04"]
    assert float(table[0]["volume_ml_1"]) == pytest.approx(ring().sum() * 0.0104, rel=1e-4)
    assert table[1]["volume_ml_1"] == "0" and table[1]["circumferential_strain_1"] == ""
    assert draw_curve(tmp_path / "curve.png", rows, (1,)).read_bytes()[:4] == b"\x89PNG"


def test_the_reference_is_moved_onto_every_frame():
    grid = Grid((12, 11, 4), np.diag([1.0, 1.0, 8.0, 1.0]))
    frames = [anatomy.image(grid, (0.0, shift, 0.0)).array for shift in (0.0, 1.0, 2.0)]
    sequence = anatomy.image(grid)
    sequence = type(sequence)(np.stack(frames, -1), (*grid.spacing, 0.04), grid.affine, True, "cine.nii.gz")
    seen = []

    def model(moving, fixed):
        seen.append((moving, fixed))
        return np.zeros((*moving.shape, 3), np.float32)

    results = list(register_sequence(sequence, 1, model))
    assert len(results) == 3
    assert all(np.array_equal(result.moved, frames[1]) for result in results)
    np.testing.assert_allclose(seen[1][0], seen[1][1])  # frame 1 onto itself
    assert not np.allclose(seen[0][0], seen[0][1])
    assert reference_frame(sequence, "ed") == 0 and reference_frame(sequence, "2") == 2
    for wrong in ("3", "-1", "ES", ""):
        with pytest.raises(ValueError, match="cine.nii.gz: expected a reference frame ED or 0 to 2"):
            reference_frame(sequence, wrong)
    with pytest.raises(ValueError, match="expected a sequence"):
        reference_frame(anatomy.image(grid), "ED")
