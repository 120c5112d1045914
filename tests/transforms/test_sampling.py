"""Values between voxels against scipy and SimpleITK, and far from the first voxel."""

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.transforms.sampling import METHODS, pull


@pytest.mark.parametrize("shape", [(20, 22), (20, 22, 18)])
@pytest.mark.parametrize("method", METHODS)
def test_simpleitk_interpolates_alike(method, shape, rng):
    sitk = pytest.importorskip("SimpleITK")
    names = {"linear": "Linear", "nearest": "NearestNeighbor", "cubic": "BSpline", "sinc": "LanczosWindowedSinc"}
    # without its mean, which ITK's sinc does not keep: its weights do not sum to 1
    image = ndimage.gaussian_filter(rng.normal(size=shape), 1).astype(np.float32)
    image -= image.mean()
    places = rng.uniform(5, 13, (40, len(shape)))
    theirs = sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    code = getattr(sitk, f"sitk{names[method]}")
    expected = [theirs.EvaluateAtPhysicalPoint(place.tolist(), code) for place in places]
    tolerance = 0.01 * image.std() if method == "sinc" else 1e-6
    np.testing.assert_allclose(pull(image, places, method), expected, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_voxels_and_constants_stay_what_they_are(method, rng):
    image = rng.normal(size=(6, 1, 5, 2))  # two channels, and an axis of one voxel
    index = np.stack(np.indices(image.shape[:3]), -1).astype(float)
    np.testing.assert_allclose(pull(image, index, method), image, atol=1e-12)
    far = index + rng.uniform(-9, 9, index.shape)
    np.testing.assert_allclose(pull(np.full_like(image, 3.7), far, method), 3.7)
    assert (pull(image, index + [9, 0, 0], method, outside=-5.0)[..., 0] == -5).all()


@pytest.mark.parametrize("method", METHODS)
def test_types(method):
    index = np.array([[0.4, 1.2]])
    for given, between in ((np.uint8, np.float32), (bool, np.float32), (np.float16, np.float32), (float, float)):
        assert pull(np.ones((3, 3), given), index, method).dtype == (given if method == "nearest" else between)


def test_the_error_does_not_grow_with_the_index():
    """A ramp of four million voxels, read near its end: in single precision, positions there are 0.25 voxels apart."""
    ramp = np.repeat(np.arange(4_200_000.0)[:, None], 2, 1)
    places = np.array([[4_000_000.3, 0.5], [4_100_000.125, 0.2]])
    np.testing.assert_allclose(pull(ramp, places), places[:, 0], atol=1e-6, rtol=0)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="one of linear, nearest, cubic, sinc, received 'best'"):
        pull(np.zeros((3, 3)), np.zeros((1, 2)), "best")
