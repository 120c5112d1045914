"""The compiled model a configuration asks for."""

import keras

from hetmorph.config import NetworkConfig, OptimizerConfig, TrainConfig
from hetmorph.networks.adareg import AdaRegTransMorph, AdaRegVxmDense
from hetmorph.networks.base import LoadableModel
from hetmorph.networks.het import HetTransMorph, HetVxmDense, check_variance_pass
from hetmorph.networks.nll import NllTransMorph, NllVxmDense
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.two_networks import TwoNetworks
from hetmorph.networks.variance import check_resolution
from hetmorph.networks.vxm import VxmDense
from hetmorph.objectives import Recipe, recipe, warm_start_length

MODELS = {
    "vxm": {
        "plain": VxmDense,
        "heteroscedastic": HetVxmDense,
        "joint likelihood": NllVxmDense,
        "adaptive field": AdaRegVxmDense,
    },
    "transmorph": {
        "plain": TransMorph,
        "heteroscedastic": HetTransMorph,
        "joint likelihood": NllTransMorph,
        "adaptive field": AdaRegTransMorph,
    },
}
INT_STEPS = {"vxm": 7, "transmorph": 0}


def build(config: TrainConfig, inshape) -> LoadableModel:
    """Network, losses and optimiser of a configuration.

    With `bidir` the image losses of the two directions are halved.

    Args:
        config: the training's configuration.
        inshape: spatial size of the images.
    """
    network, method = config.network, recipe(config.objective)
    model = model_class(config)(tuple(inshape), **_network_arguments(network), **method.model_arguments())
    model.compile(**_optimizers(config, method), **_losses(method, network, len(inshape)))
    return model


def model_class(config: TrainConfig) -> type[LoadableModel]:
    """Class of the model that trains the configured objective on the configured backbone.

    Raises:
        ValueError: no such backbone or objective, a bad value, or the two do not go together.
    """
    method = recipe(config.objective)
    if config.network.arch not in MODELS:
        raise ValueError(f"network.arch must be one of {', '.join(MODELS)}, got {config.network.arch!r}")
    for name in ("features", "slabs") if config.network.arch == "transmorph" else ():
        if getattr(config.network, name) != getattr(NetworkConfig(), name):
            raise ValueError(f"network.{name} has no effect on network.arch transmorph")
    if config.network.arch == "transmorph" and method.samples:
        raise ValueError(f"objective {config.objective.name} samples velocities, which network.arch transmorph has not")
    if "variance_resolution" in method.options():
        check_resolution(method.variance_resolution)
    if "variance_pass" in method.options():
        check_variance_pass(method.variance_pass)
    return MODELS[config.network.arch][method.model]


def _network_arguments(network: NetworkConfig) -> dict:
    shared = {
        "int_steps": int_steps(network),
        "int_resolution": network.int_resolution,
        "bidir": network.bidir,
        "precision": network.precision,
    }
    if network.arch == "transmorph":
        return shared
    features = network.features and [list(part) for part in network.features]
    return {**shared, "nb_unet_features": features, "slabs": network.slabs}


def int_steps(network: NetworkConfig) -> int:
    """Squarings of the configured network, the backbone's own where they are left open."""
    return INT_STEPS[network.arch] if network.int_steps is None else network.int_steps


def _losses(method: Recipe, network: NetworkConfig, ndims: int) -> dict:
    images = 2 if network.bidir else 1
    resolution = network.int_resolution if int_steps(network) > 0 else 1
    field_loss, weight = method.field_loss(resolution, ndims)
    return {
        "loss": [*(method.image_loss().loss for _ in range(images)), field_loss.loss],
        "loss_weights": [*([1.0 / images] * images), weight],
    }


def _optimizers(config: TrainConfig, method: Recipe) -> dict:
    steps = config.schedule.steps
    if not issubclass(model_class(config), TwoNetworks):
        return {"optimizer": adam(config.optimizer, steps)}
    if method.model == "heteroscedastic":
        # Each network rests during the other's warm start, and its rate must still reach the end of its decay.
        steps -= warm_start_length(config.schedule.epochs, method.warm_start) * config.schedule.steps_per_epoch
    return {"optimizer": adam(config.optimizer, steps), "variance_optimizer": adam(config.optimizer, steps)}


def adam(config: OptimizerConfig, updates: int) -> keras.optimizers.Adam:
    """Adam with the configured rate over a number of updates."""
    rate = config.learning_rate
    if config.decay == "poly":
        # TransMorph's schedule: (1 − update/updates)^0.9.
        rate = keras.optimizers.schedules.PolynomialDecay(rate, updates, end_learning_rate=0.0, power=0.9)
    elif config.decay == "cosine":
        warmup = min(config.warmup, updates // 2)
        rate = keras.optimizers.schedules.CosineDecay(0.0, updates - warmup, warmup_target=rate, warmup_steps=warmup)
    return keras.optimizers.Adam(rate)
