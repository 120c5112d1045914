"""What VoxelMorph's scripts and tutorials do with any model: lists from generators, own losses, early saves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, InstanceDense, TransMorph, Unet, VxmDense

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


@pytest.mark.slow
def test_generators_may_yield_lists(rng):
    model = compiled(run_eagerly=True)
    fitted = model.fit(lists(rng), steps_per_epoch=2, validation_data=lists(rng), validation_steps=1)
    assert np.isfinite(fitted.history["val_loss"]).all()
    assert np.isfinite(model.evaluate(lists(rng), steps=1)).all()
    assert model.predict(lists(rng), steps=2)[0].shape == (4, *SIZE, 1)


def test_data_sets_may_give_lists(rng):
    class Pairs(keras.utils.PyDataset):
        ended = 0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            source, target, zeros = batch(np.random.default_rng(index))
            return [source, target], [target, zeros]

        def on_epoch_end(self):
            self.ended += 1

    model, pairs = compiled(run_eagerly=True), Pairs()
    fitted = model.fit(pairs, epochs=2, validation_data=Pairs(workers=2), verbose=0)
    assert np.isfinite(fitted.history["val_loss"]).all() and pairs.ended >= 2
    assert np.isfinite(model.evaluate(Pairs(), verbose=0)).all()
    assert model.predict(Pairs(), verbose=0)[0].shape == (4, *SIZE, 1)


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5"])
def test_a_file_of_weights_is_called_that(name, tmp_path):
    compiled().save_weights(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} holds weights only.*load_weights"):
        VxmDense.load(tmp_path / name)


@pytest.mark.quick(".keras")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_file_of_another_class_is_made_into_this_one_or_named(suffix, tmp_path, rng):
    path, (source, target, _) = tmp_path / f"m{suffix}", batch(rng)
    model = compiled()
    model.save(path)
    noise = HetVxmDense.load(path, variance_features=SMALL["nb_unet_features"])
    assert type(noise) is HetVxmDense
    np.testing.assert_array_equal(noise.register(source, target), model.register(source, target))
    with pytest.raises(ValueError, match=r"a file of a TransMorph, .* holds a VxmDense.*nb_unet_features"):
        TransMorph.load(path)
    noise.save(path)
    assert type(VxmDense.load(path)) is HetVxmDense  # it is a VxmDense


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_file_of_no_registration_is_named(suffix, tmp_path):
    entry = keras.Input((2,))
    keras.Model(entry, keras.layers.Dense(1)(entry)).save(tmp_path / f"m{suffix}")
    with pytest.raises(ValueError, match="a file of a VxmDense, .* holds a Functional"):
        VxmDense.load(tmp_path / f"m{suffix}")


def test_a_file_of_no_model_is_refused(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"version https://git-lfs")
    with pytest.raises(ValueError, match="m.h5: expected a file of HDF5 or a .keras file"):
        VxmDense.load(tmp_path / "m.h5")


@pytest.mark.quick(".keras")
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
