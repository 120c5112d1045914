"""What a graph demands of the program that runs it, and whether code runs compiled."""

import contextlib
import itertools

from hetmorph.ops import xla


def must_compile(graph_def) -> list[str]:
    """Functions, and calls of functions, that XLA must compile; a stock TensorFlow Serving refuses them."""
    functions = graph_def.library.function
    nodes = itertools.chain(graph_def.node, *(function.node_def for function in functions))
    marked = [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    return marked + [node.name for node in nodes if node.attr["_XlaMustCompile"].b]


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
