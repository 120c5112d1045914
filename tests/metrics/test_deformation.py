"""Fields whose determinant is known, and determinants computed one voxel at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetmorph.metrics import endpoint_error, flips, folds_percent, sdlogj
from hetmorph.metrics.deformation import fold_mask


def grid(shape):
    return np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in shape], indexing="ij"), -1)


def linear_field(shape, matrix):
    """u(x) = (M − I) x, of which det(I + ∇u) = det M everywhere."""
    return grid(shape) @ (np.asarray(matrix, float) - np.eye(len(shape))).T


def loop_determinants(u):
    """det(I + ∇u) one voxel at a time, central differences, one-sided at the borders."""
    shape, n = u.shape[:-1], u.shape[-1]
    result = np.empty(shape)
    for index in np.ndindex(shape):
        jacobian = np.eye(n)
        for axis in range(n):
            low, high = list(index), list(index)
            low[axis], high[axis] = max(index[axis] - 1, 0), min(index[axis] + 1, shape[axis] - 1)
            jacobian[:, axis] += (u[tuple(high)] - u[tuple(low)]) / (high[axis] - low[axis])
        result[index] = np.linalg.det(jacobian)
    return result


@pytest.mark.parametrize("shape", [(9,), (8, 9), (5, 6, 7)])
def test_the_identity_neither_folds_nor_stretches(shape):
    u = np.zeros((*shape, len(shape)))
    assert folds_percent(u) == 0
    assert sdlogj(u) == 0


@pytest.mark.parametrize(
    ("matrix", "folds"),
    [
        (np.diag([1.3, 0.8]), 0),
        ([[1, 0.5], [0.2, 1]], 0),
        ([[1, 2], [1, 1]], 100),
        (np.diag([0.0, 1.0]), 100),
        (np.diag([1.1, 0.9, 1.2]), 0),
        (np.diag([-1.0, 1, 1]), 100),
    ],
)
def test_linear_maps_fold_where_their_determinant_says(matrix, folds):
    u = linear_field((6,) * len(matrix), matrix)
    assert folds_percent(u) == folds
    assert sdlogj(u) == pytest.approx(0, abs=1e-5), "the determinant is the same everywhere"


@pytest.mark.parametrize("shape", [(7, 9), (5, 4, 6)])
def test_agrees_with_determinants_one_voxel_at_a_time(rng, shape):
    u = rng.normal(0, 0.6, (*shape, len(shape))).astype(np.float32)
    determinants = loop_determinants(u.astype(float))
    assert folds_percent(u) == pytest.approx(100 * (determinants <= 0).mean())
    assert 0 < folds_percent(u) < 100
    assert sdlogj(u) == pytest.approx(np.log(np.maximum(determinants, 1e-9)).std(), rel=1e-3)


def test_one_half_mirrored_folds_one_half():
    u = np.zeros((20, 6, 2))
    u[10:, :, 0] = -2.0 * np.arange(10)[:, None]
    assert folds_percent(u) == pytest.approx(50, abs=5)


def test_sdlogj_of_two_known_volume_changes():
    u = np.zeros((200, 4, 2))
    u[100:, :, 0] = 0.5 * np.arange(100)[:, None]  # half the voxels stretched by 1.5
    assert sdlogj(u) == pytest.approx(np.log(1.5) / 2, rel=0.02)


@given(st.tuples(st.floats(-20, 20), st.floats(-20, 20)))
@settings(max_examples=20, deadline=None)
def test_a_translation_changes_nothing(shift):
    u = np.random.default_rng(1).normal(0, 0.1, (6, 6, 2))
    assert folds_percent(u + shift) == folds_percent(u)
    assert sdlogj(u + shift) == pytest.approx(sdlogj(u), abs=1e-4)


@pytest.mark.parametrize("metric", [folds_percent, sdlogj])
@pytest.mark.parametrize(
    "bad",
    [np.full((4, 4, 2), np.nan), np.full((4, 4, 2), np.inf), np.zeros((4, 4, 3)), np.zeros((1, 4, 2)), 0.0],
)
def test_refuses_what_is_not_a_displacement(metric, bad):
    with pytest.raises(ValueError, match="displacement"):
        metric(bad)


def test_endpoint_error_is_the_length_of_the_difference():
    truth = np.zeros((4, 4, 2))
    u = truth + [3.0, 4.0]
    half = np.arange(16).reshape(4, 4) < 8
    u[~half] = 0
    assert endpoint_error(u, truth) == 2.5
    assert endpoint_error(u, truth, half) == 5
    assert np.isnan(endpoint_error(u, truth, np.zeros((4, 4))))
    with pytest.raises(ValueError, match="same shape"):
        endpoint_error(u, np.zeros((5, 4, 2)))


@pytest.mark.parametrize("shape", [(9,), (8, 9), (5, 6, 7)])
def test_flips_count_cells(shape):
    ndims, cells = len(shape), int(np.prod([n - 1 for n in shape]))
    assert flips(np.zeros((*shape, ndims))) == 0
    mirrored = np.eye(ndims)
    mirrored[0, 0] = -1
    assert flips(linear_field(shape, mirrored)) == cells
    u = np.zeros((*shape, ndims))
    u[..., 0] = 0.8 * (-1.0) ** grid(shape)[..., 0]  # every second pair of neighbours pass each other
    assert not fold_mask(u)[1:-1].any()
    assert flips(u) == shape[0] // 2 * cells // (shape[0] - 1)
