"""Millimetres, masks and files of a map."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from hetmorph.uncertainty import Moments, UncertaintyMap
from hetmorph.uncertainty.result import from_moments


def map_of(rng, shape, covariance=True, valid=None):
    moments = Moments(shape, covariance)
    draws = rng.normal(size=(9, *shape, len(shape)))
    for draw in draws:
        moments.add(draw)
    valid = np.ones(shape, bool) if valid is None else valid
    return from_moments(moments, "some", 9, 0.1, valid, 9), draws


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2)])
@pytest.mark.parametrize("covariance", [True, False])
def test_millimetres_are_the_spread_of_displacements_in_millimetres(rng, shape, covariance):
    result, draws = map_of(rng, shape, covariance)
    spacing = np.array([0.5, 2.0, 3.0])[: len(shape)]
    expected = np.sqrt(np.var(draws * spacing, axis=0, ddof=1).sum(-1))
    np.testing.assert_allclose(result.std_mm(spacing), expected, rtol=1e-5)
    turned = np.eye(len(shape) + 1)
    turned[: len(shape), : len(shape)] = np.roll(np.diag(spacing), 1, 0)
    np.testing.assert_allclose(result.std_mm(turned), expected, rtol=1e-5, err_msg="axes that point elsewhere")


def test_an_affine_with_shears_needs_the_covariance(rng):
    affine = np.array([[2.0, 0.7, 5], [0, 1, 7], [0, 0, 1]])
    whole, draws = map_of(rng, (4, 5))
    expected = np.sqrt(np.var(draws @ affine[:2, :2].T, axis=0, ddof=1).sum(-1))
    np.testing.assert_allclose(whole.std_mm(affine), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="shears needs the whole covariance"):
        map_of(rng, (4, 5), covariance=False)[0].std_mm(affine)


def test_covariance_is_symmetric_and_std_its_trace(rng):
    result, draws = map_of(rng, (3, 4, 2))
    np.testing.assert_array_equal(result.covariance, np.swapaxes(result.covariance, -1, -2))
    np.testing.assert_allclose(result.covariance[1, 2, 0], np.cov(draws[:, 1, 2, 0].T), rtol=1e-5)
    np.testing.assert_allclose(result.std**2, np.einsum("...ii->...", result.covariance), rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2)])
def test_the_file_holds_millimetres_on_the_grid_of_the_pair(rng, shape, tmp_path):
    valid = rng.random(shape) < 0.7
    result, _ = map_of(rng, shape, valid=valid)
    spacing = (0.5, 2.0, 3.0)[: len(shape)]
    result.save(tmp_path / "sub" / "map.nii.gz", spacing)
    stored = nib.load(tmp_path / "sub" / "map.nii.gz")
    values = stored.get_fdata().reshape(shape)
    np.testing.assert_allclose(values[valid], result.std_mm(spacing)[valid], rtol=1e-6)
    assert np.isnan(values[~valid]).all()
    assert stored.header.get_zooms()[: len(shape)] == spacing and stored.header.get_xyzt_units()[0] == "mm"
    assert stored.header["descrip"].item().decode() == "some std, mm"
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["map.nii.gz"]


def test_an_intensity_has_no_millimetres(rng, tmp_path):
    result = UncertaintyMap("noise", np.ones((3, 4)), np.ones((3, 4), bool), "intensity", None, 1, 1, 0.0)
    with pytest.raises(ValueError, match="noise is of intensity, not of voxels"):
        result.std_mm((1, 1))
    result.save(tmp_path / "map.nii", np.diag([2.0, 3.0, 1.0]))
    stored = nib.load(tmp_path / "map.nii")
    assert stored.header["descrip"].item().decode() == "noise std, intensity" and stored.affine[1, 1] == 3


def test_what_does_not_fit_is_refused(rng, tmp_path):
    result, _ = map_of(rng, (4, 5))
    with pytest.raises(ValueError, match=r"2 spacings or an affine \(3, 3\)"):
        result.std_mm((1, 1, 1))
    with pytest.raises(ValueError, match="a PNG holds"):
        result.save(tmp_path / "map.png", (1, 1))
    with pytest.raises(ValueError, match="every voxel is masked"):
        map_of(rng, (4, 5), valid=np.zeros((4, 5), bool))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.std = None
