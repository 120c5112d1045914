"""What `keras.Model` offers holds for the models of two networks too, and for several replicas."""

import keras
import numpy as np
import pytest

from hetmorph.losses import MSE, NCC, Grad
from hetmorph.networks import HetVxmDense, NllVxmDense, VxmDense

FEATURES = [[4, 4], [4, 4]]
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


# Each training step and each loss once: what is divided by the number of replicas is the same for all pairs of them.
@pytest.mark.parametrize(("cls", "loss"), [(VxmDense, NCC), (HetVxmDense, MSE), (NllVxmDense, MSE)])
def test_two_replicas_train_as_one(cls, loss, batch, two_replicas, monkeypatch):
    """λ must not depend on how many devices there are: the gradients of both add up to that of the whole batch."""
    monkeypatch.setenv("HETMORPH_XLA", "0")  # compiled kernels are those of test_training_step.py
    alone = weights_after(model_of(cls, loss), batch)
    with two_replicas.scope():
        model = model_of(cls, loss)
    model.run_eagerly = False
    both = weights_after(model, batch)
    start = model_of(cls, loss).get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(alone, start, strict=True)) > 1e-3
    assert_close(both, alone)


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
    losses = [model.evaluate(*batch, batch_size=size, verbose=0, return_dict=True)["loss"] for size in (1, 3, 4)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
