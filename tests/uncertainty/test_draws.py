"""Streaming moments against numpy, with voxels that come and go."""

import numpy as np
import pytest

from hetmorph.uncertainty import Moments


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4)])
def test_mean_and_covariance_are_those_of_numpy(rng, shape):
    ndims = len(shape)
    fields = 1e3 + rng.normal(size=(30, *shape, ndims)) @ rng.normal(size=(ndims, ndims))
    valid = rng.random((30, *shape)) < 0.7
    moments, diagonal = Moments(shape), Moments(shape, covariance=False)
    for field, mask in zip(fields, valid, strict=True):
        field = np.where(mask[..., None], field, np.nan)
        moments.add(field, mask)
        diagonal.add(field, mask)
    np.testing.assert_array_equal(moments.count, valid.sum(0))
    for voxel in np.ndindex(shape):
        own = fields[(slice(None), *voxel)][valid[(slice(None), *voxel)]]
        np.testing.assert_allclose(moments.mean[voxel], own.mean(0), rtol=1e-9)
        expected = np.cov(own.T)
        for entry, (i, j) in zip(moments.entries, moments.pairs, strict=True):
            assert entry[voxel] == pytest.approx(expected[i, j], rel=1e-6, abs=1e-9)
        np.testing.assert_allclose(diagonal.entries[(slice(None), *voxel)], np.diag(expected), rtol=1e-6)


def test_memory_does_not_grow():
    moments = Moments((8, 8))
    held = sorted(vars(moments))
    size = sum(getattr(moments, name).nbytes for name in held if isinstance(getattr(moments, name), np.ndarray))
    for _ in range(20):
        moments.add(np.ones((8, 8, 2)))
    assert sorted(vars(moments)) == held
    assert size == sum(getattr(moments, name).nbytes for name in held if isinstance(getattr(moments, name), np.ndarray))


def test_voxels_that_took_part_once_or_never_have_no_spread():
    moments = Moments((1, 3))
    moments.add(np.full((1, 3, 2), 7.0), np.array([[True, True, False]]))
    moments.add(np.full((1, 3, 2), 9.0), np.array([[True, False, False]]))
    assert moments.mean[0, :, 0].tolist() == [8, 7, 0]
    assert moments.entries[0, 0].tolist() == [2, 0, 0]
