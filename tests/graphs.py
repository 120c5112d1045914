"""Whether models run as graphs, whether code runs compiled, and what a graph demands of the program that runs it."""

import contextlib
import itertools
import warnings
from unittest import mock

import keras
import tensorflow as tf

from hetmorph.ops import xla


def must_compile(graph_def) -> list[str]:
    """Functions, and calls of functions, that XLA must compile; a stock TensorFlow Serving refuses them."""
    functions = graph_def.library.function
    nodes = itertools.chain(graph_def.node, *(function.node_def for function in functions))
    marked = [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    return marked + [node.name for node in nodes if node.attr["_XlaMustCompile"].b]


@contextlib.contextmanager
def eagerly():
    """Inside, models train and predict without a graph: making one takes seconds, running them once milliseconds."""
    always = property(lambda model: True, lambda model, value: None)
    with (
        mock.patch.object(keras.Model, "run_eagerly", always),
        mock.patch.dict("os.environ", HETMORPH_XLA="0"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Even though the .tf.config", UserWarning)  # of tf.data, which makes graphs
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)


@contextlib.contextmanager
def expect_compiled(expected: bool):
    """Fails unless code inside the block asks for compiled kernels, or does not, as expected."""
    before = _lookups()
    yield
    compiled = _lookups() > before
    assert compiled == expected, f"kernels were {'' if compiled else 'not '}compiled"


@contextlib.contextmanager
def kernels(compiled: bool):
    """Switch compilation on or off; a test that asked for it in vain would compare a thing with itself."""
    with expect_compiled(compiled), xla.compiled_kernels(compiled):
        yield


def _lookups() -> int:
    info = xla._compiled.cache_info()
    return info.hits + info.misses
