"""A registration model with a second network that estimates the noise variance of every voxel."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hetmorph.losses import MSE, Grad
from hetmorph.losses.voxelwise import voxelwise_loss
from hetmorph.networks.variance import variance_network
from hetmorph.objectives import Phase, phase
from hetmorph.ops import fields
from hetmorph.ops.xla import compiled_kernels


class View(NamedTuple):
    """One direction of a registration: the moved image is compared with the fixed one."""

    fixed: tf.Tensor
    moved: tf.Tensor
    moving: tf.Tensor


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
        ref.step_model = keras.Model(self.inputs, [*self.outputs, ref.pos_flow, ref.source, ref.target])
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

    # -- training -------------------------------------------------------------------------------------------------

    def compile(self, optimizer=None, loss=None, loss_weights=None, metrics=None, variance_optimizer=None, **kwargs):
        """Configure training.

        Args:
            optimizer: of the displacement network; None takes the paper's Adam(1e-4).
            loss: as for `VxmDense`: one image loss (two with `bidir`) and one loss of the field. The image loss must
                be known voxel by voxel to be weighted: MSE, NCC or TukeyBiweight. None takes the paper's
                `MSE` and `Grad("l2", loss_mult=int_resolution)`, λ = 0.01, both directions halved with `bidir`.
            loss_weights: one per loss, the last is λ.
            variance_optimizer: of the variance network; None copies `optimizer`.
            kwargs: further arguments of `keras.Model.compile`.
        """
        if loss is None:
            loss, default_weights = self._paper_losses()
            loss_weights = default_weights if loss_weights is None else loss_weights
        optimizer = keras.optimizers.Adam(1e-4) if optimizer is None else keras.optimizers.get(optimizer)
        if variance_optimizer is None:
            variance_optimizer = type(optimizer).from_config(optimizer.get_config())
        self._set_losses(loss, loss_weights)
        super().compile(optimizer, loss=loss, loss_weights=loss_weights, metrics=metrics, **kwargs)
        self.variance_optimizer = keras.optimizers.get(variance_optimizer)
        if _scales_loss(self.optimizer) and not _scales_loss(self.variance_optimizer):
            self.variance_optimizer = keras.optimizers.LossScaleOptimizer(self.variance_optimizer)
        self.optimizer.build(self.displacement_variables)
        self.variance_optimizer.build(self.variance_network.trainable_variables)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            config["variance_optimizer"] = keras.saving.serialize_keras_object(self.variance_optimizer)
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

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """Train as `keras.Model.fit`, with the warm-start schedule. `y` may be left out: the images are the target."""
        callbacks = [_WarmStart(epochs), *(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def set_epoch(self, epoch: int, epochs: int):
        """Enter the phase of an epoch; `fit` does this, a loop of `train_on_batch` may."""
        current = phase(epoch, epochs, self.references.warm_start)
        if current is not self.references.phase:
            self.references.phase = current
            # Each phase is a graph of its own, so that a step computes nothing it does not use.
            self.train_function = self.test_function = None
            if self.compiled:
                self.make_train_function(force=True)

    @compiled_kernels()
    def train_step(self, data):
        x, y = self._unpack(self._partly_registered(data))
        current = self.references.phase
        with tf.GradientTape() as tape, tf.GradientTape() as variance_tape:
            loss, variance_loss, _ = self._both_losses(x, y, training=True)
            scaled = self.optimizer.scale_loss(loss)
            scaled_variance = self.variance_optimizer.scale_loss(variance_loss)
        if current is not Phase.VARIANCE:
            variables = self.displacement_variables
            self.optimizer.apply(tape.gradient(scaled, variables), variables)
        if current is Phase.JOINT and self.references.variance_pass == "recompute":
            views = self._views(self._forward(x, training=True), y)
            with tf.GradientTape() as variance_tape:
                variance_loss = self._variance_loss(views, self._log_variances(views, training=True))
                scaled_variance = self.variance_optimizer.scale_loss(variance_loss)
        if current is not Phase.DISPLACEMENT:
            variables = self.variance_network.trainable_variables
            self.variance_optimizer.apply(variance_tape.gradient(scaled_variance, variables), variables)
            self.variance_loss_tracker.update_state(variance_loss)
        return self.get_metrics_result()

    def test_step(self, data):
        _, variance_loss, _ = self._both_losses(*self._unpack(data), training=False)
        self.variance_loss_tracker.update_state(variance_loss)
        return self.get_metrics_result()

    def _both_losses(self, x, y, training: bool) -> tuple[tf.Tensor, tf.Tensor, list[View]]:
        """Loss of either network on the same images, and the images. A graph leaves out what is not used of it."""
        outputs = self._forward(x, training)
        views = self._views(outputs, y)
        log_variances = self._log_variances(views, training)
        loss = self._displacement_loss(outputs, views, log_variances, y)
        return loss, self._variance_loss(views, log_variances), views

    def _displacement_loss(self, outputs: dict, views: list[View], log_variances: list, y) -> tf.Tensor:
        weights = self._weights(views, log_variances)
        image_loss = 0.0
        objective = self.references.objective
        parts = zip(views, log_variances, weights, self._image_losses, self._loss_weights, strict=False)
        for view, log_variance, weight, loss, scale in parts:
            dissimilarity = tf.cast(loss(view.fixed, view.moved), tf.float32)
            image_loss += scale * objective.image_loss(dissimilarity, log_variance, weight)
        smoothness = tf.reduce_mean(self._field_loss(y[-1], outputs["field"]))
        loss = image_loss + self._loss_weights[-1] * smoothness
        self._loss_tracker.update_state(loss)
        self.image_loss_tracker.update_state(image_loss)
        self.smoothness_tracker.update_state(smoothness)
        self.weight_tracker.update_state(tf.add_n([tf.reduce_mean(w) for w in weights]) / len(weights))
        folds = fields.jacobian_determinant(outputs["displacement"]) <= 0
        self.folds_tracker.update_state(100 * tf.reduce_mean(tf.cast(folds, tf.float32)))
        return loss

    def _weights(self, views: list[View], log_variances: list) -> list[tf.Tensor]:
        if self.references.phase is not Phase.JOINT:
            return [tf.ones_like(view.fixed) for view in views]
        weight = self.references.objective.weight
        return [weight(s, view.fixed, view.moving) for view, s in zip(views, log_variances, strict=True)]

    def _log_variances(self, views: list[View], training: bool) -> list[tf.Tensor]:
        # The published code forgot to detach the moved image, which leaked the loss of the variance network into the
        # displacement network. The joint likelihood wants just that.
        detached = tf.identity if self.references.objective.joint else tf.stop_gradient
        images = [tf.concat([detached(view.moved), view.fixed], axis=-1) for view in views]
        return [self.variance_network(pair, training=training) for pair in images]

    def _variance_loss(self, views: list[View], log_variances: list) -> tf.Tensor:
        loss = self.references.objective.variance_loss
        losses = [loss(view.fixed, view.moved, s) for view, s in zip(views, log_variances, strict=True)]
        return tf.add_n(losses) / len(losses)

    def _forward(self, x, training: bool) -> dict:
        outputs = self.references.step_model(x, training=training)
        *images, field, displacement, source, target = outputs
        return {"moved": images, "field": field, "displacement": displacement, "source": source, "target": target}

    def _views(self, outputs: dict, y) -> list[View]:
        fixed = tf.cast(y[0], tf.float32)
        views = [View(fixed, outputs["moved"][0], outputs["source"])]
        if len(outputs["moved"]) == 2:
            views.append(View(tf.cast(y[1], tf.float32), outputs["moved"][1], outputs["target"]))
        return views

    def _unpack(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise ValueError(f"{type(self).__name__} weights voxels by their noise and takes no sample_weight")
        if y is None:
            images = tf.nest.flatten(x)
            y = [images[1], images[0], 0.0] if self.references.y_target is not None else [images[1], 0.0]
        elif isinstance(y, dict):
            y = [y.get(name) for name in self.output_names]
        return x, y

    def _paper_losses(self):
        params = self.config.params
        smoothness = Grad("l2", loss_mult=params["int_resolution"] if params["int_steps"] > 0 else 1).loss
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
        self._image_losses = [voxelwise_loss(part) for part in loss[:-1]]
        if self.references.objective.joint and not all(_is_squared_residual(part) for part in self._image_losses):
            raise ValueError(
                "a likelihood is one of the squared residual: its image loss must be MSE(), neither scaled nor smoothed"
            )
        self._field_loss = keras.losses.get(loss[-1])
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
    """Tell the model which epoch begins."""

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_epoch(epoch, self.epochs)


def _is_squared_residual(voxelwise) -> bool:
    owner = getattr(voxelwise, "__self__", None)
    return isinstance(owner, MSE) and owner.image_sigma == 1 and not owner.smoothing


def _scales_loss(optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
