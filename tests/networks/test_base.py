"""What VoxelMorph's scripts and tutorials do with any model: lists from generators, own losses, early saves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.networks import InstanceDense, Unet, VxmDense

pytestmark = pytest.mark.usefixtures("eager")
SIZE = (16, 16)
SMALL = {"nb_unet_features": [[2], [2, 2]], "int_steps": 2}


def compiled(*losses, **kwargs):
    model = VxmDense(SIZE, **SMALL)
    model.compile("adam", loss=list(losses or (MSE().loss, Grad("l2").loss)), **kwargs)
    return model


def batch(rng):
    source, target = rng.uniform(size=(2, 2, *SIZE, 1))
    return source, target, np.zeros((2, 8, 8, 2))


def lists(rng):
    """A generator as in VoxelMorph's tutorials, which Keras 2 took."""
    while True:
        source, target, zeros = batch(rng)
        yield [source, target], [target, zeros]


def test_generators_may_yield_lists(rng):
    model = compiled(run_eagerly=True)
    fitted = model.fit(lists(rng), steps_per_epoch=2, validation_data=lists(rng), validation_steps=1)
    assert np.isfinite(fitted.history["val_loss"]).all()
    assert np.isfinite(model.evaluate(lists(rng), steps=1)).all()
    assert model.predict(lists(rng), steps=2)[0].shape == (4, *SIZE, 1)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_model_saved_before_its_first_step_is_loaded(suffix, tmp_path, rng):
    """Every training script of VoxelMorph begins with such a file."""
    model = compiled()
    model.save(tmp_path / f"0000{suffix}")
    again = VxmDense.load(tmp_path / f"0000{suffix}")
    source, target, _ = batch(rng)
    np.testing.assert_array_equal(again.register(source, target), model.register(source, target))
    assert again.compiled


def test_a_model_trained_with_an_own_loss_is_loaded(tmp_path, rng):
    """No file can hold a function such as those of `train_template.py`: the model comes back uncompiled."""

    def own(y_true, y_pred):
        return tf.reduce_mean(y_true - y_pred)

    model = compiled(own, Grad("l2").loss)
    model.save(tmp_path / "model.h5")
    with pytest.warns(UserWarning, match="compile the model anew"):
        again = VxmDense.load(tmp_path / "model.h5")
    assert not again.compiled
    source, target, _ = batch(rng)
    np.testing.assert_array_equal(again.register(source, target), model.register(source, target))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_arguments_are_replaced_when_a_file_is_loaded(suffix, tmp_path):
    """`register.py` gives the size of its images."""
    model = compiled()
    model.save(tmp_path / f"model{suffix}")
    again = VxmDense.load(tmp_path / f"model{suffix}", inshape=(12, 20), input_model=None)
    assert again.inshape == (12, 20)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.graph
def test_added_losses_train_in_a_graph(rng):
    """SynthMorph's training: losses between tensors of the model, none of them given to `compile`."""
    model = VxmDense(SIZE, **SMALL)
    model.add_loss(MSE().loss(model.references.target, model.references.y_source) + 1.0)
    model.compile(keras.optimizers.SGD(0.0))
    source, target, _ = batch(rng)
    expected = 1 + np.mean((target - model([source, target])[0]) ** 2)
    assert model.fit([source, target], verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_unets_only_input_is_no_list():
    """The tutorial cuts the moving image out of it: `unet.input[..., :1]`."""
    assert Unet((*SIZE, 2), nb_features=[[2], [2, 2]]).input[..., :1].shape == (None, *SIZE, 1)


def test_a_model_of_one_input_takes_an_image_or_a_list_of_one(rng):
    """Keras warns about one of the two, and warnings are errors here."""
    model, (image, *_) = InstanceDense(SIZE), batch(rng)
    np.testing.assert_array_equal(model(image)[0], model([image])[0])
