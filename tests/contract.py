"""One call, many checks: the contract that every registered layer and loss keeps.

from tests.contract import check_layer, check_loss

check_layer(VecInt, {"int_steps": 5}, lambda ndims, batch, rng: rng.normal(size=(batch, *[9] * ndims, ndims)))
"""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

PACKAGE = "hetmorph>"


def check_layer(
    cls,
    init_kwargs,
    inputs_fn,
    *,
    ndims=(2, 3),
    batches=(1, 3),
    tolerance=1e-5,
    float16=True,
    unknown_dims=True,
    samples_independent=True,
    differentiable=True,
    custom_objects=None,
):
    """Check a layer: config, registration, save/load, graph, dimensions, batch, half precision, gradient.

    Args:
        cls: the layer class.
        init_kwargs: constructor arguments; a function of ndims where they depend on it.
        inputs_fn: `(ndims, batch, rng) -> array or list of arrays`, batch first.
        ndims: numbers of spatial dimensions to go through.
        batches: batch sizes to go through.
        tolerance: largest absolute difference between two ways of computing the same output.
        float16: whether the layer claims to work under the mixed_float16 policy.
        unknown_dims: whether the layer claims to work when spatial sizes are known only at run time.
        samples_independent: whether a sample's output does not depend on the rest of its batch.
        differentiable: whether the output has a finite gradient for every input.
        custom_objects: names that loading a saved model may need besides the registered ones.
    """
    for n in ndims:
        kwargs = init_kwargs(n) if callable(init_kwargs) else dict(init_kwargs)
        _check_config(cls, kwargs)
        layer = cls(**kwargs)
        for batch in batches:
            inputs = _floats(inputs_fn(n, batch, np.random.default_rng(batch)))
            output = _finite(layer(inputs), f"{cls.__name__} {n}-D, batch {batch}")
            _check_output_shape(layer, inputs, output)
            _close(tf.function(layer)(inputs), output, tolerance, "graph differs from eager")
            if samples_independent and batch > 1:
                first = layer(_map(lambda x: x[:1], inputs))
                _close(first, _map(lambda x: x[:1], output), tolerance, "a sample depends on its batch")
            if differentiable:
                _check_gradient(layer, inputs)
            if unknown_dims:
                _check_unknown_dims(layer, inputs, output, tolerance)
            if float16:
                _check_float16(cls, kwargs, layer, inputs, output)
        _check_saved(layer, inputs, output, tolerance, custom_objects)


def check_loss(
    cls,
    init_kwargs,
    targets_fn,
    *,
    ndims=(2, 3),
    batches=(1, 3),
    tolerance=1e-5,
    float16=True,
    differentiable=True,
):
    """Check a loss: config, registration, graph, dimensions, batch, half precision, gradient, save/load.

    Args:
        cls: a `keras.losses.Loss`, or a class in VoxelMorph's style with `.loss(y_true, y_pred)`.
        init_kwargs: constructor arguments; a function of ndims where they depend on it.
        targets_fn: `(ndims, batch, rng) -> (y_true, y_pred)`.
        ndims, batches, tolerance, float16, differentiable: as in `check_layer`.
    """
    for n in ndims:
        kwargs = init_kwargs(n) if callable(init_kwargs) else dict(init_kwargs)
        if hasattr(cls, "get_config"):
            _check_config(cls, kwargs)
        for batch in batches:
            y_true, y_pred = _floats(targets_fn(n, batch, np.random.default_rng(batch)))
            loss = _loss_function(cls(**kwargs))
            value = _finite(loss(y_true, y_pred), f"{cls.__name__} {n}-D, batch {batch}")
            _close(tf.function(loss)(y_true, y_pred), value, tolerance, "graph differs from eager")
            if differentiable:
                with tf.GradientTape() as tape:
                    tape.watch(y_pred)
                    total = tf.reduce_mean(loss(y_true, y_pred))
                _finite(tape.gradient(total, y_pred), f"gradient of {cls.__name__}")
            if float16:
                halves = tf.cast(y_true, "float16"), tf.cast(y_pred, "float16")
                _finite(loss(*halves), f"{cls.__name__} in float16")
        _check_compiled(cls, kwargs, y_true, y_pred)


def _check_config(cls, kwargs):
    name = keras.saving.get_registered_name(cls)
    assert name.startswith(PACKAGE), f"{cls.__name__} is registered as {name!r}, expected package 'hetmorph'"
    first = cls(**kwargs).get_config()
    json.dumps(first)  # raises when something in the config is no plain value
    missing = set(kwargs) - set(first)
    assert not missing, f"get_config of {cls.__name__} leaves out {missing}"
    assert cls.from_config(first).get_config() == first


def _check_output_shape(layer, inputs, output):
    symbolic = layer.compute_output_spec(_map(lambda x: keras.KerasTensor(x.shape, x.dtype), inputs))
    for said, is_ in zip(tf.nest.flatten(symbolic), tf.nest.flatten(output), strict=True):
        assert len(said.shape) == len(is_.shape), f"symbolic shape {said.shape}, output {is_.shape}"
        fits = all(s in (None, i) for s, i in zip(said.shape, is_.shape, strict=True))
        assert fits, f"symbolic shape {said.shape}, output {is_.shape}"


def _check_unknown_dims(layer, inputs, output, tolerance):
    specs = _map(lambda x: tf.TensorSpec([None] * (x.ndim - 1) + [x.shape[-1]], x.dtype), inputs)
    traced = tf.function(lambda x: layer(x), input_signature=[specs])
    _close(traced(inputs), output, tolerance, "unknown dimensions change the result")


def _check_float16(cls, kwargs, layer, inputs, output):
    half = cls(**kwargs, dtype="mixed_float16")
    half.build(_map(lambda x: tuple(x.shape), inputs))
    half.set_weights(layer.get_weights())
    result = _finite(half(inputs), f"{cls.__name__} under mixed_float16")
    scale = max(float(tf.reduce_max(tf.abs(tf.cast(x, "float32")))) for x in tf.nest.flatten(output))
    _close(result, output, 2e-2 * max(scale, 1.0), "float16 is far from float32")


def _check_gradient(layer, inputs):
    flat = tf.nest.flatten(inputs)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        total = sum(tf.reduce_sum(tf.cast(x, "float32") ** 2) for x in tf.nest.flatten(layer(inputs)))
    for gradient in tape.gradient(total, flat):
        _finite(gradient, f"gradient of {layer.name}")


def _check_saved(layer, inputs, output, tolerance, custom_objects):
    symbols = _map(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), inputs)
    model = keras.Model(tf.nest.flatten(symbols), layer(symbols))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.keras"
        model.save(path)
        restored = keras.saving.load_model(path, custom_objects=custom_objects)
    _close(restored(tf.nest.flatten(inputs)), output, tolerance, "saving and loading changes the result")


def _check_compiled(cls, kwargs, y_true, y_pred):
    """A model compiled with the loss survives `.keras` with its loss: evaluate gives the same number."""
    entry = keras.Input(y_pred.shape[1:])
    model = keras.Model(entry, keras.layers.Activation("linear")(entry))
    model.compile("sgd", loss=_loss_function(cls(**kwargs)))
    before = model.evaluate(y_pred, y_true, batch_size=len(y_pred), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loss.keras"
        model.save(path)
        restored = keras.saving.load_model(path)
    after = restored.evaluate(y_pred, y_true, batch_size=len(y_pred), verbose=0)
    assert np.allclose(after, before, rtol=1e-5, atol=1e-6), f"{cls.__name__}: {before} becomes {after}"


def _loss_function(loss):
    return loss if callable(loss) else loss.loss


def _floats(values):
    return _map(lambda x: tf.convert_to_tensor(np.asarray(x, "float32")), values)


def _map(function, values):
    return [function(v) for v in values] if isinstance(values, (list, tuple)) else function(values)


def _finite(values, what):
    for value in tf.nest.flatten(values):
        assert value is not None, f"{what}: None"
        assert np.all(np.isfinite(keras.ops.convert_to_numpy(value))), f"{what}: not finite"
    return values


def _close(actual, expected, tolerance, message):
    for a, e in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        difference = np.max(np.abs(np.asarray(a, "float64") - np.asarray(e, "float64")), initial=0)
        assert difference <= tolerance, f"{message}: {difference:.3g} > {tolerance:.3g}"
