"""What all models share: constructor arguments as configuration, loading, prediction helpers."""

import contextlib
import functools
import inspect
import re
import warnings
from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from hetmorph.configured import plain
from hetmorph.networks import hdf5
from hetmorph.ops.warp import warp
from hetmorph.training import Trained

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def store_config_args(init):
    """Decorate a constructor so that its arguments, defaults included, become the model's configuration.

    An argument `precision` by name makes the layers in that precision; without it, Keras' global policy holds.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        _refuse_tensors(type(self), args)
        with _layers_in(kwargs.get("precision")), _channels_last():
            init(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        # A decorated parent constructor has stored its own arguments, also those passed on by position.
        arguments = dict(self.config.params) if "config" in vars(self) else {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(value)
            elif kind is not inspect.Parameter.VAR_POSITIONAL:
                arguments[name] = value
        self.config = SimpleNamespace(params={**arguments, "metadata": {}})

    wrapper.__signature__ = signature  # Keras fails on a constructor of defaults alone that it sees in two ways
    return wrapper


def _refuse_tensors(cls: type, args: tuple) -> None:
    """`keras.models.clone_model` takes every functional model for one that is made of inputs and outputs."""
    if any(isinstance(leaf, keras.KerasTensor) for leaf in tf.nest.flatten(args[:1])):
        raise ValueError(
            f"expected the arguments of {cls.__name__}, received tensors, as keras.models.clone_model gives them: "
            f"{cls.__name__}.from_config(model.get_config()) makes the same model with new weights"
        )


@contextlib.contextmanager
def _layers_in(precision: str | None):
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {tuple(PRECISIONS)}, got {precision!r}")
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(before if precision is None else PRECISIONS[precision])
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


@contextlib.contextmanager
def _channels_last():
    """Layers of others, such as neurite's, put the channels where Keras' setting says; here they are last."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


class LoadableModel(Trained, keras.Model):
    """A functional model that is rebuilt from its constructor's arguments.

    `.keras` files keep weights, optimiser and compiled losses. `.h5` files are written in, and read from, the layout
    of voxelmorph 0.2, so that published weights load.
    """

    # Layers that a weight file may lack, e.g. when a VxmDense file is loaded into a HetVxmDense.
    optional_layers: tuple[str, ...] = ()

    def get_config(self):
        config = {key: plain(value) for key, value in self.config.params.items()}
        frozen = _frozen(self)
        return {**config, "frozen": frozen} if frozen else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = {key: _deserialize(value, custom_objects) for key, value in config.items()}
        metadata, frozen = config.pop("metadata", {}), config.pop("frozen", ())
        model = cls(**config)
        model.metadata.update(metadata)
        for name, layer in _numbered_parts(model):
            if name in frozen:
                layer.trainable = False
        return model

    @classmethod
    def load(cls, path, by_name=False, **kwargs):
        """Load a `.keras` file, or rebuild the model of an `.h5` file of this library or of voxelmorph 0.2.

        Args:
            path: file.
            by_name: kept for existing code; weights are always matched by layer name.
            kwargs: constructor arguments that replace the stored ones; the model is not compiled then.

        Returns:
            A model of the file's class; where that is no kind of this one, a model of this class with its weights.

        Raises:
            ValueError: a file of weights only, or of a model of which this class cannot be made.
        """
        if str(path).endswith(".keras"):
            model = keras.saving.load_model(path, compile=not kwargs)
            if isinstance(model, cls):
                return model if not kwargs else model._rebuilt(**kwargs)
            made = cls._made({**model.get_config(), **kwargs}, path, type(model).__name__)
            made._take(hdf5.layer_weights(model.layers), path)
            return made
        config, name = cls.load_config(path), hdf5.read_class(path)
        stored_as = keras.saving.get_registered_object(name) if name.startswith("hetmorph>") else None
        kind = stored_as if stored_as is not None and issubclass(stored_as, cls) else cls
        model = kind._made({**config, **kwargs} if isinstance(config, dict) else {}, path, name.split(">")[-1])
        model.load_weights(str(path))
        compiled = hdf5.read_compile_config(str(path))
        if compiled is not None and not kwargs and model._compile_if_known(compiled, path):
            hdf5.read_optimizer_state(model.optimizers, str(path))
        return model

    @classmethod
    def _made(cls, config: dict, path, stored_as: str):
        """A model of a file's configuration, or an error that says of what the file is."""
        try:
            return cls.from_config(config)
        except TypeError as error:  # arguments that the class has not, or lacks
            raise ValueError(
                f"expected a file of a {cls.__name__}, received {path}, which holds a {stored_as}, of which none can "
                f"be made ({error})"
            ) from error

    load_config = staticmethod(hdf5.read_config)

    def _compile_if_known(self, compiled: dict, path) -> bool:
        """Compile as stored, unless with a loss of the program's own that no file can hold."""
        try:
            self.compile_from_config(compiled)
        except (TypeError, ValueError) as error:
            warnings.warn(
                f"{path} was compiled with what cannot be restored; compile the model anew: {error}", stacklevel=3
            )
            return False
        return True

    def _rebuilt(self, **kwargs):
        """The same weights in a model with other constructor arguments."""
        model = type(self).from_config({**self.get_config(), **kwargs})
        model.set_weights(self.get_weights())
        return model

    def save(self, filepath, overwrite=True, **kwargs):
        """Save the whole model: `.keras`, or `.h5` in the layout of voxelmorph 0.2 with the training state added.

        `load` restores either, compiled; `keras.saving.load_model` restores an `.h5` file without its optimiser.
        """
        if self.compiled and not self.optimizer.built:
            # Without a step it has no state yet, which the file would lack and `load` would look for.
            self.optimizer.build(self.trainable_variables)
        if not str(filepath).endswith((".h5", ".hdf5")):
            return super().save(filepath, overwrite=overwrite, **kwargs)
        super().save(filepath, overwrite=overwrite, include_optimizer=False)
        hdf5.name_layers(self.layers, str(filepath))
        return hdf5.write_training_state(self, self.optimizers if self.compiled else [], str(filepath))

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """As `keras.Model.export`; as ONNX without a call before, which Keras asks for although the graph is there."""
        if format == "onnx" and input_signature is None:
            input_signature = [[keras.InputSpec(x.dtype, (None, *x.shape[1:]), name=x.name) for x in self.inputs]]
        return super().export(filepath, format, verbose, input_signature, **kwargs)

    @property
    def metadata(self) -> dict:
        """Notes of the user's own, stored with the configuration."""
        return self.config.params["metadata"]

    @property
    def optimizers(self) -> list:
        """Optimisers of a compiled model."""
        return [self.optimizer]

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Load weights, from the Keras 2 HDF5 layout by layer name or as Keras 3 does.

        Args:
            filepath: `.h5` in either layout, or `.keras`.
            skip_mismatch: take the layers whose names and shapes fit, and leave the others as they are.
            kwargs: further arguments of `keras.Model.load_weights`; `by_name` has no effect.
        """
        path = str(filepath)
        if path.endswith((".h5", ".hdf5")) and not (path.endswith(".weights.h5") and not hdf5.has_layer_names(path)):
            return self._take(hdf5.read_layer_weights(path), path, skip_mismatch)
        named = hdf5.read_named_weights(path) if skip_mismatch and path.endswith((".h5", ".keras")) else {}
        if named:
            return _note(hdf5.assign_layer_weights(hdf5.parts(self), named, skip_mismatch=True), path)
        kwargs.pop("by_name", None)
        return super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    def _take(self, stored: dict[str, list[np.ndarray]], path, skip_mismatch=False) -> None:
        _note(hdf5.assign_layer_weights(self.layers, stored, self.optional_layers, skip_mismatch), path)

    def save_weights(self, filepath, overwrite=True):
        """Save weights; `.weights.h5` as Keras 3 does, any other `.h5` in the Keras 2 layout."""
        path = str(filepath)
        if not path.endswith(".h5") or path.endswith(".weights.h5"):
            return super().save_weights(filepath, overwrite=overwrite)
        return hdf5.write_layer_weights(self.layers, path)

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`; generators and data sets may give lists, as VoxelMorph's do; Keras 3 wants tuples."""
        given = inspect.signature(super().fit).bind(x, *args, **kwargs).arguments
        if inspect.isgenerator(x) or isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
            given.setdefault("shuffle", False)  # it cannot be shuffled, and Keras warns about its own default
        given |= {name: _in_tuples(given[name]) for name in ("x", "validation_data") if name in given}
        return super().fit(**given)

    def evaluate(self, x=None, *args, **kwargs):
        """As `keras.Model.evaluate`; generators as in `fit`."""
        return super().evaluate(_in_tuples(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`; generators as in `fit`."""
        return super().predict(_in_tuples(x), *args, **kwargs)

    def add_loss(self, loss):
        """Add a loss: a value, in a layer's `call`, or a symbolic tensor made of the model's tensors.

        Keras 3 takes values only. SynthMorph's training has its targets inside the model and needs the second.
        """
        if not isinstance(loss, keras.KerasTensor):
            # The functional model in between refuses every loss.
            return keras.layers.Layer.add_loss(self, loss)
        losses = [*getattr(self.references, "added_losses", []), loss]
        self.references.added_losses = losses
        self.references.model_with_losses = keras.Model(self.inputs, [*self.outputs, *losses])

    def call(self, inputs, training=None, mask=None, **kwargs):
        # Models of one input are called with an image or with a list of one; Keras would warn about the former.
        inputs = inputs if isinstance(inputs, dict) else tf.nest.flatten(inputs)
        model = getattr(getattr(self, "references", None), "model_with_losses", None)
        if model is None:
            return super().call(inputs, training=training, mask=mask, **kwargs)
        values = model(inputs, training=training)
        for loss in values[len(self.outputs) :]:
            keras.layers.Layer.add_loss(self, keras.ops.mean(loss))
        return values[: len(self.outputs)]

    def get_registration_model(self):
        """Model with the same inputs whose only output is the displacement, `[B, *S, N]` voxels."""
        return keras.Model(self.inputs, self.references.pos_flow)

    def register(self, src, trg, *inputs, batch_size=None):
        """Displacement that warps `src` onto `trg`.

        Args:
            src, trg: moving and fixed image, `[B, *S, C]`, intensities in [0, 1].
            inputs: further inputs of the model, e.g. hyperparameters.

        Returns:
            `[B, *S, N]` numpy array in voxels on the grid of `trg`.
        """
        return self._registration_model().predict([src, trg, *inputs], batch_size=batch_size, verbose=0)

    def apply_transform(self, src, trg, img, interp_method="linear"):
        """Warp `img` (`[B, *S, C]`, e.g. labels of `src`) by the displacement of `register(src, trg)`."""
        return warp(np.asarray(img, np.float32), self.register(src, trg), interp_method).numpy()

    def _registration_model(self):
        # predict() traces a graph per model object: one object serves all calls. Held in the untracked references.
        if not hasattr(self.references, "registration_model"):
            self.references.registration_model = self.get_registration_model()
        return self.references.registration_model


def _frozen(model: keras.Model) -> list[str]:
    """The layers that are not trainable; those inside such a layer are not listed."""
    frozen = []
    for name, layer in _numbered_parts(model):
        if not layer.trainable and not name.startswith(tuple(f"{outer}/" for outer in frozen)):
            frozen.append(name)
    return frozen


def _numbered_parts(model: keras.Model):
    """Every layer inside a model, by names that hold in another program too, where Keras numbers layers otherwise."""
    names, seen = {"": ""}, Counter()
    for name, layer in hdf5.parts(model):
        outer, _, own = name.rpartition("/")
        kind = f"{names[outer]}{re.sub(r'_[0-9]+$', '', own)}"
        seen[kind] += 1
        names[name] = f"{kind}:{seen[kind]}/"
        yield names[name].removesuffix("/"), layer


def _note(kept: list[str], path) -> None:
    if kept:
        print(f"note: {path} has no weights that fit {', '.join(kept)}; they keep their initial values")


def for_keras(value):
    """A batch as Keras 3 takes it: lists as tuples, float64 and boolean arrays as float32.

    Args:
        value: an array, or lists, tuples and dictionaries of such, nested as the generator has them.
    """
    if isinstance(value, (list, tuple)):
        return tuple(for_keras(v) for v in value)
    if isinstance(value, dict):
        return {name: for_keras(v) for name, v in value.items()}
    convert = isinstance(value, np.ndarray) and value.dtype in (np.float64, bool)
    return value.astype(np.float32) if convert else value


def _in_tuples(data):
    if inspect.isgenerator(data):
        return (for_keras(batch) for batch in data)
    return _Tuples(data) if isinstance(data, keras.utils.PyDataset) else data


class _Tuples(keras.utils.PyDataset):
    """The batches of another data set, as Keras 3 takes them."""

    def __init__(self, batches: keras.utils.PyDataset):
        super().__init__(batches.workers, batches.use_multiprocessing, batches.max_queue_size)
        self.batches = batches

    def __getitem__(self, index: int):
        return for_keras(self.batches[index])

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def num_batches(self) -> int | None:
        return self.batches.num_batches

    def on_epoch_begin(self) -> None:
        getattr(self.batches, "on_epoch_begin", lambda: None)()

    def on_epoch_end(self) -> None:
        self.batches.on_epoch_end()


def references(**tensors):
    """Container for tensors and layers that Keras shall not track as parts of the model."""
    return SimpleNamespace(**tensors)


def _deserialize(value, custom_objects=None):
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
    return value
