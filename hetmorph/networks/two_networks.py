"""A registration model with a second network that estimates the noise variance of every voxel."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.losses.within import voxelwise_within
from hetmorph.networks import hdf5
from hetmorph.networks.variance import variance_network
from hetmorph.objectives import Phase, phase, warm_start_length
from hetmorph.ops import fields
from hetmorph.steps import Registered, View
from hetmorph.training import Play, Player, fitting, global_mean, replicas


class TwoNetworks:
    """Mixin before a registration model: a variance network, two optimisers, and the step that trains both.

    A constructor calls `_add_variance_network` after the registration model's. What the networks minimise is a
    `Heteroscedastic` (each its own loss, a weight between them) or a `JointLikelihood` (one loss for both).
    """

    def _add_variance_network(self, objective, features, bounds, resolution, warm_start, variance_pass) -> None:
        ref = self.references
        source_feats, target_feats = ref.source.shape[-1], ref.target.shape[-1]
        if source_feats != target_feats:
            raise ValueError(
                f"the residual needs images of equal channels, got src_feats={source_feats}, trg_feats={target_feats}"
            )
        grid, slabs = tuple(ref.target.shape[1:-1]), self.config.params.get("slabs", 1)
        name = f"{self.name}_variance"
        self.variance_network = variance_network(grid, features, target_feats, bounds, name, slabs, resolution)
        if self.variance_network not in self._layers:
            # Keras up to 3.13 at least does not track a layer that is set on a functional model.
            self._layers.append(self.variance_network)
        self.image_loss_tracker = keras.metrics.Mean(name="image_loss")
        self.smoothness_tracker = keras.metrics.Mean(name="smoothness")
        self.variance_loss_tracker = keras.metrics.Mean(name="variance_loss")
        self.weight_tracker = keras.metrics.Mean(name="mean_weight")
        self.folds_tracker = keras.metrics.Mean(name="folds_percent")
        self.optional_layers = (self.variance_network.name,)
        ref.objective = objective
        ref.warm_start, ref.variance_pass = warm_start, variance_pass
        ref.phase = Phase.JOINT
        ref.full_model = full_model(self, self.inputs, ref.source, ref.target, ref.pos_flow, ref.y_source)

    # -- inference ------------------------------------------------------------------------------------------------

    def variance(self, src, trg, batch_size=None):
        """log σ_I² of the residual `trg − moved src`, `[B, *S, C]`, natural logarithm of squared intensity."""
        return self.predict_all(src, trg, batch_size)["log_variance"]

    def snr_weight(self, src, trg, batch_size=None):
        """Weight w of every voxel of `trg` in the displacement loss, `[B, *S, C]`."""
        return self.predict_all(src, trg, batch_size)["weight"]

    def predict_all(self, src, trg, batch_size=None) -> dict[str, np.ndarray]:
        """Everything one registration yields: `displacement` (voxels), `moved`, `log_variance` and `weight`."""
        return self.references.full_model.predict([src, trg], batch_size=batch_size, verbose=0)

    @property
    def layers(self):
        """Layers of the displacement network, and the variance network as one layer."""
        return [*super().layers, *([self.variance_network] if hasattr(self, "variance_network") else [])]

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """As every model; a file that Keras 3 wrote of the registration model alone leaves the variance network."""
        path = str(filepath)
        if path.endswith((".weights.h5", ".keras")) and not skip_mismatch and not hdf5.has_layer_names(path):
            registering = keras.Model(self.inputs, self.outputs)
            if hdf5.count_weights(path) == len(registering.variables):
                registering.load_weights(path)
                print(f"note: {path} has no weights for {self.variance_network.name}; they keep their initial values")
                return None
        return super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    # -- training -------------------------------------------------------------------------------------------------

    def compile(self, optimizer=None, loss=None, loss_weights=None, metrics=None, variance_optimizer=None, **kwargs):
        """Configure training.

        Args:
            optimizer: optimiser of the displacement network; None takes the paper's Adam(1e-4).
            loss: as for `VxmDense`: one image loss (two with `bidir`) and one loss of the field. The image loss must
                be known voxel by voxel to be weighted: MSE, NCC or TukeyBiweight. None takes the paper's
                `MSE` and `Grad("l2", loss_mult=int_resolution)`, λ = 0.01, both directions halved with `bidir`.
            loss_weights: one per loss, the last is λ.
            variance_optimizer: optimiser of the variance network; None copies `optimizer`, and follows where the
                learning rate of that one alone is changed. `optimizers` are both.
            kwargs: further arguments of `keras.Model.compile`.
        """
        if loss is None:
            loss, default_weights = self._paper_losses()
            loss_weights = default_weights if loss_weights is None else loss_weights
        optimizer = keras.optimizers.Adam(1e-4) if optimizer is None else keras.optimizers.get(optimizer)
        variance_optimizer = self._second_optimizer(optimizer, variance_optimizer)
        self._set_losses(loss, loss_weights)
        # Keras' own sum of losses is not used: it knows neither the weights of voxels nor the second network.
        super().compile(optimizer, metrics=metrics, **kwargs)
        self.loss, self.loss_weights = loss, loss_weights
        self.variance_optimizer = variance_optimizer
        if _scales_loss(self.optimizer) and not _scales_loss(self.variance_optimizer):
            self.variance_optimizer = keras.optimizers.LossScaleOptimizer(self.variance_optimizer)
        ref = self.references
        ref.trained = self.displacement_variables, self.variance_network.trainable_variables
        for one, variables in zip(self.optimizers, ref.trained, strict=True):
            fitting.check_variables(one, variables)
            if not one.built:
                one.build(variables)
        ref.rates = [fitting.constant_rate(one) for one in self.optimizers]

    def _second_optimizer(self, optimizer, given) -> keras.optimizers.Optimizer:
        ref = self.references
        before, ref.first_optimizer = getattr(ref, "first_optimizer", None), optimizer
        was_copied, ref.copied = getattr(ref, "copied", False), given is None
        if given is not None:
            given = keras.optimizers.get(given)
            if given is optimizer:
                raise ValueError(
                    "expected an optimizer for each network, received one for both; without variance_optimizer it is "
                    "copied"
                )
            return given
        if optimizer is before and was_copied:
            return self.variance_optimizer  # with its state, which the other one keeps too
        return type(optimizer).from_config(optimizer.get_config())

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            second = None if self.references.copied else self.variance_optimizer
            own = {"loss": self.loss, "loss_weights": self.loss_weights, "variance_optimizer": second}
            config |= {name: keras.saving.serialize_keras_object(value) for name, value in own.items()}
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    @property
    def optimizers(self):
        return [self.optimizer, self.variance_optimizer]

    @property
    def displacement_variables(self):
        """Trainable variables of the displacement network."""
        of_variance = {id(v) for v in self.variance_network.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in of_variance]

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, *args, **kwargs):
        """Train as `keras.Model.fit`, with the warm-start schedule. `y` may be left out: the images are the target.

        Callbacks that act on the optimiser act on both. Those that watch a value, such as `EarlyStopping`,
        `ReduceLROnPlateau` and `ModelCheckpoint(save_best_only=True)`, begin when both networks are trained: before,
        the value is another one, or is not trained at all.
        """
        callbacks = fitting.for_both(callbacks, self, [_WarmStart(epochs)], [_FollowedRate()])
        watching = fitting.watching(getattr(callbacks, "callbacks", callbacks))
        if watching and epochs <= self.warm_up_epochs(epochs):
            warnings.warn(
                f"{type(watching[0]).__name__} waits for the phase in which both networks are trained, and {epochs} "
                f"epochs with warm_start={self.references.warm_start} end before",
                stacklevel=2,
            )
        with fitting.asleep(watching, self):
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, steps=None, callbacks=None, **kwargs
    ):
        """As `keras.Model.evaluate`; callbacks that act on the optimiser act on both."""
        if not isinstance(callbacks, keras.callbacks.CallbackList):  # that of `fit`, which has its twins
            callbacks = fitting.for_both(callbacks, self)
        return super().evaluate(x, y, batch_size, verbose, sample_weight, steps, callbacks, **kwargs)

    @property
    def warming_up(self) -> bool:
        """Whether one of the two networks rests."""
        return self.references.phase is not Phase.JOINT

    def warm_up_epochs(self, epochs: int) -> int:
        """How many epochs of a training pass before both networks are trained.

        Args:
            epochs: number of epochs of the whole training.
        """
        return 2 * warm_start_length(epochs, self.references.warm_start)

    def set_epoch(self, epoch: int, epochs: int):
        """Enter the phase of an epoch; `fit` does this, a loop of `train_on_batch` may."""
        current = phase(epoch, epochs, self.references.warm_start)
        if current is not self.references.phase:
            self.references.phase = current
            # Each phase is a graph of its own, so that a step computes nothing it does not use.
            self.train_function = self.test_function = None
            if self.compiled:
                self.make_train_function(force=True)

    def players(self) -> list[Player]:
        """The displacement network, and the variance network; either rests while the other warms up."""
        current, anew = self.references.phase, self.references.variance_pass == "recompute"
        displacement, variance = self.references.trained  # as Keras: what is trainable is settled by `compile`
        return [
            Player(
                self._displacement_loss,
                displacement,
                self.optimizer,
                active=current is not Phase.VARIANCE,
            ),
            Player(
                self._variance_loss,
                variance,
                self.variance_optimizer,
                active=current is not Phase.DISPLACEMENT,
                anew=anew and current is Phase.JOINT,
            ),
        ]

    def play(self, x, y, sample_weight, training: bool) -> Play:
        """As every registration model; the record can say the log σ² of each view's residual."""
        play = super().play(x, y, sample_weight, training)
        registered = play.registered
        if registered.volumes.there():
            raise ValueError(f"to conserve mass needs a model without a variance network, received {self.name}")
        play.y = play.y if not isinstance(y, dict) else [y.get(name) for name in self.output_names]
        self._check_one_each(play.y, "target")
        registered.views = [
            view._replace(fixed=tf.cast(fixed, tf.float32))
            for fixed, view in zip(play.y, registered.views, strict=False)
        ]
        registered.read_variance = lambda view: self._log_variance(view, training)
        return play

    def _displacement_loss(self, play: Play) -> tf.Tensor:
        registered, objective = play.registered, self.references.objective
        *image_weights, field_weight = self._sample_weights(play.sample_weight)
        weights = self._voxel_weights(registered)
        image_loss = 0.0
        parts = zip(
            registered.views, registered.log_variances, weights, self._image_losses, self._loss_weights, image_weights,
            strict=False,
        )  # fmt: skip
        for view, log_variance, weight, loss, scale, of_samples in parts:
            where = None if view.counted is None else view.counted.weight
            dissimilarity = tf.cast(loss(view.fixed, view.moved, where), tf.float32)
            values = objective.image_loss(dissimilarity, log_variance, weight, view.counted)
            image_loss += scale * global_mean(values, of_samples)
        smoothness = tf.zeros([])
        if self._field_loss is not None:
            smoothness = global_mean(self._field_loss(play.y[-1], registered.field), field_weight)
        loss = image_loss + self._loss_weights[-1] * smoothness
        loss += self._layer_losses(super().layers) + self.further_loss(play)
        self.note_loss(loss, play)
        folds = fields.jacobian_determinant(registered.displacement) <= 0
        shown = {
            self.image_loss_tracker: image_loss * replicas(),
            self.smoothness_tracker: smoothness * replicas(),
            self.folds_tracker: 100 * tf.reduce_mean(tf.cast(folds, tf.float32)),
            self.weight_tracker: tf.add_n([tf.reduce_mean(w) for w in weights]) / len(weights),
        }
        for tracker, value in shown.items():
            tracker.update_state(value, sample_weight=tf.shape(registered.fixed)[0])
        return loss

    def _variance_loss(self, play: Play) -> tf.Tensor:
        likelihood, registered = self.references.objective.variance_loss, play.registered
        of_samples = self._sample_weights(play.sample_weight)
        losses = [
            global_mean(likelihood(view.fixed, view.moved, log_variance, view.counted), weight)
            for view, log_variance, weight in zip(registered.views, registered.log_variances, of_samples, strict=False)
        ]
        loss = tf.add_n(losses) / len(losses)
        self.variance_loss_tracker.update_state(loss * replicas(), sample_weight=tf.shape(registered.fixed)[0])
        return loss + self._layer_losses([self.variance_network])

    def _layer_losses(self, layers: list) -> tf.Tensor:
        """Regularisers and what layers added, of one of the networks."""
        values = [tf.cast(tf.reduce_sum(loss), tf.float32) for layer in layers for loss in layer.losses]
        return tf.add_n(values) / replicas() if values else tf.zeros([])

    def _voxel_weights(self, registered: Registered) -> list[tf.Tensor]:
        views = registered.views
        if self.references.phase is not Phase.JOINT:
            return [tf.ones_like(view.fixed) for view in views]
        weight = self.references.objective.weight
        seen = zip(views, registered.log_variances, strict=True)
        return [weight(s, view.fixed, view.moving, view.counted) for view, s in seen]

    def _log_variance(self, view: View, training: bool) -> tf.Tensor:
        # The published code forgot to detach the moved image, which leaked the loss of the variance network into the
        # displacement network. The joint likelihood wants just that.
        moved = view.moved if self.references.objective.joint else tf.stop_gradient(view.moved)
        return self.variance_network(tf.concat([moved, view.fixed], axis=-1), training=training)

    def _sample_weights(self, sample_weight) -> list:
        """Weights of the samples for each output; one array stands for all of them."""
        if isinstance(sample_weight, dict):
            return [sample_weight.get(name) for name in self.output_names]
        if isinstance(sample_weight, (list, tuple)):
            return self._check_one_each(list(sample_weight), "sample weight")
        return [sample_weight] * len(self.outputs)

    def _check_one_each(self, values, what: str):
        if len(values) != len(self.outputs):
            raise ValueError(f"expected a {what} for each of {self.output_names}, received {len(values)}")
        return values

    def _paper_losses(self):
        params = self.config.params
        smoothness = Grad("l2", loss_mult=params["int_resolution"] if params.get("int_steps", 0) > 0 else 1).loss
        if self.references.y_target is None:
            return [MSE().loss, smoothness], [1.0, 0.01]
        return [MSE().loss, MSE().loss, smoothness], [0.5, 0.5, 0.01]

    def _set_losses(self, loss, loss_weights):
        loss = [loss.get(n) for n in self.output_names] if isinstance(loss, dict) else loss
        if not isinstance(loss, (list, tuple)) or len(loss) != len(self.outputs):
            raise ValueError(
                f"{type(self).__name__} needs one loss for each of its {len(self.outputs)} outputs, got {loss!r}"
            )
        if isinstance(loss_weights, dict):
            loss_weights = [loss_weights[n] for n in self.output_names]
        self._image_losses = [voxelwise_within(part) for part in loss[:-1]]
        if self.references.objective.joint and not all(_is_squared_residual(part) for part in self._image_losses):
            raise ValueError(
                "a likelihood is one of the squared residual: its image loss must be MSE(), neither scaled nor smoothed"
            )
        self._field_loss = None if loss[-1] is None else keras.losses.get(loss[-1])
        self._loss_weights = [1.0] * len(loss) if loss_weights is None else [float(w) for w in loss_weights]


def full_model(model: TwoNetworks, inputs: list, source, target, displacement, moved) -> keras.Model:
    """Model of what `TwoNetworks.predict_all` says of one registration, by the variance network of `model`."""
    log_variance = model.variance_network(keras.layers.Concatenate(dtype="float32")([moved, target]))
    weight = _Weight(model.references.objective, dtype="float32")([log_variance, target, source])
    outputs = {"displacement": displacement, "moved": moved, "log_variance": log_variance, "weight": weight}
    return keras.Model(inputs, outputs)


class _Weight(keras.layers.Layer):
    """Weight of each voxel from `[log_variance, fixed, moving]`."""

    def __init__(self, objective, **kwargs):
        super().__init__(**kwargs)
        self.objective = objective

    def call(self, inputs):
        return self.objective.weight(*inputs)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])


class _WarmStart(keras.callbacks.Callback):
    """Tell the model which epoch begins, and give the variance network its averages in the end, as Keras the other."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        for optimizer in self.model.optimizers:
            fitting.begin_averages(optimizer)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_epoch(epoch, self.epochs)

    def on_train_end(self, logs=None):
        self.model.variance_optimizer.finalize_variable_values(self.model.references.trained[1])


class _FollowedRate(keras.callbacks.Callback):
    """After the other callbacks: a copied optimiser follows where the learning rate of the first alone was changed."""

    def on_train_begin(self, logs=None):
        self._follow()

    def on_epoch_begin(self, epoch, logs=None):
        self._follow()

    def on_epoch_end(self, epoch, logs=None):
        self._follow()

    def _follow(self) -> None:
        ref, optimizers = self.model.references, self.model.optimizers
        before, now = ref.rates, [fitting.constant_rate(optimizer) for optimizer in optimizers]
        if ref.copied and None not in now and now[0] != before[0] and now[1] == before[1]:
            optimizers[1].learning_rate = now[1] * now[0] / before[0] if before[0] else now[0]
        ref.rates = [fitting.constant_rate(optimizer) for optimizer in optimizers]


def _is_squared_residual(voxelwise) -> bool:
    owner = getattr(voxelwise, "__self__", None)
    return isinstance(owner, MSE) and owner.image_sigma == 1 and not owner.smoothing


def _scales_loss(optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
