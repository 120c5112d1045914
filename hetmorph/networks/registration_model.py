"""A model that registers two images: its losses and terms, its record of a batch, its sizes."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from hetmorph.losses.within import InMask, counting
from hetmorph.networks.base import LoadableModel, for_keras
from hetmorph.ops.shared import first_sample
from hetmorph.ops.xla import compiled_kernels
from hetmorph.steps import Ends, Registered, check_known, split_known
from hetmorph.steps.known import KINDS
from hetmorph.training import Play, global_mean, replicas
from hetmorph.training.fitting import check_variables
from hetmorph.transforms import Displacement


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
            args: arguments of `keras.Model.compile`.
            terms: what else is minimised, `hetmorph.objectives.Term`s of the registered pair; with them `loss` may be
                left out.
            kwargs: further arguments of `keras.Model.compile`.
        """
        if len({term.name for term in terms}) < len(terms):
            raise ValueError(f"expected terms of different names, received {[term.name for term in terms]}")
        # Keras would go on with the losses and metrics of before where none are given.
        self._compile_loss = self._compile_metrics = self.loss = None
        super().compile(*args, **kwargs)
        if self._compile_loss is not None:  # here, so that a file has the losses that were given
            self._compile_loss._user_loss = InMask.each(self.loss, self.output_names)
        if self.optimizer is not None:
            check_variables(self.optimizer, self.displacement_variables)
        self.references.terms = list(terms)
        self.references.term_trackers = [keras.metrics.Mean(name=term.name) for term in terms]

    @property
    def displacement_variables(self) -> list:
        """Trainable variables of the network that registers."""
        return self.trainable_variables

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
        """As `keras.Model.compute_loss`; 0 where only terms, or what `add_loss` added, are minimised."""
        others = self.terms or getattr(self.references, "added_losses", [])
        if others and self._compile_loss is None:
            return tf.add_n([tf.reduce_sum(loss) for loss in self.losses] or [tf.zeros([])]) / replicas()
        # Without targets Keras asks before it trains, to make its losses; those that `play` finds have these shapes.
        return super().compute_loss(x, y_pred if y is None else y, y_pred, *args, **kwargs)

    def compute_metrics(self, x, y, y_pred, *args, **kwargs):
        """As `keras.Model.compute_metrics`; without targets as in `compute_loss`."""
        return super().compute_metrics(x, y_pred if y is None else y, y_pred, *args, **kwargs)

    def further_loss(self, play: Play) -> tf.Tensor:
        """The terms, and what `add_loss` added."""
        weights, count = play.sample_weight, tf.shape(play.registered.fixed)[0]
        of_image = (
            weights.get(self.output_names[0]) if isinstance(weights, dict) else (tf.nest.flatten(weights) or [None])[0]
        )
        total = tf.add_n([keras.ops.mean(loss) for loss in play.registered.added] or [tf.zeros([])]) / replicas()
        for term, tracker in zip(self.terms, getattr(self.references, "term_trackers", []), strict=True):
            value = global_mean(term(play.registered), of_image)
            tracker.update_state(value * replicas(), sample_weight=count)
            total += term.weight * value
        return total

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`; what is known of the pairs besides goes with the images.

        Args:
            x: `(moving, fixed)`, or `(moving, fixed, known)`, where `known` is a dictionary of some of
                `mask_moving` and `mask_fixed`, `[B, *S]`, not 0 where an image counts in the image losses; and of
                `points_moving` and `points_fixed`, `[B, P, N]` voxels, filled up with NaN, for the term `Landmarks`;
                and of `labels_moving` and `labels_fixed`, whole numbers `[B, *S]`, for the term `Overlap`; and of
                `volume_moving` and `volume_fixed`, `[B, *S]`, what each voxel stands for: then intensities are
                densities, such as Hounsfield units above air, and each moved image conserves its mass, by the
                determinant of the Jacobian, before it is compared. Not for models that predict a variance.
            args, kwargs: arguments of `keras.Model.fit`.

        Raises:
            ValueError: an empty mask, a mask, labels or volumes of another grid, volumes that are not above 0, or
                points that do not belong together or to the images.
        """
        check_known(x)
        images, known = split_known(x)
        return super().fit((*images, for_keras(known)) if known else x, *args, **kwargs)

    def __call__(self, inputs, *args, **kwargs):
        # What is known besides is for the losses; to Keras, the images are what a model is called with.
        return super().__call__(split_known(inputs)[0], *args, **kwargs)

    def _compiled_loss(self, play: Play) -> tf.Tensor:
        views = [view.counted for view in play.registered.views]
        if views[0] is not None:
            self._check_mask_losses()
        with counting(views):
            return super()._compiled_loss(play)

    def _check_mask_losses(self) -> None:
        one_for_all = self.loss is not None and not isinstance(self.loss, (list, tuple, dict))
        others = [loss for loss in tf.nest.flatten(self.loss) if isinstance(loss, keras.losses.Loss) or one_for_all]
        if others:
            raise ValueError(
                "masks need a loss of hetmorph.losses for each output, such as MSE().loss, received "
                f"{'one for all' if one_for_all else f'{type(others[0]).__name__} of Keras'}"
            )

    def play(self, x, y, sample_weight, training: bool) -> Play:
        """Register a batch. `y` may be left out: the images are the target."""
        images, known = split_known(x)
        registered, outputs = self(images, training=training, record=True)
        if known:
            registered.know(*(Ends(*(known.get(f"{what}_{role}") for role in Ends._fields)) for what in KINDS))
            outputs = [*(view.moved for view in registered.views), outputs[-1]]
        if registered.volumes.there() and y is not None:
            raise ValueError("volumes need batches without targets, which are the images themselves, received some")
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
        registered.warped = moved
        if backward is not None:
            registered.warped_back = rest[0]
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
        nothing = tf.zeros_like(
            tf.reduce_sum(registered.fixed, axis=range(1, registered.fixed.shape.rank), keepdims=True)
        )
        return [*(view.fixed for view in registered.views), nothing]

    @compiled_kernels()
    def train_step(self, data):
        """As `Trained.train_step`, on a batch that is registered in part if `pre_registered` asks for it."""
        return super().train_step(self._partly_registered(data))

    def _partly_registered(self, data):
        """The batch, in which the source images of the first pairs are already moved to their targets."""
        if not self.pre_registered:
            return data
        images, *rest = data
        if split_known(images)[1]:
            raise ValueError(
                "expected pre_registered 0 with masks, points or labels, which do not follow a moved image"
            )
        source, target = (tf.convert_to_tensor(image) for image in tf.nest.flatten(images))
        count = self._count_before(tf.shape(source)[0])
        moved = tf.stop_gradient(self._moved([source[:count], target[:count]], count))
        return ([tf.concat([moved, source[count:]], axis=0), target], *rest)

    def _count_before(self, own: tf.Tensor) -> tf.Tensor:
        """How many of this replica's samples are among the first of the whole batch, which are registered before."""
        whole = own * replicas()
        count = tf.cast(tf.round(self.pre_registered * tf.cast(whole, tf.float32)), tf.int32)
        return tf.clip_by_value(count - first_sample(own), 0, own)

    def _moved(self, images: list[tf.Tensor], count: tf.Tensor) -> tf.Tensor:
        if replicas() == 1:
            return self(images, training=False)[0]
        # One of several may have none, and convolutions of no samples fail.
        return tf.cond(count > 0, lambda: self(images, training=False)[0], lambda: images[0])

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


def checked_pair(src, trg) -> tuple[np.ndarray, np.ndarray]:
    """Two images as arrays, of the same grid and finite; ValueError otherwise."""
    src, trg = np.asarray(src), np.asarray(trg)
    if src.shape[:-1] != trg.shape[:-1]:
        raise ValueError(f"source and target must share batch and grid, got {src.shape} and {trg.shape}")
    for role, image in (("source", src), ("target", trg)):
        if not np.isfinite(image).all():
            raise ValueError(f"the {role} image has NaN or infinite voxels")
    return src, trg
