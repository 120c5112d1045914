"""The grid of the variance network: a coarse one learns the noise, a fine one the residual."""

import keras
import numpy as np
import pytest

from hetmorph.networks import HetVxmDense
from hetmorph.networks.variance import variance_network
from hetmorph.objectives import Phase

FEATURES = [[8, 8], [8, 8, 8]]


def noisy_pairs(rng, count=16):
    """Flat images with noise whose strength rises from left to right, and that strength."""
    sigma = np.broadcast_to(np.linspace(0.02, 0.15, 32)[None, :, None], (32, 32, 1))
    moving, fixed = 0.5 + sigma * rng.normal(size=(2, count, 32, 32, 1))
    return moving.astype("float32"), fixed.astype("float32"), sigma


def trained(resolution, moving, fixed):
    keras.utils.set_random_seed(0)
    model = HetVxmDense((32, 32), nb_unet_features=FEATURES, variance_features=FEATURES, variance_resolution=resolution)
    model.compile(keras.optimizers.Adam(1e-2))
    model.references.phase = Phase.VARIANCE
    for _ in range(80):
        model.train_on_batch([moving, fixed])
    return np.exp(0.5 * model.variance(moving, fixed))


@pytest.mark.slow
def test_a_coarse_grid_finds_the_noise_where_a_fine_one_repeats_the_residual(rng):
    moving, fixed, sigma = noisy_pairs(rng)
    truth = np.broadcast_to(sigma, fixed.shape).ravel()
    fine, coarse = (trained(resolution, moving, fixed).ravel() for resolution in (1, 8))
    correlation = [np.corrcoef(estimate, truth)[0, 1] for estimate in (fine, coarse)]
    assert correlation[1] > 0.9 and correlation[1] > correlation[0] + 0.05


@pytest.mark.quick("inshape2")
@pytest.mark.parametrize("inshape", [(37, 50), (None, None), (20, 18, 33)])
def test_any_size(inshape, rng):
    network = variance_network(inshape, FEATURES, resolution=8)
    shape = [size or 41 for size in inshape]
    result = network.predict(rng.random((2, *shape, 2)).astype("float32"), verbose=0)
    assert result.shape == (2, *shape, 1) and np.isfinite(result).all()


@pytest.mark.parametrize("resolution", [0, 3, -2])
def test_other_grids_are_refused(resolution):
    with pytest.raises(ValueError, match=f"power of two, got {resolution}"):
        variance_network((16, 16), FEATURES, resolution=resolution)
