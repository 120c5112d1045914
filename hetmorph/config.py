"""Configuration of a training: frozen dataclasses, YAML or JSON in and out; an unknown key is an error."""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml


def _section(**defaults):
    return field(default_factory=lambda: defaults["of"]())


@dataclass(frozen=True)
class DataConfig:
    """Which images, how they are cut, and what is done to them.

    Attributes:
        name: one of `hetmorph.data.datasets()`, or a CSV file of pairs.
        dir: folder of the set; None reads HETMORPH_DATA.
        crop: one of the set's, e.g. "paper" (round the labelled heart); None takes the set's own.
        size: size of the samples, voxels; None takes the set's own.
        augment: flips, quarter turns, shifts and intensity changes of the training pairs.
        augment_affine: strength of random affine maps besides, see `hetmorph.data.random_affine`; 0 leaves them out.
        skip_bad: leave out unreadable cases instead of stopping.
        noise: mean σ of added heteroscedastic Rician noise, 1 is the intensity range; of an artefact its strength.
        noise_kind: "rician", or an artefact, see `hetmorph.data.add_artefact`.
        noise_in: the image that an artefact goes into: "moving", "fixed" or "both".
        known_warp: replace each fixed image by the moving one, warped by up to so many voxels.
        rounds: sets of pairs between subjects: pairs a subject, as fixed image; in validation one.
        patients: number of patients of the training part that are trained on, of each set; None takes all.
        memory: GiB of images of a split that stay in memory; others are read when needed. It decides no number.
        affine: "rigid", "similarity" or "affine": each moving image is brought near by such a transform first, here and
            wherever the trained model is applied by this configuration; "none" leaves it.
    """

    name: str = "phantom"
    dir: str | None = None
    crop: str | None = None
    size: tuple[int, ...] | None = None
    augment: bool = True
    augment_affine: float = 0.0
    skip_bad: bool = False
    noise: float = 0.0
    noise_kind: str = "rician"
    noise_in: str = "both"
    known_warp: float = 0.0
    rounds: int = 1
    patients: int | None = None
    memory: float = 4.0
    affine: str = "none"


@dataclass(frozen=True)
class NetworkConfig:
    """The displacement network.

    Attributes:
        arch: "vxm" or "transmorph", see `hetmorph.networks.VxmDense` and `TransMorph`; or a composition of steps,
            "gradicon", "constricon", "carl", "carl-rot" or "unicarl", or one of coordinates, "nephi", see
            `hetmorph.networks.architectures`; or "unigradicon", that of "gradicon" on images that are resized from
            their own field of view, see `hetmorph.networks.UniGradICON`.
        features: U-Net features [encoder, decoder] of "vxm" and of each network of "unigradicon"; None takes the
            default.
        width: features of the networks of compositions of steps, "nephi" and "unigradicon", as a multiple of the
            published ones.
        stage: "gradicon", "unigradicon", "carl", "carl-rot": 1 leaves the fourth network out, 2 trains all of them. A
            training of stage 2 that starts (`init`) from one of stage 1 begins with what that does.
        int_steps: squarings of the integration, steps of the midpoint's method for "constricon"; None takes the
            architecture's default: 7, 0 for "transmorph", 4 for "constricon".
        int_resolution: voxel size of the integration grid, in image voxels; where `resolution` is larger, that.
        resolution: voxel size of the images that the network sees, in image voxels: 2 averages them in blocks of 2 a
            side, which leaves a quarter of the voxels in 2-D and an eighth in 3-D. The losses see the whole images; see
            `hetmorph.steps.AtResolution`.
        bidir: register in both directions.
        precision: "float32", "bfloat16", also of the variance network, or "exact": float32 whose products a GPU does
            not round to TF32 either, see docs/several-devices.md.
        slabs: gradient checkpointing of "vxm" and its variance network.
        repeats: how often the network is applied to what it has moved so far, trained through all of them; see
            `hetmorph.steps.Repeated`.
        passes: how often the trained network is applied to what it has moved so far; see `MultiPass`.
        init: model whose weights the training starts from, a path or the name of a shipped one; None starts anew.
    """

    arch: str = "vxm"
    features: tuple[tuple[int, ...], ...] | None = None
    width: float = 1.0
    stage: int = 2
    int_steps: int | None = None
    int_resolution: float = 2
    resolution: int = 1
    bidir: bool = False
    precision: str = "float32"
    slabs: int = 1
    repeats: int = 1
    passes: int = 1
    init: str | None = None


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised: a recipe of `hetmorph.objectives.RECIPES` and the options that this recipe has.

    Attributes:
        name: one of `hetmorph.objectives.RECIPES`.
        smoothness: λ, the weight of the squared gradient; of "icon", "gradicon", "het-gradicon" and "nephi" that of the
            inverse consistency. None takes the recipe's own.
        similarity: "diffusion", "velocity-diffusion", "icon", "gradicon": "mse", "ncc", "lncc", "lncc2", "mind" or
            "ngf".
        window: "ncc", "het-ncc": side of the window, voxels.
        sigma: "lncc", "lncc2": standard deviation of the Gaussian window, voxels.
        delta: "gradicon", "het-gradicon": length of a difference, as a share of the image.
        points, points_regular: "nephi": points at which images are compared, and Jacobians; None takes shares of the
            voxels.
        code_weight: "nephi": of the length of the codes.
        bins: "mi": bins of the histograms.
        gamma, snr, relative, foreground, warm_start, variance_pass: "het", "het-ncc", "het-z": as
            `networks.HetVxmDense` has them.
        beta: the same and "beta-nll": exponent of the variance.
        residual_smoothing: "mse", "het", "het-z": scale of a Gaussian over the difference before it is squared, voxels.
        variance_resolution: all with a variance network: voxel size of the grid of log σ², in image voxels.
        prior_lambda: "vxm-diff": precision of the prior.
        alpha: "het-z": weight of the velocity's uncertainty.
        landmark_weight: weight of the mean squared distance between landmarks, voxels², beside any method.
        dice_weight: weight of 1 − Dice of the training pairs' structures, beside any method.
    """

    name: str = "het"
    smoothness: float | None = None
    similarity: str = "lncc"
    window: int = 9
    sigma: float = 5.0
    delta: float = 1e-3
    points: int | None = None
    points_regular: int | None = None
    code_weight: float = 0.01
    bins: int = 32
    gamma: float = 0.5
    beta: float = 0.5
    snr: str = "paper"
    relative: str = "sample"
    foreground: bool = False
    warm_start: int | None = None
    variance_pass: str = "reuse"
    variance_resolution: int = 1
    residual_smoothing: float = 0.0
    prior_lambda: float = 10.0
    alpha: float = 1e-4
    landmark_weight: float = 0.0
    dice_weight: float = 0.0


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam.

    Attributes:
        learning_rate: its peak.
        decay: "cosine" to zero at the last update; "poly", (1 − k/n)^0.9 at update k of n, as TransMorph; or "none".
        warmup: with "cosine", updates over which the rate rises linearly from zero.
    """

    learning_rate: float = 1e-3
    decay: str = "cosine"
    warmup: int = 100


@dataclass(frozen=True)
class ScheduleConfig:
    """How long.

    Attributes:
        steps: batches of the whole training; each updates the networks its phase trains.
        steps_per_epoch: batches between two validations and checkpoints; the last epoch may be shorter.
        batch_size: pairs a batch.
        pre_registered: share of each batch whose moving images are registered by the network before; see
            `RegistrationModel.pre_registered`.
        keep: weights to score and export, "last" or "best" (highest validation Dice). The learning rate has decayed
            by the end, whereas the best of many validations on few patients is partly luck.
        minutes: end the training by the clock, see `hetmorph.callbacks.Deadline`; `steps` is then the most it makes.
            Such a run is not the same twice. None trains for `steps`.
    """

    steps: int = 3000
    steps_per_epoch: int = 100
    batch_size: int = 8
    pre_registered: float = 0.0
    keep: str = "last"
    minutes: float | None = None

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one possibly shorter."""
        return -(-self.steps // self.steps_per_epoch)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training.

    Attributes:
        data, network, objective, optimizer, schedule: the sections.
        seed: seed of weights, order of the pairs and augmentation.
    """

    data: DataConfig = _section(of=DataConfig)
    network: NetworkConfig = _section(of=NetworkConfig)
    objective: ObjectiveConfig = _section(of=ObjectiveConfig)
    optimizer: OptimizerConfig = _section(of=OptimizerConfig)
    schedule: ScheduleConfig = _section(of=ScheduleConfig)
    seed: int = 0

    def __post_init__(self):
        known = ("float32", "bfloat16", "exact")
        _require(self.network.precision in known, "network.precision", f"one of {known}", self.network.precision)
        for name in ("resolution", "slabs", "repeats", "passes"):
            _require(getattr(self.network, name) >= 1, f"network.{name}", "at least 1", getattr(self.network, name))
        _require(self.network.stage in (1, 2), "network.stage", "1 or 2", self.network.stage)
        kinds = ("none", "rigid", "similarity", "affine")
        _require(self.data.affine in kinds, "data.affine", f"one of {kinds}", self.data.affine)
        maps = self.data.augment_affine
        _require(0 <= maps <= 0.2, "data.augment_affine", "from 0 to 0.2", maps)
        _require(not maps or self.data.augment, "data.augment_affine", "0 where data.augment is off", maps)
        _require(self.data.memory >= 0, "data.memory", "at least 0 (GiB)", self.data.memory)
        steps, grid = self.network.int_steps, self.network.int_resolution
        _require(steps is None or steps >= 0, "network.int_steps", "at least 0", steps)
        _require(grid > 0, "network.int_resolution", "positive", grid)
        alone = self.network.passes == 1 or not self.network.bidir
        _require(alone, "network.passes", "1 with bidir, whose backward passes do not go on", self.network.passes)
        objective, rate, schedule = self.objective, self.optimizer, self.schedule
        weight = objective.smoothness
        _require(weight is None or weight >= 0, "objective.smoothness", "λ ≥ 0", weight)
        for name in ("landmark_weight", "dice_weight"):
            _require(getattr(objective, name) >= 0, f"objective.{name}", "at least 0", getattr(objective, name))
        _require(rate.learning_rate > 0, "optimizer.learning_rate", "a positive rate", rate.learning_rate)
        _require(rate.decay in ("cosine", "poly", "none"), "optimizer.decay", "'cosine', 'poly' or 'none'", rate.decay)
        for name in ("steps", "steps_per_epoch", "batch_size"):
            value = getattr(schedule, name)
            _require(value >= 1, f"schedule.{name}", "at least 1", value)
        share = schedule.pre_registered
        _require(0 <= share <= 1, "schedule.pre_registered", "a share from 0 to 1", share)
        some = share == 0 or round(share * schedule.batch_size) >= 1
        _require(some, "schedule.pre_registered", f"at least a pair of a batch of {schedule.batch_size}", share)
        forward = share == 0 or not self.network.bidir
        _require(forward, "schedule.pre_registered", "0 with bidir, whose backward pairs are not registered", share)
        _require(schedule.keep in ("last", "best"), "schedule.keep", "'last' or 'best'", schedule.keep)
        _require(schedule.minutes is None or schedule.minutes > 0, "schedule.minutes", "positive", schedule.minutes)
        _require(0 <= self.seed < 2**32, "seed", "from 0 to 2**32 - 1", self.seed)
        if objective.warm_start is not None:
            room = 0 <= 2 * objective.warm_start < schedule.epochs
            expected = f"at least 0 and fewer than half of the {schedule.epochs} epochs"
            _require(room, "objective.warm_start", expected, objective.warm_start)


def to_dict(config) -> dict:
    """Nested plain dictionary of lists, numbers and strings.

    Args:
        config: settings of this module, whole or a section.
    """
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict, cls=TrainConfig, where: str = ""):
    """Build a configuration from a nested dictionary; keys that are left out keep their default.

    Args:
        values: values of the sections and keys of `cls`.
        cls: a configuration, whole or a section.
        where: place of `values` in the whole, for the messages.

    Raises:
        ValueError: an unknown key or a value of the wrong type, named with its place.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'the configuration'} must be a mapping of keys to values, got {values!r}")
    known = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown key {where}{unknown[0]!s}; known keys are {', '.join(known)}")
    return cls(**{key: _convert(value, known[key], f"{where}{key}") for key, value in values.items()})


def load(path: str | Path) -> TrainConfig:
    """Read a `.yaml`, `.yml` or `.json` file.

    Args:
        path: a key that the file leaves out keeps its default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: broken syntax, an unknown key or a bad value.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}")
    try:
        values = yaml.safe_load(path.read_text())  # JSON is a subset of YAML
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is neither YAML nor JSON: {error}") from error
    try:
        return from_dict(values or {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save(config: TrainConfig, path: str | Path) -> None:
    """Write YAML that `load` reads back.

    Args:
        config: what to write.
        path: its folder must exist; a file that is there is replaced.
    """
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False))


def _require(condition: bool, where: str, expected: str, received) -> None:
    if not condition:
        raise ValueError(f"{where} must be {expected}, got {received!r}")


def _convert(value, kind, where: str):
    if dataclasses.is_dataclass(kind):
        return from_dict(value, kind, f"{where}.")
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        _require(isinstance(value, (list, tuple)), where, "a list", value)
        return tuple(_convert(v, typing.get_args(kind)[0], f"{where}[{i}]") for i, v in enumerate(value))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = number if kind is float else type(value) is kind
    _require(fits, where, f"of type {kind.__name__}", value)
    return kind(value)
