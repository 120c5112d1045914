"""Compile numerical kernels with XLA where that is safe: in training, on shapes known beforehand.

XLA fuses the index arithmetic, gathers and weights of an interpolation into one loop. It is not used by default,
because graphs that must be compiled do not run on a stock TensorFlow Serving, and every new shape is compiled anew.
"""

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable

import tensorflow as tf

_active = contextvars.ContextVar("hetmorph_xla", default=False)

# Before 2.20 XLA runs a scatter on the CPU as a loop over single elements, 5 to 50 times slower than TensorFlow.
FAST_SCATTER = tuple(int(part) for part in tf.__version__.split(".")[:2]) >= (2, 20)


@contextlib.contextmanager
def compiled_kernels(enabled: bool = True):
    """Compile the kernels that are called, or traced, inside the `with` block.

    `VxmDense` does this in its training step. Use it in a training loop of your own; graphs that are exported must be
    traced outside. The environment variable HETMORPH_XLA=0 turns it off everywhere.

    Args:
        enabled: False compiles nothing inside, also within a block that does.

    Example:
        >>> with compiled_kernels():
        ...     moved = warp(image, displacement)
    """
    token = _active.set(enabled and allowed())
    try:
        yield
    finally:
        _active.reset(token)


def allowed() -> bool:
    """Whether the environment lets anything be compiled."""
    return os.environ.get("HETMORPH_XLA") != "0"


def active() -> bool:
    """Whether kernels are being compiled."""
    return _active.get()


def run(kernel: Callable, *tensors: tf.Tensor, **static) -> tf.Tensor:
    """`kernel(*tensors, **static)`, compiled if asked for and if all sizes but the batch's are known.

    In a graph it is a function of its own, traced once for all calls of a signature: a network that interpolates ten
    times is traced, saved and loaded in a fraction of the time. TensorFlow puts it in place before it runs.

    Args:
        kernel: function of tensors and of hashable keyword arguments.
        static: sizes and flags; with a tensor among them the kernel is called as it is.
    """
    compiled = active() and all(t.shape.rank and t.shape[1:].is_fully_defined() for t in tensors)
    if (tf.executing_eagerly() and not compiled) or any(map(tf.is_tensor, tf.nest.flatten(static))):
        return kernel(*tensors, **static)
    signature = kernel, tuple(tf.TensorSpec(t.shape, t.dtype) for t in tensors), tuple(static.items())
    return (_compiled(*signature) if compiled else _traced(*signature, active()))(*tensors)


@functools.lru_cache(maxsize=256)
def _compiled(*signature):
    return _function(*signature, jit_compile=True)


@functools.lru_cache(maxsize=256)
def _traced(kernel: Callable, specs: tuple, static: tuple, active: bool):
    """Apart where the kernel may see that others are being compiled."""
    return _function(kernel, specs, static)


def _function(kernel: Callable, specs: tuple, static: tuple, jit_compile: bool | None = None):
    # One function per signature: a single one for all would retrace, with TensorFlow's warning about it.
    called = functools.partial(kernel, **dict(static))
    return tf.function(called, input_signature=specs, jit_compile=jit_compile, autograph=False)


def forget() -> None:
    """Free all compiled and traced kernels; those that are needed again are made anew."""
    _compiled.cache_clear()
    _traced.cache_clear()
