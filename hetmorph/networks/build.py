"""The compiled model a configuration asks for."""

import keras

from hetmorph.config import OptimizerConfig, TrainConfig
from hetmorph.losses import MSE, Grad
from hetmorph.networks.het import HetVxmDense
from hetmorph.networks.vxm import VxmDense
from hetmorph.objectives import warm_start_length


def build(config: TrainConfig, inshape) -> VxmDense:
    """Network, losses and optimiser of a configuration.

    The displacement loss is `E[w r²] + λ‖∇v‖²` for both objectives, with w = 1 for "mse"; with `bidir` the two
    directions are halved.

    Args:
        config: the training's configuration.
        inshape: spatial size of the images.
    """
    network, objective = config.network, config.objective
    arguments = {
        "inshape": tuple(inshape),
        "nb_unet_features": network.features and [list(part) for part in network.features],
        "int_steps": network.int_steps,
        "int_resolution": network.int_resolution,
        "bidir": network.bidir,
        "precision": network.precision,
        "slabs": network.slabs,
    }
    smoothness = Grad("l2", loss_mult=network.int_resolution).loss
    images = 2 if network.bidir else 1
    losses = {
        "loss": [*(MSE().loss for _ in range(images)), smoothness],
        "loss_weights": [*([1.0 / images] * images), objective.smoothness],
    }
    if objective.name == "mse":
        model = VxmDense(**arguments)
        model.compile(adam(config.optimizer, config.schedule.steps), **losses)
        return model
    model = HetVxmDense(
        **arguments,
        gamma=objective.gamma,
        beta=objective.beta,
        snr=objective.snr,
        relative=objective.relative,
        foreground=objective.foreground,
        warm_start=objective.warm_start,
        variance_pass=objective.variance_pass,
    )
    # Each network rests during the other's warm start, and its rate must still reach the end of its decay.
    rest = warm_start_length(config.schedule.epochs, objective.warm_start) * config.schedule.steps_per_epoch
    updates = config.schedule.steps - rest
    model.compile(adam(config.optimizer, updates), variance_optimizer=adam(config.optimizer, updates), **losses)
    return model


def adam(config: OptimizerConfig, updates: int) -> keras.optimizers.Adam:
    """Adam with the configured rate over a number of updates."""
    if config.decay == "none":
        return keras.optimizers.Adam(config.learning_rate)
    warmup = min(config.warmup, updates // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, updates - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(rate)
