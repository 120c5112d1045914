"""One call, many checks: the contract that every registered layer, loss and model keeps.

from tests.contract import check_layer, check_loss

check_layer(VecInt, {"int_steps": 5}, lambda ndims, batch, rng: rng.normal(size=(batch, *[9] * ndims, ndims)))
"""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

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
        batches: batch sizes to go through; gradient, half precision and files are those of the last.
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
        graph = graph_of_any_size = None  # each traced once: that is what takes the time
        for batch in batches:
            inputs = _floats(inputs_fn(n, batch, np.random.default_rng(batch)))
            output = _finite(layer(inputs), f"{cls.__name__} {n}-D, batch {batch}")
            _check_output_shape(layer, inputs, output)
            graph = graph or _graph(layer, inputs, lambda x: [None, *x.shape[1:-1]])
            _close(graph(inputs), output, tolerance, "graph differs from eager")
            if samples_independent and batch > 1:
                first = layer(_map(lambda x: x[:1], inputs))
                _close(first, _map(lambda x: x[:1], output), tolerance, "a sample depends on its batch")
            if unknown_dims:
                graph_of_any_size = graph_of_any_size or _graph(layer, inputs, lambda x: [None] * (x.ndim - 1))
                _close(graph_of_any_size(inputs), output, tolerance, "unknown dimensions change the result")
        if differentiable:
            _check_gradient(layer, inputs)
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
    differences=True,
):
    """Check a loss: config, graph, dimensions, batch, replicas, half precision, repetition, gradient, files.

    Args:
        cls: a `keras.losses.Loss`, or a class in VoxelMorph's style with `.loss(y_true, y_pred)`.
        init_kwargs: constructor arguments; a function of ndims where they depend on it.
        targets_fn: `(ndims, batch, rng) -> (y_true, y_pred)`.
        ndims, batches, tolerance, float16, differentiable: as in `check_layer`.
        differences: whether the gradient is that of the value by differences too: not where a part of the loss is held
            fixed on purpose, nor where it has many kinks.
    """
    for n in ndims:
        kwargs = init_kwargs(n) if callable(init_kwargs) else dict(init_kwargs)
        if hasattr(cls, "get_config"):
            _check_config(cls, kwargs)
        graph = None  # traced once: that is what takes the time
        for batch in batches:
            y_true, y_pred = _floats(targets_fn(n, batch, np.random.default_rng(batch)))
            loss, again = (_loss_function(cls(**kwargs)) for _ in range(2))
            value = _finite(loss(y_true, y_pred), f"{cls.__name__} {n}-D, batch {batch}")
            graph = graph or _graph_of_loss(loss, y_true, y_pred)
            _close(graph(y_true, y_pred), value, tolerance, "graph differs from eager")
            _close(again(y_true, y_pred), value, 0, "the same loss of the same images differs")
            assert tuple(value.shape) == (batch,), f"{cls.__name__}: expected one number per sample, got {value.shape}"
        _check_replicas(loss, y_true, y_pred, value, f"{cls.__name__} {n}-D", tolerance)
        if differentiable:
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                total = tf.reduce_mean(loss(y_true, y_pred))
            gradient = _finite(tape.gradient(total, y_pred), f"gradient of {cls.__name__}")
            if differences:
                mean = lambda y, y_true=y_true, loss=loss: tf.reduce_mean(loss(y_true, y))  # noqa: E731
                _check_derivatives(mean, y_pred, gradient, f"gradient of {cls.__name__}")
        if float16:
            for half in ("float16", "bfloat16"):
                halves = tf.cast(y_true, half), tf.cast(y_pred, half)
                _finite(loss(*halves), f"{cls.__name__} in {half}")
    _check_compiled(cls, kwargs, y_true, y_pred)  # whatever the number of axes


def _graph_of_loss(loss, *targets):
    """The loss in a graph that takes any batch, made as Keras makes that of a training: no Python is rewritten."""
    signature = [tf.TensorSpec([None, *y.shape[1:]], y.dtype) for y in targets]
    return tf.function(loss, input_signature=signature, autograph=False)


def _check_replicas(loss, y_true, y_pred, value, what, tolerance):
    """N replicas equal one: Keras divides by the global batch what has one number per sample, whatever its batch."""
    alone = [loss(y_true[i : i + 1], y_pred[i : i + 1]) for i in range(len(y_pred))]
    _close(tf.concat(alone, 0), value, tolerance, f"{what}: a sample's loss depends on its batch")


def check_model(cls, init_kwargs, *, shape=(16, 16), batch=2):
    """Check a model of two images: config, registration, seeds, bfloat16, gradient.

    Args:
        cls: the model class, a `RegistrationModel`.
        init_kwargs: constructor arguments besides `inshape`.
        shape: spatial sizes.
        batch: number of pairs.
    """
    kwargs = {"inshape": shape, **init_kwargs}
    _check_config(cls, kwargs)
    rng = np.random.default_rng(0)
    # Smooth ones: an interpolated image has a kink where a displacement passes a voxel.
    noise = rng.uniform(size=(2, batch, *shape, 1))
    images = _floats(list(5 * ndimage.gaussian_filter(noise - 0.5, (0, 0, *[2] * len(shape), 0)) + 0.5))
    model, twin = (_seeded(cls, kwargs) for _ in range(2))
    first, second = ([*m.weights, *m(images, training=True)] for m in (model, twin))
    _close(first, second, 0, f"{cls.__name__}: the same seed gives other numbers")
    half = _seeded(cls, {**kwargs, "precision": "bfloat16"})
    half.set_weights(model.get_weights())
    rough = _finite(half(images), f"{cls.__name__} in bfloat16")
    _close(rough, model(images), 5e-2, "bfloat16 is far from float32")

    def difference(values=None):
        if values is not None:
            flow.assign(values)
        return tf.reduce_mean((images[1] - model(images)[0]) ** 2)

    flow = next(w for w in model.trainable_variables if "_flow/kernel" in w.path)
    with tf.GradientTape() as tape:
        total = difference()
    gradient = tape.gradient(total, flow.value)
    _check_derivatives(difference, tf.convert_to_tensor(flow), gradient, f"flow of {cls.__name__}")


def _seeded(cls, kwargs):
    """A model whose displacements are about a voxel: where they are zero, interpolation has a kink."""
    keras.utils.set_random_seed(7)
    model = cls(**kwargs)
    for weight in model.trainable_variables:
        if "_flow/kernel" in weight.path:
            weight.assign(0.1 * keras.random.normal(weight.shape))
    return model


def _check_derivatives(function, x, gradient, what, tolerance=2e-2):
    """The gradient of a scalar function at `x` against differences, along itself and with its entries weighted."""
    if float(tf.norm(_finite(gradient, what))) < 1e-6:
        return  # the function does not change here
    weights = np.random.default_rng(0).uniform(0, 2, size=(2, *x.shape))
    for direction in (gradient, *(gradient * tf.constant(w, x.dtype) for w in weights)):
        step = 1e-2 * direction / tf.norm(direction)
        expected = float(tf.reduce_sum(gradient * step))
        found = float(function(x + step) - function(x - step)) / 2
        assert abs(found - expected) < tolerance * abs(expected), f"{what}: {expected:.4g}, by differences {found:.4g}"


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


def _graph(layer, inputs, sizes):
    """The layer in a graph whose inputs have the given batch and spatial sizes, and channels that are known."""
    specs = _map(lambda x: tf.TensorSpec([*sizes(x), x.shape[-1]], x.dtype), inputs)
    return tf.function(lambda x: layer(x), input_signature=[specs], autograph=False)  # as in `_graph_of_loss`


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
    model.compile("sgd", loss=_loss_function(cls(**kwargs)), run_eagerly=True)  # in a graph it was before
    before = model.evaluate(y_pred, y_true, batch_size=len(y_pred), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loss.keras"
        model.save(path)
        restored = keras.saving.load_model(path)
    restored.run_eagerly = True
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
