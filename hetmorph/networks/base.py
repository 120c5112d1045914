"""What all registration models share: constructor arguments as configuration, loading, prediction helpers."""

import contextlib
import functools
import inspect
import warnings
from collections.abc import Sequence
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from hetmorph.networks import hdf5
from hetmorph.ops.warp import warp
from hetmorph.ops.xla import compiled_kernels
from hetmorph.steps import Registered
from hetmorph.training import Play, Trained, global_mean, replicas
from hetmorph.transforms import Displacement

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def store_config_args(init):
    """Decorate a constructor so that its arguments, defaults included, become the model's configuration.

    An argument `precision` by name makes the layers in that precision; without it, Keras' global policy holds.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        with _layers_in(kwargs.get("precision")):
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

    return wrapper


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


class LoadableModel(Trained, keras.Model):
    """A functional model that is rebuilt from its constructor's arguments.

    `.keras` files keep weights, optimiser and compiled losses. `.h5` files are written in, and read from, the layout
    of voxelmorph 0.2, so that published weights load.
    """

    # Layers that a weight file may lack, e.g. when a VxmDense file is loaded into a HetVxmDense.
    optional_layers: tuple[str, ...] = ()

    def get_config(self):
        return {key: _serialize(value) for key, value in self.config.params.items()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = {key: _deserialize(value, custom_objects) for key, value in config.items()}
        metadata = config.pop("metadata", {})
        model = cls(**config)
        model.metadata.update(metadata)
        return model

    @classmethod
    def load(cls, path, by_name=False, **kwargs):
        """Load a `.keras` file, or rebuild the model of an `.h5` file of this library or of voxelmorph 0.2.

        Args:
            path: file.
            by_name: kept for existing code; weights are always matched by layer name.
            kwargs: constructor arguments that replace the stored ones; the model is not compiled then.
        """
        if str(path).endswith(".keras"):
            model = keras.saving.load_model(path, compile=not kwargs)
            return model if not kwargs else model._rebuilt(**kwargs)
        model = cls.from_config({**cls.load_config(path), **kwargs})
        model.load_weights(str(path))
        compiled = hdf5.read_compile_config(str(path))
        if compiled is not None and not kwargs and model._compile_if_known(compiled, path):
            hdf5.read_optimizer_state(model.optimizers, str(path))
        return model

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

    @property
    def metadata(self) -> dict:
        """Notes of the user's own, stored with the configuration."""
        return self.config.params["metadata"]

    @property
    def optimizers(self) -> list:
        """Optimisers of a compiled model."""
        return [self.optimizer]

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Load weights, from the Keras 2 HDF5 layout by layer name or as Keras 3 does."""
        path = str(filepath)
        if not path.endswith((".h5", ".hdf5")) or path.endswith(".weights.h5") and not hdf5.has_layer_names(path):
            kwargs.pop("by_name", None)
            return super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
        missing = hdf5.assign_layer_weights(self.layers, hdf5.read_layer_weights(path), self.optional_layers)
        if missing:
            print(f"note: {path} has no weights for {', '.join(missing)}; they keep their initial values")

    def save_weights(self, filepath, overwrite=True):
        """Save weights; `.weights.h5` as Keras 3 does, any other `.h5` in the Keras 2 layout."""
        path = str(filepath)
        if not path.endswith(".h5") or path.endswith(".weights.h5"):
            return super().save_weights(filepath, overwrite=overwrite)
        return hdf5.write_layer_weights(self.layers, path)

    def fit(self, x=None, *args, validation_data=None, **kwargs):
        """As `keras.Model.fit`; generators may yield lists, as in VoxelMorph's tutorial, where Keras 3 wants tuples."""
        if inspect.isgenerator(x) or isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # it cannot be shuffled, and Keras warns about its own default
        return super().fit(_in_tuples(x), *args, validation_data=_in_tuples(validation_data), **kwargs)

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


class RegistrationModel(LoadableModel):
    """A model of two images with `references.pos_flow` and `references.y_source`, for one or any spatial size.

    Attributes:
        pre_registered: share of each training batch, from 0 to 1, whose source images are replaced by what the model
            moves them to, without gradient. A network that is to be applied several times (`MultiPass`) meets such
            pairs, and learns here to go on from them. Not for `bidir`.
    """

    pre_registered = 0.0

    def compile(self, *args, terms: Sequence = (), **kwargs):
        """As `keras.Model.compile`, with terms besides the losses of the outputs.

        Args:
            args: of `keras.Model.compile`.
            terms: what else is minimised, `hetmorph.objectives.Term`s of the registered pair; with them `loss` may be
                left out.
            kwargs: of `keras.Model.compile`.
        """
        super().compile(*args, **kwargs)
        self.references.terms = list(terms)
        self.references.term_trackers = [keras.metrics.Mean(name=term.name) for term in terms]

    @property
    def terms(self) -> list:
        """What is minimised besides the losses of the outputs."""
        return getattr(self.references, "terms", [])

    @property
    def metrics(self):
        """The running means of the terms, besides those of every Keras model."""
        return [*super().metrics, *getattr(getattr(self, "references", None), "term_trackers", [])]

    def get_compile_config(self):
        config = super().get_compile_config()
        return config and {**config, "terms": [keras.saving.serialize_keras_object(term) for term in self.terms]}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if getattr(self, "optimizer", None) is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        """As `keras.Model.compute_loss`; 0 where terms alone are minimised."""
        if self.terms and self._compile_loss is None:
            return tf.add_n([tf.reduce_sum(loss) for loss in self.losses] or [tf.zeros([])]) / replicas()
        # Without targets Keras asks before it trains, to make its losses; those that `play` finds have these shapes.
        return super().compute_loss(x, y_pred if y is None else y, y_pred, *args, **kwargs)

    def compute_metrics(self, x, y, y_pred, *args, **kwargs):
        """As `keras.Model.compute_metrics`; without targets as in `compute_loss`."""
        return super().compute_metrics(x, y_pred if y is None else y, y_pred, *args, **kwargs)

    def further_loss(self, play: Play) -> tf.Tensor:
        """The terms, and what `add_loss` added."""
        first = tf.nest.flatten(play.sample_weight)[:1]  # of the images: what weighs nothing there weighs nothing
        total = tf.add_n([keras.ops.mean(loss) for loss in play.registered.added] or [tf.zeros([])]) / replicas()
        for term, tracker in zip(self.terms, getattr(self.references, "term_trackers", []), strict=True):
            value = global_mean(term(play.registered), *first)
            tracker.update_state(value * replicas())
            total += term.weight * value
        return total

    def play(self, x, y, sample_weight, training: bool) -> Play:
        """Register a batch. `y` may be left out: the images are the target."""
        registered, outputs = self(x, training=training, record=True)
        registered.step = tf.convert_to_tensor(self.optimizer.iterations)
        y = self._own_targets(registered) if y is None else y
        return Play(x, y, sample_weight, outputs, training, registered)

    def call(self, inputs, training=None, mask=None, record=False):
        """The outputs; with `record` a `Registered` and the outputs."""
        return self._recorded(inputs, training) if record else super().call(inputs, training=training, mask=mask)

    def _recorded(self, inputs, training) -> tuple[Registered, list]:
        made = self._step_model()(inputs if isinstance(inputs, dict) else tf.nest.flatten(inputs), training=training)
        moved, *rest = outputs = made["outputs"]
        backward = Displacement(made["backward"]) if "backward" in made else None
        registered = Registered(
            made["source"],
            made["target"],
            Displacement(made["displacement"]),
            backward,
            field=rest[-1] if rest else None,
            added=made.get("added", ()),
        )
        registered.moved = moved
        if backward is not None:
            registered.moved_back = rest[0]
        return registered, outputs

    def _step_model(self) -> keras.Model:
        """The model with all that its losses look at; made anew where `add_loss` came after it was made."""
        ref = self.references
        added = getattr(ref, "added_losses", [])
        if getattr(ref, "step_model", None) is None or len(ref.step_model.output.get("added", [])) != len(added):
            outputs = {
                "outputs": self.outputs,
                "displacement": ref.pos_flow,
                "source": ref.source,
                "target": ref.target,
            }
            outputs |= {"added": added} if added else {}
            outputs |= {"backward": ref.neg_flow} if ref.y_target is not None else {}
            ref.step_model = keras.Model(self.inputs, outputs)
        return ref.step_model

    def _own_targets(self, registered: Registered) -> list:
        """Targets for who gives none: the images themselves, and what a penalty of the field does not look at."""
        backward = [] if registered.backward is None else [registered.moving]
        nothing = tf.zeros_like(
            tf.reduce_sum(registered.fixed, axis=range(1, registered.fixed.shape.rank), keepdims=True)
        )
        return [registered.fixed, *backward, nothing]

    @compiled_kernels()
    def train_step(self, data):
        """As `Trained.train_step`, on a batch that is registered in part if `pre_registered` asks for it."""
        return super().train_step(self._partly_registered(data))

    def _partly_registered(self, data):
        """The batch, in which the source images of the first pairs are already moved to their targets."""
        if not self.pre_registered:
            return data
        images, *rest = data
        source, target = (tf.convert_to_tensor(image) for image in tf.nest.flatten(images))
        count = tf.cast(tf.round(self.pre_registered * tf.cast(tf.shape(source)[0], tf.float32)), tf.int32)
        moved = self([source[:count], target[:count]], training=False)[0]
        return ([tf.concat([tf.stop_gradient(moved), source[count:]], axis=0), target], *rest)

    @property
    def inshape(self) -> tuple[int | None, ...]:
        """Spatial size the model was built for; None where any size goes."""
        return tuple(self.config.params["inshape"])

    @property
    def output_keys(self) -> list[str]:
        """Names the outputs had under Keras 2, which existing serving clients know: the name of the layer behind."""
        # Cropping layers do not exist in voxelmorph: their name is that of the layer they crop, plus a suffix.
        return [t._keras_history.operation.name.removesuffix("_crop") for t in self.outputs]

    def with_shape(self, inshape, **arguments):
        """A model with the same weights for images of another spatial size; None entries take any.

        Args:
            inshape: the size.
            arguments: further constructor arguments to change, e.g. `precision`.
        """
        if self.get_config().get("input_model") is not None:
            raise ValueError("a model with input_model is bound to the size of that model's inputs")
        return self._rebuilt(inshape=tuple(inshape), **arguments)

    def register(self, src, trg, *inputs, batch_size=None):
        """Displacement that warps `src` onto `trg`, `[B, *S, N]` voxels on the grid of `trg`.

        Args:
            src, trg: moving and fixed image, `[B, *S, C]` in [0, 1].
            inputs: further inputs of the model, e.g. hyperparameters.

        Raises:
            ValueError: images of different grids, or with NaN or infinite voxels.
        """
        return super().register(*checked_pair(src, trg), *inputs, batch_size=batch_size)


def for_keras(value):
    """A batch as Keras 3 takes it: lists as tuples, float64 and boolean arrays as float32.

    Args:
        value: an array, or lists and tuples of such, nested as the generator has them.
    """
    if isinstance(value, (list, tuple)):
        return tuple(for_keras(v) for v in value)
    convert = isinstance(value, np.ndarray) and value.dtype in (np.float64, bool)
    return value.astype(np.float32) if convert else value


def _in_tuples(data):
    return (for_keras(batch) for batch in data) if inspect.isgenerator(data) else data


def references(**tensors):
    """Container for tensors and layers that Keras shall not track as parts of the model."""
    return SimpleNamespace(**tensors)


def checked_pair(src, trg) -> tuple[np.ndarray, np.ndarray]:
    """Two images as arrays, of the same grid and finite; ValueError otherwise."""
    src, trg = np.asarray(src), np.asarray(trg)
    if src.shape[:-1] != trg.shape[:-1]:
        raise ValueError(f"source and target must share batch and grid, got {src.shape} and {trg.shape}")
    for role, image in (("source", src), ("target", trg)):
        if not np.isfinite(image).all():
            raise ValueError(f"the {role} image has NaN or infinite voxels")
    return src, trg


def _serialize(value):
    if isinstance(value, keras.layers.Layer):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_serialize(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _deserialize(value, custom_objects=None):
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
    return value
