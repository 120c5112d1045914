"""What `keras.Model` offers holds for the models of two networks too, and for several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, NllVxmDense, TransMorph, Unet, VxmDense, affine_network, tall_unet

pytestmark = pytest.mark.usefixtures("eager")
FEATURES = [[4], [4]]
SIZE = (16, 16)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    moving, fixed = (rng.random((4, *SIZE, 1)).astype("float32") for _ in range(2))
    return (moving, fixed), (fixed, np.zeros((4, 8, 8, 2), "float32"))


def model_of(cls=HetVxmDense, loss=MSE, rate=0.5, **compiled):
    keras.utils.set_random_seed(0)
    own = {} if cls is VxmDense else {"variance_features": FEATURES}
    own |= {"warm_start": 0} if cls is HetVxmDense else {}
    model = cls(SIZE, nb_unet_features=FEATURES, int_steps=1, **own)
    flow = model.get_layer("vxm_dense_flow")
    flow.kernel.assign(0.3 * np.random.default_rng(0).normal(size=flow.kernel.shape))
    losses = [loss().loss, Grad("l2", loss_mult=2).loss]
    model.compile(keras.optimizers.SGD(rate), loss=losses, loss_weights=[1, 0.01], run_eagerly=True, **compiled)
    return model


def weights_after(model, batch, **kwargs):
    model.fit(*batch, batch_size=4, epochs=1, verbose=0, shuffle=False, **kwargs)
    return model.get_weights()


def assert_close(one, other, atol=2e-5):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.quick("variance")
@pytest.mark.parametrize("part", ["displacement", "variance"])
def test_regularisers_act_on_the_network_that_has_them(part, batch):
    def trained(strength):
        model = model_of()
        network = model.variance_network if part == "variance" else model
        name = "vxm_dense_variance_head" if part == "variance" else "vxm_dense_flow"
        network.get_layer(name).kernel.regularizer = keras.regularizers.L2(strength)
        model.fit(*batch, batch_size=4, epochs=1, verbose=0)
        return network.get_layer(name).kernel.numpy()

    before = model_of()
    network = before.variance_network if part == "variance" else before
    start = network.get_layer("vxm_dense_variance_head" if part == "variance" else "vxm_dense_flow").kernel.numpy()
    # an SGD step of rate .5 on strength·‖W‖² moves W by −strength·W
    np.testing.assert_allclose(trained(0.1) - trained(0.0), -0.1 * start, atol=1e-5)


def test_added_losses_count(batch):
    def loss_of(scale):
        model = model_of()
        if scale:
            model.add_loss(scale * keras.ops.mean(keras.ops.square(model.outputs[1])))
        return model.test_on_batch(*batch, return_dict=True)["loss"]

    field = model_of().predict(list(batch[0]), verbose=0)[1]
    assert loss_of(3.0) - loss_of(0.0) == pytest.approx(3 * np.mean(field**2), rel=1e-3)


def test_compiled_metrics_are_shown(batch):
    model = model_of(metrics=[["mae"], None], weighted_metrics=[["mse"], None])
    history = model.fit(*batch, batch_size=4, epochs=1, verbose=0).history
    moved = model_of().predict(list(batch[0]), verbose=0)[0]
    mae = next(value for name, value in history.items() if name.endswith("mae"))
    assert mae[0] == pytest.approx(np.abs(moved - batch[1][0]).mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [VxmDense, HetVxmDense])
def test_a_weight_of_zero_takes_a_pair_out(cls, batch):
    """Nothing of the pair matters any more: another image in its place changes no weight of the networks."""
    (moving, fixed), targets = batch
    other = moving.copy()
    other[0] = 1 - other[0]
    sample_weight = np.array([0, 1, 1, 1], "float32")
    assert_close(
        weights_after(model_of(cls), ((moving, fixed), targets), sample_weight=sample_weight),
        weights_after(model_of(cls), ((other, fixed), targets), sample_weight=sample_weight),
        atol=1e-6,
    )


def test_evaluate_does_not_depend_on_the_batch_size(batch):
    model = model_of(NllVxmDense)
    shown = [model.evaluate(*batch, batch_size=size, verbose=0, return_dict=True) for size in (1, 3, 4)]
    assert set(shown[0]) == {"loss", "image_loss", "smoothness", "variance_loss", "mean_weight", "folds_percent"}
    for other in shown[1:]:
        np.testing.assert_allclose(list(other.values()), list(shown[0].values()), rtol=1e-5)


# -- callbacks and optimisers of both networks -----------------------------------------------------------------------


def optimized(optimizer=None, variance_optimizer=None, warm_start=0):
    """A HetVxmDense with optimisers of its own."""
    model = model_of()
    model.references.warm_start = warm_start
    model.compile(optimizer or keras.optimizers.SGD(0.5), variance_optimizer=variance_optimizer, run_eagerly=True)
    return model


def rates(model):
    return [float(keras.ops.convert_to_numpy(optimizer.learning_rate)) for optimizer in model.optimizers]


class Own(keras.callbacks.Callback):
    """A user's own, which knows of one optimiser."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.05


@pytest.mark.quick("False-Own-None-expected3", "True-<lambda>-0.2-expected1")
@pytest.mark.parametrize(
    ("callback", "second", "expected"),
    [
        (lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1), 0.2, [0.1, 0.1]),
        (lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2), 0.2, [0.125, 0.05]),
        (lambda: keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10.0), 0.2, [0.05, 0.02]),
        (Own, None, [0.05, 0.05]),
        (Own, 0.2, [0.05, 0.2]),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_learning_rates_of_both_networks_are_lowered(callback, second, expected, listed, batch):
    model = optimized(variance_optimizer=second and keras.optimizers.SGD(second))
    callbacks = [callback()]
    if listed:
        callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, model=model)
    model.fit(*batch, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(rates(model), expected, rtol=1e-5)


@pytest.mark.slow
def test_both_networks_hold_their_averages_when_the_training_ends(batch):
    averaging = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    model = optimized(averaging)
    seen = []
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: seen.append(model.get_weights()))
    model.fit(*batch, batch_size=2, epochs=2, verbose=0, callbacks=[look], shuffle=False)
    average = seen[0]
    for weights in seen[1:]:
        average = [0.9 * a + 0.1 * w for a, w in zip(average, weights, strict=True)]
    assert_close(model.get_weights(), average)


def test_a_network_that_has_rested_keeps_its_weights(batch):
    """Its averages are still Keras' zeros, and weights that are loaded after `compile` are no average either."""
    model = optimized(keras.optimizers.SGD(0.5, use_ema=True), warm_start=1)
    start = [weight + 0.1 for weight in model.variance_network.get_weights()]
    model.variance_network.set_weights(start)
    model.fit(*batch, batch_size=4, epochs=1, verbose=0)
    assert_close(model.variance_network.get_weights(), start)


def test_averages_of_both_networks_are_swapped_in_for_validation(batch):
    model = optimized(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9))
    swap, seen = keras.callbacks.SwapEMAWeights(), {}
    note = lambda when: lambda logs: seen.update({when: model.variance_network.get_weights()})  # noqa: E731
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: note("trained")(logs))
    look.on_test_begin = note("validated")
    model.fit(*batch, batch_size=2, epochs=1, verbose=0, validation_data=batch, callbacks=[swap, look])
    assert_close(seen["validated"], model.variance_network.get_weights())  # in the end they hold them
    assert max(np.abs(a - b).max() for a, b in zip(seen["validated"], seen["trained"], strict=True)) > 1e-4
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.evaluate(*batch, verbose=0, callbacks=[swap, look])
    assert_close(seen["validated"], [weight - 1 for weight in model.variance_network.get_weights()])


def test_compiled_again_with_the_same_optimizer_both_keep_their_state(batch):
    optimizer = keras.optimizers.Adam(1e-3)
    model = optimized(optimizer)
    for _ in range(2):
        model.compile(optimizer, run_eagerly=True)
        model.fit(*batch, batch_size=4, epochs=1, verbose=0)
    assert [int(one.iterations) for one in model.optimizers] == [2, 2]
    model.compile(keras.optimizers.Adam(1e-3))
    assert [int(one.iterations) for one in model.optimizers] == [0, 0]


@pytest.mark.parametrize("cls", [VxmDense, HetVxmDense])
def test_an_optimizer_of_other_variables_is_refused_when_compiled(cls):
    optimizer = keras.optimizers.Adam(1e-3)
    model_of(cls).compile(optimizer)
    optimizer.build(model_of(cls).trainable_variables)
    with pytest.raises(ValueError, match="expected a new optimizer, .*is not among them"):
        model_of(cls).compile(optimizer)


def test_one_optimizer_for_both_networks_is_refused():
    optimizer = keras.optimizers.Adam(1e-3)
    with pytest.raises(ValueError, match="an optimizer for each network, received one for both"):
        model_of().compile(optimizer, variance_optimizer=optimizer)


def test_compiled_anew_a_model_forgets_its_losses(batch):
    model = model_of(VxmDense, metrics=[["mae"], None])
    model.add_loss(keras.ops.mean(model.outputs[1]) * 0 + 5.0)
    model.compile("sgd", run_eagerly=True)
    assert model.test_on_batch(list(batch[0]), return_dict=True) == {"loss": pytest.approx(5)}


# -- what watches a value ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_watches_a_value_waits_until_both_networks_are_trained(batch, tmp_path):
    model = optimized(keras.optimizers.SGD(1e-9), warm_start=2)  # nothing ever improves
    stop = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=1.0, restore_best_weights=True)
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5", monitor="loss", save_best_only=True, save_weights_only=True
    )
    model.fit(*batch, batch_size=4, epochs=9, verbose=0, callbacks=[stop, best])
    assert stop.stopped_epoch == 5 and stop.best_epoch == 4
    assert "5.weights.h5" in {path.name for path in tmp_path.iterdir()} <= {"5.weights.h5", "6.weights.h5"}
    assert not {"on_epoch_end", "on_train_batch_end"} & set(vars(stop))


def test_what_would_wait_beyond_the_last_epoch_is_warned_of(batch):
    model = optimized(warm_start=1)
    with pytest.warns(UserWarning, match="EarlyStopping waits for the phase .* 2 epochs with warm_start=1"):
        model.fit(*batch, epochs=2, verbose=0, callbacks=[keras.callbacks.EarlyStopping("loss")])


# -- cloned, frozen, transferred -----------------------------------------------------------------------------------


def test_a_clone_is_refused_with_what_to_do_instead():
    model = model_of()
    with pytest.raises(ValueError, match=r"clone_model gives them: HetVxmDense.from_config\(model.get_config\(\)\)"):
        keras.models.clone_model(model)
    again = HetVxmDense.from_config(model.get_config())
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


@pytest.mark.quick("HetVxmDense-.keras")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("cls", [VxmDense, HetVxmDense])
def test_frozen_layers_stay_frozen_in_files_and_copies(cls, suffix, batch, tmp_path):
    model = model_of(cls)
    frozen = [*model.layers[:6], *([model.variance_network.layers[2]] if cls is HetVxmDense else [])]
    for layer in frozen:
        layer.trainable = False
    model.compile("adam", loss=[MSE().loss, Grad("l2").loss], run_eagerly=True)
    model.fit(*batch, batch_size=4, epochs=1, verbose=0)
    model.save(tmp_path / f"m{suffix}")
    loaded = cls.load(tmp_path / f"m{suffix}")
    paths = [v.path for v in model.trainable_variables]
    assert 0 < len(paths) < len(model.weights)
    for other in (loaded, model.with_shape((None, None)), cls.from_config(model.get_config())):
        assert [v.path for v in other.trainable_variables] == paths
    loaded.run_eagerly = True
    expected = model.train_on_batch(*batch)
    np.testing.assert_allclose(loaded.train_on_batch(*batch), expected, rtol=1e-4)
    for layer in loaded._flatten_layers():
        layer.trainable = True
    assert "frozen" not in loaded.get_config()


@pytest.mark.quick("HetVxmDense")
@pytest.mark.parametrize("cls", [VxmDense, HetVxmDense])
def test_layers_unfrozen_between_trainings_are_trained(cls, batch):
    model = model_of(cls)
    layer = model.get_layer("vxm_dense_unet_enc_conv_0_0")

    def trained(trainable, compiled=True):
        layer.trainable = trainable
        if compiled:
            model.compile(keras.optimizers.SGD(0.5), loss=[MSE().loss, Grad("l2").loss], run_eagerly=True)
        before = layer.get_weights()
        model.fit(*batch, batch_size=4, epochs=1, verbose=0)
        return any((a != b).any() for a, b in zip(before, layer.get_weights(), strict=True))

    assert not trained(False)
    if cls is HetVxmDense:  # each phase is traced anew: what is trainable was settled by `compile` all the same
        model.references.warm_start = 1
        assert not trained(True, compiled=False)
        model.references.warm_start = 0
    assert trained(True)


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5"])
def test_layers_that_fit_are_taken_from_another_network(name, tmp_path):
    model = VxmDense(SIZE, nb_unet_features=[[4, 4], [4, 4]], int_steps=1)
    model.save_weights(tmp_path / name)
    deeper = VxmDense(SIZE, nb_unet_features=[[4, 4, 8], [8, 4, 4]], int_steps=1)
    before = deeper.get_layer("vxm_dense_unet_dec_conv_1_0").get_weights()
    deeper.load_weights(tmp_path / name, by_name=True, skip_mismatch=True)
    for layer in ("vxm_dense_unet_enc_conv_1_0", "vxm_dense_flow"):
        assert_close(deeper.get_layer(layer).get_weights(), model.get_layer(layer).get_weights(), 0)
    assert_close(deeper.get_layer("vxm_dense_unet_dec_conv_1_0").get_weights(), before, 0)
    if name == "w.h5":
        with pytest.raises(ValueError, match="lacks weights for these layers"):
            deeper.load_weights(tmp_path / name)


@pytest.mark.quick("w.h5")
@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5", "w.keras"])
def test_weights_of_a_vxm_dense_start_a_noise_model(name, batch, tmp_path, capsys):
    trained, model = model_of(VxmDense), model_of()
    model.get_layer("vxm_dense_flow").set_weights([0 * w for w in model.get_layer("vxm_dense_flow").get_weights()])
    before = model.variance_network.get_weights()
    (trained.save if name.endswith(".keras") else trained.save_weights)(tmp_path / name)
    model.load_weights(tmp_path / name)
    np.testing.assert_array_equal(model.register(*batch[0]), trained.register(*batch[0]))
    assert_close(model.variance_network.get_weights(), before, 0)
    assert "vxm_dense_variance" in capsys.readouterr().out


# -- settings, exports, checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.quick("<lambda>1", "<lambda>3", "<lambda>4")
@pytest.mark.parametrize(
    "make",
    [
        lambda: model_of(HetVxmDense),
        lambda: TransMorph(SIZE, 8, (1, 1), (2, 2), (4, 4)),
        lambda: tall_unet(SIZE, [[4, 4], [4, 4]]),
        lambda: affine_network(SIZE, [4], 4),
        lambda: Unet((*SIZE, 2), nb_features=FEATURES, do_res=True),
    ],
)
def test_images_keep_their_channels_last_whatever_the_setting(make, batch, channels_first):
    first = make()
    inputs = list(batch[0]) if len(first.inputs) == 2 else np.concatenate(batch[0], axis=-1)
    keras.config.set_image_data_format("channels_last")
    last = make()
    keras.config.set_image_data_format("channels_first")
    last.set_weights(first.get_weights())
    assert_close(*(keras.tree.flatten(model.predict(inputs, verbose=0)) for model in (first, last)), 1e-6)


def test_a_checkpoint_of_tensorflow_restores_both_networks(batch, tmp_path):
    model, other = model_of(), model_of()
    model.fit(*batch, batch_size=4, epochs=1, verbose=0)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=other).restore(path).expect_partial()
    assert_close(other.get_weights(), model.get_weights(), 0)


@pytest.mark.slow
@pytest.mark.graph
def test_keras_own_export_gives_the_outputs(batch, tmp_path):
    model = model_of()
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    assert_close([x.numpy() for x in served.serve(list(batch[0]))], model.predict(list(batch[0]), verbose=0), 1e-5)
