"""One training on several devices, of one host or of several: each batch is divided, the gradients are added up.

This is the only place that knows how; `Trained` is what makes a model of Keras' go with it. N replicas that take a N-th
of each batch end where one device ends, up to rounding.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import keras
import tensorflow as tf

from hetmorph.training.fitting import bare
from hetmorph.training.hosts import Cluster, meet

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


@dataclass(frozen=True)
class Distribution:
    """Where a training runs.

    Attributes:
        strategy: strategy of TensorFlow; None on one device.
        cluster: the hosts; None where there is one.
    """

    strategy: tf.distribute.Strategy | None = None
    cluster: Cluster | None = None

    @property
    def replicas(self) -> int:
        """How many devices train."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the files: one of all does."""
        return self.cluster is None or self.cluster.index == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """Where the model is made, or loaded."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def divided(self, batches: Callable[[int, int], tf.data.Dataset], batch_size: int):
        """What `keras.Model.fit` takes: every replica has its own part of each batch; on several devices it never ends.

        Args:
            batches: `(k, n)` → the k-th of n equal parts of every batch; each host reads only its own.
            batch_size: pairs in the whole batch, a multiple of `replicas`.
        """
        if self.strategy is None:
            return batches(0, 1)
        part = batch_size // self.replicas

        def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
            own = batches(context.input_pipeline_id, context.num_input_pipelines)
            # Without an end hosts need not ask each other before each step whether all of them have data left.
            return own.rebatch(part, drop_remainder=True).repeat().prefetch(2)

        return self.strategy.distribute_datasets_from_function(of_host)

    def lost(self, error: tf.errors.OpError) -> ConnectionError | None:
        """The error that says which worker has gone; None where `error` is of another kind.

        Args:
            error: what stopped the training.
        """
        if self.cluster is None or not isinstance(error, _LOST):
            return None
        named = {int(number) for number in re.findall(r"/task:(\d+)", str(error))} - {self.cluster.index}
        who = self.cluster.name(named.pop()) if len(named) == 1 else "a worker"
        return ConnectionError(
            f"{who} has gone, so this one stops too; the last finished epoch is kept: start all of them again to resume"
        )


def check(devices: int, cluster: Cluster | None, batch_size: int) -> None:
    """Refuse what `distribute` could not bring about; nothing is prepared, and nobody is waited for.

    Args:
        devices: how many this process uses.
        cluster: the workers; None is this process alone.
        batch_size: pairs in the whole batch.

    Raises:
        ValueError: more devices than there are, or a batch that they cannot share equally: the mean of their means
            would not be that of the batch.
        ImportError: Keras is of a version with which several hosts cannot work.
    """
    if devices < 1:
        raise ValueError(f"expected at least one device, received {devices}")
    gpus, cores = len(tf.config.list_physical_devices("GPU")), os.cpu_count() or 1
    if gpus and devices > gpus:
        raise ValueError(f"expected at most {gpus} devices, the GPUs that there are, received {devices}")
    if not gpus and cluster is not None and devices > 1:
        raise ValueError(f"expected one device a worker where there is no GPU, received {devices}")
    if not gpus and devices > cores:
        raise ValueError(f"expected at most {cores} devices, the cores of a host without a GPU, received {devices}")
    replicas = devices * (len(cluster.workers) if cluster else 1)
    if batch_size % replicas:
        raise ValueError(f"expected a batch size that {replicas} devices can share equally, received {batch_size}")
    if cluster is not None:
        _check_keras()


def distribute(devices: int, cluster: Cluster | None, plan: Mapping, seconds: float) -> Distribution:
    """Prepare this process; with several hosts before it has computed anything, and not before all workers are there.

    Args:
        devices: how many this process uses: the first GPUs, or where there are none as many parts of the processor.
            Workers that share a host share its GPUs out.
        cluster: the workers; None is this process alone.
        plan: what all workers have to agree in, see `hosts.meet`.
        seconds: how long to wait for the others.

    Raises:
        ValueError: workers that are to do different things, or a processor that is in use already.
        ConnectionError: a worker did not come.
    """
    if cluster is None:
        return Distribution() if devices == 1 else Distribution(_of_devices(devices))
    gpus = _own_gpus(devices, cluster)
    meet(cluster, {**plan, "devices": devices}, seconds)
    return Distribution(_of_hosts(cluster, gpus, seconds), cluster)


def several_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Whether replicas are in other processes too.

    Args:
        strategy: any.
    """
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.cluster_resolver is not None


def replicas() -> int:
    """How many replicas train together; a loss times this is told as it would be by one."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def balanced(batch) -> tuple[Any, tf.Tensor | float]:
    """A batch, and what a loss of this replica's samples is to be multiplied by: 1 where all have as many.

    Losses are means, divided by the number of replicas. The last batch of a data set may leave them with different
    numbers of samples, and the mean over all of them is then not the mean of these means.

    Args:
        batch: this replica's part, as `fit` hands it on.

    Raises:
        tf.errors.InvalidArgumentError: this replica was left without any sample; in a graph when it runs.
    """
    samples = tf.nest.flatten(batch)[0]
    # Where a graph knows their number, the data set has whole batches alone.
    if replicas() == 1 or not (tf.executing_eagerly() or samples.shape[0] is None):
        return batch, 1.0
    own = tf.shape(samples)[0]
    some = tf.debugging.assert_positive(
        own,
        f"expected a batch of at least one sample for each of {replicas()} replicas, received fewer: leave the last "
        "batch out (drop_remainder=True), or choose a batch size that the number of samples is a multiple of",
    )
    with tf.control_dependencies([some] if some is not None else []):
        batch = tf.nest.map_structure(tf.identity, batch)
    whole = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)
    return batch, tf.cast(own * replicas(), tf.float32) / tf.cast(whole, tf.float32)


def clipped_together(gradients: list, optimizer: keras.optimizers.Optimizer) -> list:
    """Gradients of this replica's part such that an optimiser that clips, clips those of the whole batch.

    Keras clips before it adds the replicas' gradients up.

    Args:
        gradients: gradients of the loss as the optimiser scaled it, some of them None.
        optimizer: what will apply them.

    Raises:
        ValueError: an optimiser that clips and also scales its loss, or gathers gradients of several batches, between
            which and the sum of the replicas the clipping would have to be.
    """
    inner = bare(optimizer)
    if replicas() == 1 or not (inner.clipnorm or inner.global_clipnorm or inner.clipvalue):
        return gradients
    if inner is not optimizer or inner.gradient_accumulation_steps:
        raise ValueError(
            "expected an optimizer that clips gradients to neither scale its loss nor have "
            f"gradient_accumulation_steps on several replicas, received {type(optimizer).__name__} with both"
        )
    there = [gradient for gradient in gradients if gradient is not None]
    sums = iter(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, there))
    whole = inner._clip_gradients([gradient if gradient is None else next(sums) for gradient in gradients])
    # Clipped once more, a part of what is short enough stays as it is.
    return [gradient if gradient is None else gradient / replicas() for gradient in whole]


class OnReplicas:
    """Mixin before `keras.Model`: what of Keras' trainer fails where there are replicas.

    `fit` asks the strategy to add up a batch over the replicas, of which it needs the shapes alone: across hosts that
    fails, and masks cannot be added. On several hosts it reduces logs that are scalars along an axis besides
    (keras#20585, keras#20329). Here shapes are those of the first local replica, and so are
    the logs of a step; those of an epoch are of all replicas, because Keras reads them from the metrics.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = self.distribute_strategy
        if iterator is None or strategy is None or strategy.num_replicas_in_sync == 1:
            return super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        for _, _, batches in iterator:
            data_batch = _first_local(strategy, next(batches))
            break
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    def _make_function(self, step_function):
        strategy = self.distribute_strategy
        if not several_hosts(strategy):
            return super()._make_function(step_function)
        if self.steps_per_execution != 1:
            raise ValueError(f"expected steps_per_execution=1 on several hosts, received {self.steps_per_execution}")

        @tf.autograph.experimental.do_not_convert
        def step(iterator):
            return _first_local(strategy, strategy.run(step_function, args=(iterator.get_next(),)))

        compiled = step if self.run_eagerly else tf.function(step, reduce_retracing=True)

        def function(iterator):
            if not isinstance(iterator, tf.distribute.DistributedIterator):
                raise ValueError("expected fit or evaluate on several hosts, received a batch of one of them")
            return compiled(iterator)

        return function


def _first_local(strategy: tf.distribute.Strategy, values):
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)


@functools.cache  # a second strategy in one process would take the numbers of the first one's messages
def _of_devices(devices: int) -> tf.distribute.Strategy:
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy([f"/gpu:{k}" for k in range(devices)])
    _divide_processor(devices)
    return tf.distribute.MirroredStrategy([f"/cpu:{k}" for k in range(devices)])


def _divide_processor(parts: int) -> None:
    processor = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(processor)
    if configured is not None and len(configured) >= parts:
        return
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * parts)
    except RuntimeError as error:
        raise ValueError(
            f"expected {parts} devices before anything is computed, received a processor in use"
        ) from error


def _own_gpus(devices: int, cluster: Cluster) -> int:
    """Let this process see its GPUs alone; their number, 0 where there are none."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return 0
    # A scheduler may have given each worker GPUs of its own; where all see the same ones, they take turns.
    first = devices * cluster.local_index if len(gpus) >= devices * cluster.on_this_host else 0
    tf.config.set_visible_devices(gpus[first : first + devices], "GPU")
    return devices


def _of_hosts(cluster: Cluster, gpus: int, seconds: float) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    with _giving_up(cluster, seconds):
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)


@contextlib.contextmanager
def _giving_up(cluster: Cluster, seconds: float):
    """End the program if the block does not: TensorFlow waits without an end, and in a way that nothing interrupts."""

    def give_up() -> None:
        print(
            f"error: the workers have met, but TensorFlow did not connect them within {seconds:.0f} s: a worker has "
            f"gone, or cannot be reached at its address ({', '.join(cluster.workers)})",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_keras() -> None:
    """Refuse a Keras whose trainer is another: what `OnReplicas` replaces would not be asked."""
    if not all(hasattr(keras.Model, name) for name in ("_maybe_symbolic_build", "_symbolic_build", "_make_function")):
        raise ImportError(
            f"several hosts need a Keras whose trainer has _make_function, such as 3.15; found {version('keras')}"
        )
