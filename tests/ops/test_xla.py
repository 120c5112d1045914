"""When kernels are compiled, and when not."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops import fields, xla
from hetmorph.ops.xla import active, compiled_kernels, run
from tests.graphs import must_compile


def scaled(x, factor=2.0):
    return x * factor


def added(x, y):
    return x + y


def compiles(kernel, *specs, enabled=True, **static) -> bool:
    """Whether the graph of a call holds what XLA must compile."""

    @tf.function(input_signature=specs)
    def traced(*tensors):
        with compiled_kernels(enabled):
            return run(kernel, *tensors, **static)

    return bool(must_compile(traced.get_concrete_function().graph.as_graph_def()))


def test_only_where_asked_for():
    spec = tf.TensorSpec([2, 3])
    assert compiles(scaled, spec) and not compiles(scaled, spec, enabled=False)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [([2, 3, 4], True), ([None, 3, 4], True), ([4], True), ([2, None, 4], False), ([], False), (None, False)],
)
def test_only_where_all_sizes_but_the_batch_are_known(shape, expected):
    assert compiles(scaled, tf.TensorSpec(shape)) == expected
    assert compiles(added, tf.TensorSpec([1, 1]), tf.TensorSpec(shape)) == expected


def test_not_with_a_tensor_among_the_static_arguments():
    @tf.function(input_signature=[tf.TensorSpec([2, 3]), tf.TensorSpec([])])
    def traced(x, factor):
        with compiled_kernels():
            return run(lambda x, factors: x * factors[0], x, factors=(factor, 1.0))

    concrete = traced.get_concrete_function()
    assert not must_compile(concrete.graph.as_graph_def())
    np.testing.assert_array_equal(concrete(tf.ones([2, 3]), tf.constant(5.0)), np.full((2, 3), 5))


@pytest.mark.parametrize("enabled", [False, True])
def test_results_and_gradients_do_not_depend_on_it(enabled):
    x = tf.Variable([1.0, 2.0])
    with compiled_kernels(enabled), tf.GradientTape() as tape:
        y = run(scaled, x.value(), factor=3.0)
        gradient = tape.gradient(y, x)
    assert y.numpy().tolist() == [3, 6] and gradient.numpy().tolist() == [3, 3]


def test_a_compiled_kernel_is_not_run_by_python():
    called_eagerly = []

    def kernel(x):
        called_eagerly.append(tf.executing_eagerly())
        return x

    run(kernel, tf.ones([2]))
    with compiled_kernels():
        run(kernel, tf.ones([2]))
        run(kernel, tf.ones([2]))
    assert called_eagerly == [True, False]


def test_nesting_and_what_remains_of_it():
    assert not active()
    with compiled_kernels():
        with compiled_kernels(False):
            assert not active()
        assert active()
        with compiled_kernels():
            assert active()
        assert active()
    assert not active()


def test_an_exception_ends_the_block():
    with pytest.raises(KeyError), compiled_kernels():
        raise KeyError
    assert not active()


def test_as_a_decorator_it_serves_every_call():
    seen = compiled_kernels()(active)
    assert [seen(), active(), seen(), active()] == [True, False, True, False]


def test_one_function_per_signature():
    def kernel(x, factor=1.0):
        return x * factor

    def misses(x, **static):
        before = xla._compiled.cache_info().misses
        run(kernel, x, **static)
        return xla._compiled.cache_info().misses - before

    with compiled_kernels():
        assert misses(tf.ones([2, 3])) == 1
        assert misses(tf.zeros([2, 3])) == 0
        assert misses(tf.ones([2, 3], tf.float64)) == 1
        assert misses(tf.ones([3, 3])) == 1
        assert misses(tf.ones([2, 3]), factor=2.0) == 1
        assert misses(tf.ones([2, 3]), factor=2.0) == 0


def test_many_shapes_give_no_warning_about_retracing(caplog):
    def kernel(x):
        return x + 1.0

    with caplog.at_level(logging.WARNING, "tensorflow"), compiled_kernels():
        for size in range(1, 13):
            assert run(kernel, tf.zeros([size])).shape == (size,)
    assert "retracing" not in caplog.text


def test_one_function_for_all_shapes_would_warn(caplog):
    # What the test above looks for does happen.
    shared = tf.function(lambda x: x + 1.0)
    with caplog.at_level(logging.WARNING, "tensorflow"):
        for size in range(1, 13):
            shared(tf.zeros([size]))
    assert "retracing" in caplog.text


def test_the_environment_turns_it_off(monkeypatch):
    monkeypatch.setenv("HETMORPH_XLA", "0")
    with xla.compiled_kernels():
        assert not xla.active()


def test_in_a_graph_a_kernel_is_traced_once():
    traced = []

    def kernel(x, factor):
        traced.append(x.shape)
        return x * factor

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def graph(x):
        for _ in range(4):
            x = run(kernel, x, factor=2.0)
        return run(kernel, x, factor=tf.reduce_sum(x))  # a tensor: as it is

    np.testing.assert_array_equal(graph(tf.ones([1, 3])), np.full((1, 3), 16 * 48.0))
    assert len(traced) == 2
    run(kernel, tf.ones([1, 3]), factor=2.0)
    assert len(traced) == 3, "no function without a graph"


def test_squarings_are_traced_once():
    """However many there are: a network is exported, and its first update made, the sooner."""

    def operations(steps):
        graph = tf.function(lambda v: fields.integrate(v, steps), input_signature=[tf.TensorSpec([1, 8, 8, 2])])
        return len(graph.get_concrete_function().graph.get_operations())

    assert operations(7) - operations(4) <= 3 * 2
