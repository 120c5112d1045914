"""The compiled model a configuration asks for."""

import dataclasses
from collections.abc import Sequence

import keras

from hetmorph.config import NetworkConfig, OptimizerConfig, TrainConfig
from hetmorph.networks.adareg import AdaRegTransMorph, AdaRegVxmDense
from hetmorph.networks.architectures import ARCHITECTURES, REFINED, as_step
from hetmorph.networks.assembly import widened
from hetmorph.networks.base import LoadableModel
from hetmorph.networks.het import HetRegistration, HetTransMorph, HetVxmDense, check_variance_pass
from hetmorph.networks.nll import NllTransMorph, NllVxmDense
from hetmorph.networks.registration import Registration
from hetmorph.networks.tall_unet import FEATURES
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.two_networks import TwoNetworks
from hetmorph.networks.unigradicon import UniGradICON
from hetmorph.networks.variance import check_resolution
from hetmorph.networks.vxm import VxmDense
from hetmorph.objectives import Recipe, recipe, warm_start_length
from hetmorph.steps import AtResolution, Repeated, Step

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
OF_STEPS = {"plain": Registration, "heteroscedastic": HetRegistration}
UNIVERSAL = {"plain": UniGradICON}
INT_STEPS = {"vxm": 7, "transmorph": 0, "constricon": 4}
# what a network of steps decides itself, and only one of a backbone has
IDLE = {
    "vxm": ("width", "stage"),
    "transmorph": ("features", "slabs", "width", "stage"),
    "gradicon": ("features", "slabs", "int_steps", "int_resolution", "precision"),
    "constricon": ("features", "slabs", "int_resolution", "precision", "stage"),
    "carl": ("features", "slabs", "int_steps", "int_resolution", "precision"),
    "carl-rot": ("features", "slabs", "int_steps", "int_resolution", "precision"),
    "unicarl": ("features", "slabs", "int_steps", "int_resolution", "precision", "stage"),
    "nephi": ("features", "slabs", "int_steps", "int_resolution", "precision", "stage", "resolution"),
    "unigradicon": ("slabs", "int_steps", "int_resolution", "precision", "repeats", "resolution"),
}


def build(config: TrainConfig, inshape, labels: Sequence[int] = (1,)) -> LoadableModel:
    """Network, losses and optimiser of a configuration.

    With `bidir` the image losses of the two directions are halved; methods of inverse consistency, whose published λ
    stand beside the sum of both, leave them whole.

    Args:
        config: the training's configuration.
        inshape: spatial size of the images.
        labels: values of the structures in the training data, where `dice_weight` is not 0.
    """
    method, cls = recipe(config.objective), model_class(config)
    if issubclass(cls, UniGradICON):
        direction = "exchange" if both_directions(config) else None
        model = cls(tuple(inshape), _features(config.network), direction, stage=config.network.stage)
    elif issubclass(cls, Registration):
        model = cls(
            _step(config, inshape),
            tuple(inshape),
            direction="exchange" if both_directions(config) else None,
            **method.model_arguments(),
        )
    else:
        model = cls(tuple(inshape), **_network_arguments(config.network), **method.model_arguments())
    terms = method.all_terms(labels)
    model.compile(**_optimizers(config, method), **_losses(config, method, len(inshape)), terms=terms)
    return model


def model_class(config: TrainConfig) -> type[LoadableModel]:
    """Class of the model that trains the configured objective on the configured backbone.

    Raises:
        ValueError: no such backbone or objective, a bad value, or the two do not go together.
    """
    method, network = recipe(config.objective), config.network
    if network.arch not in IDLE:
        raise ValueError(f"network.arch must be one of {', '.join(IDLE)}, got {network.arch!r}")
    for name in IDLE[network.arch]:
        if _of_layers(network, name) != getattr(NetworkConfig(), name):
            raise ValueError(f"network.{name} has no effect on network.arch {network.arch}")
    if not network.width > 0:
        raise ValueError(f"network.width must be positive, got {network.width}")
    around = [(name, getattr(network, name)) for name in ("repeats", "resolution")]
    once = all(value == 1 for _, value in around)  # the network is asked once, of the images as they are
    if method.samples and not (network.arch == "vxm" and once):
        raise ValueError(
            f"objective {config.objective.name} samples velocities, which network.arch {network.arch} has not"
        )
    if network.arch == "constricon" and int_steps(network) < 1:
        raise ValueError(f"network.int_steps must be at least 1 for network.arch constricon, got {network.int_steps}")
    if config.objective.name == "velocity-diffusion" and int_steps(network) == 0:
        raise ValueError(
            f"objective velocity-diffusion needs velocities, which network.arch {network.arch} has not here"
        )
    if config.schedule.pre_registered and method.transforms:
        raise ValueError(f"schedule.pre_registered has no effect on objective {config.objective.name}")
    if network.passes > 1 and method.transforms:
        raise ValueError(
            f"network.passes must be 1 with objective {config.objective.name}, which registers both ways, "
            f"got {network.passes}; network.repeats trains through several steps"
        )
    if config.schedule.minutes is not None and "warm_start" in method.options() and method.warm_start is None:
        raise ValueError(
            f"objective {config.objective.name} needs objective.warm_start beside schedule.minutes: its share of the "
            "epochs is not known beforehand"
        )
    if "variance_resolution" in method.options():
        check_resolution(method.variance_resolution)
    if "variance_pass" in method.options():
        check_variance_pass(method.variance_pass)
    one_step = network.arch in MODELS and once and not method.transforms
    models = MODELS[network.arch] if one_step else UNIVERSAL if network.arch == "unigradicon" else OF_STEPS
    for name in () if one_step else ("slabs", "precision"):
        if _of_layers(network, name) != getattr(NetworkConfig(), name):
            raise ValueError(f"network.{name} has no effect on a network of several steps, directions or resolutions")
    if method.model not in models:
        raise ValueError(
            f"objective {config.objective.name} has no form for network.arch {network.arch}"
            + "".join(f" with network.{name} {value}" for name, value in around if value > 1)
        )
    return models[method.model]


def _of_layers(network: NetworkConfig, name: str):
    """A setting as layers know it: exact ones compute in float32, and the program sees to the rest."""
    value = getattr(network, name)
    return "float32" if (name, value) == ("precision", "exact") else value


def both_directions(config: TrainConfig) -> bool:
    """Whether pairs are registered in both directions, and their moving images are targets too."""
    return config.network.bidir or config.network.arch == "nephi" or recipe(config.objective).transforms


def _step(config: TrainConfig, inshape) -> Step:
    network, ndims = config.network, len(inshape)
    if any(size is not None and size <= network.resolution for size in inshape):
        raise ValueError(f"network.resolution must be below the images' sizes {inshape}, got {network.resolution}")
    if network.arch in ARCHITECTURES:
        own = {} if "stage" in IDLE[network.arch] else {"stage": network.stage}
        own |= {"int_steps": int_steps(network)} if network.arch in INT_STEPS else {}
        own |= {"size": max(inshape)} if network.arch == "nephi" and None not in inshape else {}
        step = ARCHITECTURES[network.arch](ndims, network.width, **own)
    else:
        arguments = {**_network_arguments(network), "bidir": False}
        if network.resolution > 1:
            arguments["int_resolution"] = max(1, network.int_resolution / network.resolution)
        step = as_step(MODELS[network.arch]["plain"]((None,) * ndims, **arguments))
    step = step if network.resolution == 1 else AtResolution(step, network.resolution)
    return step if network.repeats == 1 else Repeated(step, network.repeats)


def later_layers(network: NetworkConfig) -> tuple[str, ...]:
    """Beginnings of the names of layers that the model lacks which a training starts from, where it is of a stage less.

    Args:
        network: as configured.
    """
    return () if "stage" in IDLE[network.arch] or network.stage == 1 else (f"{REFINED}_",)


def _features(network: NetworkConfig) -> list[list[int]]:
    """Of each network of "unigradicon"."""
    return [widened(part, network.width) for part in network.features or FEATURES]


def _network_arguments(network: NetworkConfig) -> dict:
    shared = {
        "int_steps": int_steps(network),
        "int_resolution": network.int_resolution,
        "bidir": network.bidir,
        "precision": _of_layers(network, "precision"),
    }
    if network.arch == "transmorph":
        return shared
    features = network.features and [list(part) for part in network.features]
    return {**shared, "nb_unet_features": features, "slabs": network.slabs}


def int_steps(network: NetworkConfig) -> int:
    """Steps of the configured network's integration, the architecture's own where they are left open."""
    return INT_STEPS.get(network.arch, 0) if network.int_steps is None else network.int_steps


def _losses(config: TrainConfig, method: Recipe, ndims: int) -> dict:
    network, images = config.network, 2 if both_directions(config) else 1
    resolution = network.int_resolution if network.arch in MODELS and int_steps(network) > 0 else 1
    field_loss, weight = method.field_loss(resolution, ndims)
    image_loss, share = method.image_loss(), 1.0 if method.transforms else 1.0 / images
    if image_loss is None and field_loss is None:
        return {}
    return {
        "loss": [*(image_loss.loss for _ in range(images)), field_loss and field_loss.loss],
        "loss_weights": [*([share] * images), weight],
    }


def _optimizers(config: TrainConfig, method: Recipe) -> dict:
    steps, optimizer = config.schedule.steps, config.optimizer
    if config.schedule.minutes is not None:  # the clock decides, see hetmorph.callbacks.Deadline
        optimizer = dataclasses.replace(optimizer, decay="none")
    if not issubclass(model_class(config), TwoNetworks):
        return {"optimizer": adam(optimizer, steps)}
    if method.model == "heteroscedastic":
        # Each network rests during the other's warm start, and its rate must still reach the end of its decay.
        steps -= warm_start_length(config.schedule.epochs, method.warm_start) * config.schedule.steps_per_epoch
    return {"optimizer": adam(optimizer, steps), "variance_optimizer": adam(optimizer, steps)}


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
