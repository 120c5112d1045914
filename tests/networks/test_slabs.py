"""`slabs`: the network of `slabs=1` in less memory, nothing else."""

import keras
import numpy as np
import pytest

from hetmorph import layers
from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.networks.unet import Unet
from tests.contract import check_layer

pytestmark = pytest.mark.usefixtures("eager")
SMALL = {"nb_unet_features": [[4, 8], [8, 8, 6, 4]], "int_steps": 2}
CASES = [
    (VxmDense, (32, 16), {}),
    (VxmDense, (33, 16), {}),  # padded inside
    (VxmDense, (None, 16), {}),  # cannot be cut: computed as a whole
    (VxmDense, (32, 16), {"bidir": True}),
    (VxmDense, (32, 16), {"use_probs": True}),
    (VxmDense, (24, 8, 8), {}),
    (HetVxmDense, (32, 16), {"warm_start": 1, "variance_features": SMALL["nb_unet_features"]}),
]


def chain(ndims):
    upsample, conv = (getattr(layers, f"{kind}{ndims}D") for kind in ("UpsampleConv", "Conv"))
    return [upsample(4), layers.LeakyReLU(negative_slope=0.2), conv(2, 3, padding="same")]


def coarse_and_fine(ndims, batch, rng):
    grid = (8, 3, 2)[:ndims]
    return [rng.normal(size=(batch, *grid, 3)), rng.normal(size=(batch, *[2 * n for n in grid], 2))]


def test_contract():
    check_layer(layers.Slabs, lambda ndims: {"chain": chain(ndims), "count": 3}, coarse_and_fine, ndims=[1, 2, 3])


def pair_of(cls, inshape, options, rng):
    """The model with and without slabs, with equal weights that move the images, and a pair of images."""
    whole = cls(inshape, **SMALL, **options)
    weights = [w + rng.normal(scale=0.05, size=w.shape) for w in whole.get_weights()]
    in_slabs = cls(inshape, **SMALL, **options, slabs=3)
    for model in (whole, in_slabs):
        model.set_weights(weights)
    images = [rng.random((2, *(size or 32 for size in inshape), 1)).astype("float32") for _ in range(2)]
    return whole, in_slabs, images


def assert_same_weights(first, second, atol):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.quick("VxmDense-inshape0-options0")
@pytest.mark.parametrize("cls,inshape,options", CASES)
def test_results_and_training_are_those_of_one_slab(cls, inshape, options, rng):
    whole, in_slabs, images = pair_of(cls, inshape, options, rng)
    np.testing.assert_allclose(in_slabs.register(*images), whole.register(*images), atol=1e-6)
    target = [*images[::-1][: len(whole.outputs) - 1], 0.0 * whole.predict(images, verbose=0)[-1]]
    for model in (whole, in_slabs):
        keras.utils.set_random_seed(0)
        image_losses = [MSE().loss] * (len(model.outputs) - 1)
        model.compile(keras.optimizers.SGD(0.05), loss=[*image_losses, Grad("l2").loss])
        epochs = 3 if cls is HetVxmDense else 1  # each phase of the heteroscedastic schedule once
        model.fit(images, target, epochs=epochs, batch_size=2, shuffle=False, verbose=0)
    assert_same_weights(whole, in_slabs, 2e-4 if options.get("use_probs") else 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [VxmDense, HetVxmDense])
def test_files_are_exchanged_with_one_slab(cls, rng, tmp_path):
    whole, in_slabs, _ = pair_of(cls, (32, 16), {}, rng)
    fresh = cls((32, 16), **SMALL)
    in_slabs.save_weights(tmp_path / "slabs.h5")
    fresh.load_weights(tmp_path / "slabs.h5")
    assert_same_weights(fresh, whole, 0)
    whole.save(tmp_path / "whole.h5")
    loaded = cls.load(tmp_path / "whole.h5", slabs=3)
    assert loaded.get_config()["slabs"] == 3
    assert_same_weights(loaded, whole, 0)
    in_slabs.save(tmp_path / "all.h5")
    for slabs in (1, 3):
        assert_same_weights(cls.load(tmp_path / "all.h5", slabs=slabs), whole, 0)
    assert_same_weights(cls.load(tmp_path / "all.h5"), whole, 0)
    in_slabs.save(tmp_path / "slabs.keras")
    assert_same_weights(keras.saving.load_model(tmp_path / "slabs.keras"), whole, 0)
    assert_same_weights(in_slabs.with_shape((None, None), slabs=1), whole, 0)


@pytest.mark.parametrize(
    "options", [{"svf_resolution": 2}, {"nb_unet_features": [[4, 8], [8, 8]]}, {"hyp_model": "dense"}]
)
def test_networks_without_such_convolutions_refuse(options):
    if options.get("hyp_model"):
        hyp_input = keras.Input((1,))
        options = {"hyp_model": keras.Model(hyp_input, keras.layers.Dense(4)(hyp_input))}
    with pytest.raises(ValueError, match="slabs needs final convolutions at full resolution"):
        VxmDense((16, 16), **{**SMALL, **options}, slabs=2)


def test_a_final_activation_is_refused():
    with pytest.raises(ValueError, match="slabs needs final convolutions"):
        Unet((16, 16, 2), nb_features=SMALL["nb_unet_features"], final_activation_function="relu", slabs=2)
