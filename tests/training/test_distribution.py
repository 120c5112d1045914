"""Several replicas train as one, on one host and on two; who cannot is told so."""

import dataclasses
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import config, data
from hetmorph.networks.build import both_directions, build
from hetmorph.training import Distribution, distribute, distribution, hosts
from tests import fresh
from tests.data.test_pipeline import make
from tests.training.test_hosts import addresses

PAIR = hosts.Cluster(("localhost:1", "localhost:2"), 0)
TINY = config.NetworkConfig(features=((4, 4), (4, 4)), int_steps=2)
STEPS, BATCH = 3, 4


def trained(objective: config.ObjectiveConfig, where: Distribution):
    """Losses and weights after a few batches of the pipeline."""
    settings = config.TrainConfig(network=TINY, objective=objective)
    settings = dataclasses.replace(settings, optimizer=config.OptimizerConfig(decay="none", warmup=0))
    bidir = both_directions(settings)
    keras.utils.set_random_seed(0)
    with where.scope():
        model = build(settings, (16, 16))
    batches = where.divided(
        lambda k, n: data.pipeline(make(5), BATCH, STEPS, 0, bidir=bidir, part=(k, n)), batch_size=BATCH
    )
    history = model.fit(batches, epochs=1, steps_per_epoch=STEPS, verbose=0).history
    return {name: values[-1] for name, values in history.items()}, model.get_weights()


@pytest.fixture(scope="module")
def alone():
    """`trained` of an objective on one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HETMORPH_XLA", "0")  # compiled kernels are those of networks/test_training_step.py
        yield functools.cache(lambda objective: trained(objective, Distribution()))


def objective(name):
    return config.ObjectiveConfig(name, window=5, sigma=2.0, warm_start=0 if name == "het" else None)


def assert_same(one, other):
    """The same up to rounding, of weights that have moved."""
    assert one[0] == pytest.approx(other[0], rel=1e-4, abs=1e-6)
    for mine, yours in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["mse", "ncc", "het", "gradicon"])
def test_two_devices_end_where_one_ends(name, alone):
    """The pipeline of one, divided; gradients add up to those of the whole batch, metrics are those of all samples."""
    assert_same(trained(objective(name), distribute(2, None, {}, 0)), alone(objective(name)))


TWO_HOSTS = """
import json, sys
from hetmorph.training import distribute, hosts
from tests.training.test_distribution import objective, trained
where = distribute(1, hosts.Cluster(tuple(sys.argv[2:]), int(sys.argv[1])), {}, 60)
shown, weights = trained(objective("het"), where)
print(json.dumps([shown, [weight.tolist() for weight in weights]]))
"""


def test_two_hosts_end_where_one_ends(alone):
    """Of the objective with two players; `fit` of Keras alone fails here, see `OnReplicas`."""
    workers = addresses(2)
    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(lambda index: fresh.output_of(TWO_HOSTS, index, *workers), range(2)))
    first, second = (json.loads(text.splitlines()[-1]) for text in printed)
    assert first[1] == second[1]
    assert_same((first[0], [np.array(weight) for weight in first[1]]), alone(objective("het")))


@pytest.mark.parametrize(
    "devices,cluster,batch,message",
    [
        (0, None, 4, "at least one device, received 0"),
        (10_000, None, 20_000, "cores of a host without a GPU, received 10000"),
        (2, None, 5, "a batch size that 2 devices can share equally, received 5"),
        (1, PAIR, 5, "a batch size that 2 devices can share equally, received 5"),
        (2, PAIR, 4, "one device a worker where there is no GPU, received 2"),
    ],
)
def test_what_cannot_be_distributed(devices, cluster, batch, message, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    with pytest.raises(ValueError) as caught:
        distribution.check(devices, cluster, batch)
    assert message in str(caught.value)


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["first", "second"])
    distribution.check(2, PAIR, 4)
    with pytest.raises(ValueError, match="at most 2 devices, the GPUs that there are, received 3"):
        distribution.check(3, PAIR, 6)


@pytest.mark.parametrize(
    "visible,devices,index,expected",
    [(4, 2, 0, "ab"), (4, 2, 1, "cd"), (4, 1, 1, "b"), (2, 2, 1, "ab"), (1, 1, 1, "a")],
)
def test_workers_of_one_host_share_its_gpus_out(visible, devices, index, expected, monkeypatch):
    """... unless the scheduler has shown each its own."""
    seen = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: list("abcd")[:visible])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpus, kind: seen.extend(gpus))
    assert distribution._own_gpus(devices, dataclasses.replace(PAIR, index=index)) == devices
    assert seen == list(expected)


def test_another_keras_is_refused_on_several_hosts(monkeypatch):
    distribution.check(1, PAIR, 4)
    monkeypatch.delattr(keras.src.backend.tensorflow.trainer.TensorFlowTrainer, "_make_function")
    distribution.check(2, None, 4)
    with pytest.raises(RuntimeError, match=version("keras")):
        distribution.check(1, PAIR, 4)


@pytest.mark.parametrize(
    "error,expected",
    [
        (tf.errors.UnavailableError(None, None, "stopped: /job:worker/replica:0/task:1"), "worker 1 (localhost:2) has"),
        (tf.errors.UnavailableError(None, None, "connection reset"), "a worker has gone"),
        (tf.errors.InvalidArgumentError(None, None, "/task:1"), None),
    ],
)
def test_who_has_gone_is_told(error, expected):
    told = Distribution(None, PAIR).lost(error)
    assert told is None if expected is None else str(told).startswith(expected)
    assert Distribution().lost(error) is None
