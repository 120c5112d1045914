"""`precision`: convolutions in bfloat16, everything that must be exact in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.serving import export_savedmodel

pytestmark = pytest.mark.usefixtures("eager")
SMALL = {"nb_unet_features": [[4, 8], [8, 8, 4]], "int_steps": 2}


@pytest.fixture
def pair(rng):
    image = rng.random((1, 16, 16, 1)).astype("float32")
    return image, np.roll(image, 1, axis=1)


def test_the_convolutions_alone_are_in_bfloat16():
    model = HetVxmDense((16, 16), **SMALL, precision="bfloat16")
    compute = {layer.name: layer.compute_dtype for layer in model.layers}
    assert compute["vxm_dense_unet_enc_conv_0_0"] == "bfloat16"
    assert {compute[f"vxm_dense_{name}"] for name in ("flow", "flow_int", "transformer")} == {"float32"}
    assert {v.dtype for v in model.weights} == {"float32"}
    assert model.variance_network.get_layer("vxm_dense_variance_unet_enc_conv_0_0").compute_dtype == "bfloat16"
    assert model.variance_network.get_layer("vxm_dense_variance_head").compute_dtype == "float32"


def test_it_is_close_to_float32(pair):
    exact = HetVxmDense((16, 16), **SMALL, precision="float32")
    exact.set_weights(
        [20 * w if "flow" in v.path else w for v, w in zip(exact.weights, exact.get_weights(), strict=True)]
    )
    rough = exact.with_shape((16, 16), precision="bfloat16")
    expected, result = exact.predict_all(*pair), rough.predict_all(*pair)
    difference = max(float(np.abs(expected[key] - result[key]).max()) for key in expected)
    assert 0 < difference < 2e-2


def test_the_global_policy_is_left_as_it_was():
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    VxmDense((16, 16), **SMALL, precision="bfloat16")
    assert keras.mixed_precision.dtype_policy().name == "mixed_float16"
    model = VxmDense((16, 16), **SMALL)
    assert model.get_layer("vxm_dense_unet_enc_conv_0_0").compute_dtype == "float16"
    with pytest.raises(ValueError, match="float32.*bfloat16.*half"):
        VxmDense((16, 16), **SMALL, precision="half")
    assert keras.mixed_precision.dtype_policy().name == "mixed_float16"


@pytest.mark.slow
@pytest.mark.parametrize("cls", [VxmDense, HetVxmDense])
def test_it_trains_and_survives_saving(cls, pair, tmp_path):
    model = cls((16, 16), **SMALL, precision="bfloat16")
    model.compile(keras.optimizers.Adam(1e-2), loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.01])
    target = [pair[1], np.zeros((1, 8, 8, 2), "float32")]
    losses = model.fit(list(pair), target, epochs=4, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert restored.get_config()["precision"] == "bfloat16"
    np.testing.assert_array_equal(restored.register(*pair), model.register(*pair))


@pytest.mark.slow
def test_exports_compute_in_float32(pair, tmp_path):
    model = VxmDense((16, 16), **SMALL, precision="bfloat16")
    exported = tf.saved_model.load(str(export_savedmodel(model, tmp_path, version=1))).signatures["register"]
    moved = exported(moving=tf.constant(pair[0]), fixed=tf.constant(pair[1]))["moved"]
    exact = model.with_shape((16, 16), precision="float32").predict(list(pair), verbose=0)[0]
    np.testing.assert_allclose(moved, exact, atol=1e-6)
