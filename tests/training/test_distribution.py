"""Several replicas train as one, on one host and on two; who cannot is told so."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import config
from hetmorph.networks.build import build
from hetmorph.training import Distribution, distribution, hosts
from tests import fresh
from tests.graphs import eagerly
from tests.training.test_hosts import addresses

PAIR = hosts.Cluster(("localhost:1", "localhost:2"), 0)
OPTIONS = {"mse": {}, "ncc": {"window": 5}, "nll": {}, "het": {"warm_start": 0}}
STEPS, BATCH = 3, 4


def trained(name, where: Distribution):
    """Last values of the metrics, and the weights, after a few batches."""
    settings = config.TrainConfig(
        network=config.NetworkConfig(features=((4,), (4,)), int_steps=1),
        objective=config.ObjectiveConfig(name, **OPTIONS[name]),
        optimizer=config.OptimizerConfig(decay="none", warmup=0),
    )
    moving, fixed = np.random.default_rng(0).random((2, STEPS, BATCH, 16, 16, 1)).astype("float32")

    def part(k, n):
        """As `data.pipeline`, which takes longer to make."""
        mine = slice(k * BATCH // n, (k + 1) * BATCH // n)
        images = moving[:, mine], fixed[:, mine]
        return tf.data.Dataset.from_tensor_slices((images, (images[1], np.zeros_like(images[1][:, :, :1, :1]))))

    keras.utils.set_random_seed(0)
    with where.scope():
        model = build(settings, (16, 16))
    history = model.fit(where.divided(part, BATCH), epochs=1, steps_per_epoch=STEPS, verbose=0).history
    return {name: values[-1] for name, values in history.items()}, model.get_weights()


def assert_as_one(several, name):
    """The same as one device, up to rounding."""
    with eagerly():
        shown, weights = trained(name, Distribution())
    assert several[0] == pytest.approx(shown, rel=1e-4, abs=1e-6)
    for mine, alone in zip(several[1], weights, strict=True):
        np.testing.assert_allclose(mine, alone, rtol=0, atol=2e-5)


# Each kind of player and each loss once; that of GradICON is in objectives/test_terms.py.
@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_devices_end_where_one_ends(name, two_replicas, monkeypatch):
    """Gradients add up to those of the whole batch, metrics are those of all samples."""
    monkeypatch.setenv("HETMORPH_XLA", "0")  # compiled kernels are those of networks/test_training_step.py
    assert_as_one(trained(name, Distribution(two_replicas)), name)


OF_HOSTS = """
import json, sys
from hetmorph.training import Distribution, distribution, hosts
from tests.training.test_distribution import trained
cluster = hosts.Cluster(tuple(sys.argv[3:]), int(sys.argv[2]))
if len(cluster.workers) > 1:
    where = distribution.distribute(1, cluster, {}, 60)
else:
    where = Distribution(distribution._of_hosts(cluster, 0, 60), cluster)
shown, weights = trained(sys.argv[1], where)
print(json.dumps([shown, [weight.tolist() for weight in weights]]))
"""


def of_hosts(name, count, monkeypatch):
    """`trained` in as many processes, connected as hosts are; what each printed."""
    monkeypatch.setenv("HETMORPH_XLA", "0")
    workers = addresses(count)
    with ThreadPoolExecutor(count) as pool:
        printed = list(pool.map(lambda index: fresh.output_of(OF_HOSTS, name, index, *workers), range(count)))
    return [json.loads(text.splitlines()[-1]) for text in printed]


def test_fit_under_the_strategy_of_hosts(monkeypatch):
    """A cluster of one: Keras alone reduces the logs of a step along an axis that they have not, and fails."""
    assert_as_one(of_hosts("mse", 1, monkeypatch)[0], "mse")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ncc", "het"])
def test_two_hosts_end_where_one_ends(name, monkeypatch):
    first, second = of_hosts(name, 2, monkeypatch)
    assert first[1] == second[1]
    assert_as_one(first, name)


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
    with pytest.raises(ImportError, match=version("keras")):
        distribution.check(1, PAIR, 4)


@pytest.mark.parametrize(
    "error,expected",
    [
        (tf.errors.UnavailableError(None, None, "stopped: /job:worker/replica:0/task:1"), "worker 1 (localhost:2) has"),
        (
            tf.errors.UnavailableError(None, None, "/task:0 calls /job:worker/replica:0/task:1"),
            "worker 1 (localhost:2) has",
        ),
        (tf.errors.UnavailableError(None, None, "connection reset"), "a worker has gone"),
        (tf.errors.InvalidArgumentError(None, None, "/task:1"), None),
    ],
)
def test_who_has_gone_is_told(error, expected):
    told = Distribution(None, PAIR).lost(error)
    assert told is None if expected is None else str(told).startswith(expected)
    assert Distribution().lost(error) is None
