"""`hetmorph train`: what its options (`parsers.train`) ask for."""

import argparse
import csv
import dataclasses
import functools
import operator
import re
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from hetmorph import callbacks, config, data, evaluation, objectives, registration, serving, viz
from hetmorph.cli.messages import exit_status
from hetmorph.cli.models import find_model
from hetmorph.cli.parsers import FLAGS
from hetmorph.cli.parsers import train as parser
from hetmorph.config import DataConfig, NetworkConfig, ScheduleConfig, TrainConfig
from hetmorph.networks import MultiPass
from hetmorph.networks.build import both_directions, build, int_steps, later_layers, model_class
from hetmorph.training import Distribution, distribute, distribution, hosts

ENDLESS = 10**7  # steps that no clock lets a training make


def configuration(args: argparse.Namespace) -> TrainConfig:
    """Defaults, overridden by --config, overridden by flags."""
    values = config.to_dict(config.load(args.config) if args.config else TrainConfig())
    given = {place: value for place, *_ in FLAGS.values() if (value := getattr(args, place)) is not None}
    for place, value in given.items():
        *section, key = place.split(".")
        functools.reduce(operator.getitem, section, values)[key] = value
    if args.epochs is not None:
        if "schedule.steps" in given:
            raise ValueError("--steps and --epochs both say how long to train; give one of them")
        values["schedule"]["steps"] = args.epochs * values["schedule"]["steps_per_epoch"]
    elif "schedule.minutes" in given and "schedule.steps" not in given:
        values["schedule"]["steps"] = ENDLESS
    settings = _as_registered(config.from_dict(values))
    _refuse_idle(given, settings.objective.name)
    model_class(settings)  # says now, before any data are read, what does not go together
    return settings


def _as_registered(settings: TrainConfig) -> TrainConfig:
    """A model that `register` shows resized images learns from such, unless told otherwise."""
    given = settings.data
    if settings.network.arch != "unigradicon" or given.crop is not None or not data.is_table(given.name):
        return settings
    return dataclasses.replace(settings, data=dataclasses.replace(given, crop="resize"))


def _refuse_idle(given: dict, objective: str) -> None:
    """An option of another objective is a mistake, also at its default value."""
    if objective in objectives.RECIPES:
        known = objectives.RECIPES[objective].options()
        for key in (name.removeprefix("objective.") for name in given if name.startswith("objective.")):
            if key not in ("name", *known):
                raise ValueError(f"--{key.replace('_', '-')} has no effect on objective {objective}")


def train(
    settings: TrainConfig,
    out: Path,
    resume: bool,
    devices: int = 1,
    cluster: hosts.Cluster | None = None,
    wait: float = 300.0,
    jit_compile: bool = True,
) -> keras.Model | None:
    """Train, or go on with training, and return the model that is to be scored and exported, to one of the workers."""
    checkpoint = _checkpoint_of(settings, out, resume)
    origin = settings.network.init and find_model(settings.network.init)
    path, done = checkpoint or (None, 0)
    together = distribute(devices, cluster, _plan(settings, done), wait)
    tf.config.experimental.enable_tensor_float_32_execution(settings.network.precision != "exact")
    training = _load(settings, out, "train")
    validation = _load(settings, out, "val") if together.writes else None
    _report_skipped(training)
    _check_known(settings, training)
    shape = data.common_shape(training.pairs)
    if settings.schedule.keep == "best":
        _check_labelled(training)
    keras.utils.set_random_seed(settings.seed)
    with together.scope():
        if path is None:
            model = build(settings, shape, list(training.labels.values()) or (1,))
            _start(model, origin, settings.network)
        else:
            model = keras.saving.load_model(path)
            print(f"resuming after epoch {done} of {settings.schedule.epochs}")
    model.pre_registered = settings.schedule.pre_registered
    if not jit_compile:
        model.jit_compile = False
    if together.writes:
        # Only now: a mistake in a flag or in the data folder must not leave a run behind.
        out.mkdir(parents=True, exist_ok=True)
        config.save(settings, out / "config.yaml")
        data.save_splits(training.splits, out / "splits.json", settings.data.name)
    if done < settings.schedule.epochs:
        _fit(model, settings, out, done, training.pairs, validation, together)
    return _kept(model, settings, out, together) if together.writes else None


def _check_labelled(training: data.LoadedSet) -> None:
    """Refuse to keep the best weights by a mean over sets of which one has nothing to be told by."""
    bare = [name for name, part in training.parts.items() if part.main is None]
    if bare or not training.labels:
        whose = f"the set {bare[0]} has" if bare else "the data have"
        raise ValueError(f"--keep best needs labels, by which the best weights could be told; {whose} none")


def _kept(model: keras.Model, settings: TrainConfig, out: Path, together: Distribution) -> keras.Model:
    """The model that is to be scored, saved as model.keras, on one device."""
    if settings.schedule.keep == "best":
        model = keras.saving.load_model(out / "best.keras")
    if settings.network.passes > 1:
        model = MultiPass(model, settings.network.passes)
    model.save(out / "model.keras")
    return model if together.strategy is None else keras.saving.load_model(out / "model.keras")


def _plan(settings: TrainConfig, done: int) -> dict:
    """What all hosts of a training have to agree in."""
    return {**config.to_dict(_placeless(settings)), "the number of finished epochs in the run folder": done}


def _start(model: keras.Model, origin: str | None, network: NetworkConfig) -> None:
    """Give the model the weights of the one that the training starts from, if it shall start from any."""
    if origin is None:
        return
    initial = serving.start_from(model, origin, later_layers(network))
    print(f"starts from the weights of {origin}" + (f", but for {len(initial)} that it has not" if initial else ""))


def _check_devices(settings: TrainConfig, devices: int, cluster: hosts.Cluster | None) -> None:
    """Refuse, before any data are read, what several devices could not do as one does."""
    distribution.check(devices, cluster, settings.schedule.batch_size)
    if settings.schedule.minutes is not None and cluster:
        raise ValueError(
            "--minutes goes with one host: the clocks of several would end the training at different steps"
        )


def preview(settings: TrainConfig, out: Path, resume: bool) -> str:
    """What `train` would do, with the same errors; the data are read, nothing is written."""
    checkpoint = _checkpoint_of(settings, out, resume)
    origin = f" from {find_model(settings.network.init)}" if settings.network.init else ""
    loaded = {split: _load(settings, out, split) for split in ("train", "val")}
    _check_known(settings, loaded["train"])
    data.common_shape(loaded["train"].pairs)
    counts = {split: _counted(part) for split, part in loaded.items()}
    start = f"go on after epoch {checkpoint[1]}" if checkpoint else f"start{origin}"
    return (
        f"would {start}: {settings.objective.name} on {counts['train']}, {_length(settings.schedule)} of "
        f"{settings.schedule.batch_size}, {counts['val']} to validate; would write {out}"
    )


def _counted(loaded: data.LoadedSet) -> str:
    """How many pairs there are, of several sets of each."""
    several = ", ".join(f"{name} {len(part.pairs)}" for name, part in loaded.parts.items())
    return f"{len(loaded.pairs)} pairs" + (f" ({several})" if several else "")


def finish(model: keras.Model, settings: TrainConfig, out: Path) -> None:
    """Table and picture of a trained model, of several data sets in a folder for each; and its SavedModel."""
    test = _load(settings, out, "test")
    predictor = evaluation.wrap(model)
    for name, part in test.parts.items() or [(settings.data.name, test)]:
        if test.parts:
            print(f"\n{name}:")
        _score(predictor, part, name, settings, out / name if test.parts else out)
    if not (out / "saved_model" / "1").exists():
        serving.export_savedmodel(model, out / "saved_model", version=1)


def _score(predictor, test: data.LoadedSet, name: str, settings: TrainConfig, out: Path) -> None:
    """Table and picture of the test pairs of one set."""
    curves = evaluation.Curves()
    rows = evaluation.evaluate(predictor, test.pairs, labels=test.labels, main=test.main, curves=curves)
    about = {"data": name, "split": "test", "crop": settings.data.crop}
    if settings.data.affine != DataConfig.affine:
        about["affine"] = settings.data.affine
        print(f"undeformed: after the {settings.data.affine} stage")
    if curves:
        about["calibration"] = curves.calibration()
    summary = evaluation.summarise(rows, "hetmorph", test.main, **about, skipped=test.skipped_entries)
    print(evaluation.markdown(summary))
    viz.write_results(out, predictor, test, rows, curves, summary, "report.png")


def _fit(model, settings: TrainConfig, out: Path, done: int, pairs, validation, together: Distribution) -> None:
    schedule = settings.schedule

    def part(k: int, n: int) -> tf.data.Dataset:
        return data.pipeline(
            pairs,
            schedule.batch_size,
            schedule.epochs * schedule.steps_per_epoch,
            settings.seed,
            start_step=done * schedule.steps_per_epoch,
            bidir=both_directions(settings),
            augment=settings.data.augment,
            affine=settings.data.augment_affine,
            part=(k, n),
            labels=settings.objective.dice_weight > 0,
        )

    hooks = _hooks(model, settings, out, done, validation) if together.writes else []
    where = f"in {out}" + (f", on {together.replicas} devices" if together.strategy else "")
    print(f"{settings.objective.name}: {len(pairs)} pairs, {_length(schedule)} of {schedule.batch_size}, {where}")
    watched = sys.stdout.isatty() and together.writes
    last = _LastStep(schedule.steps - done * schedule.steps_per_epoch)
    with callbacks.Heartbeat(steps=not watched) as heartbeat:
        try:
            model.fit(
                together.divided(part, schedule.batch_size),
                epochs=schedule.epochs,
                initial_epoch=done,
                steps_per_epoch=schedule.steps_per_epoch,
                callbacks=[last, *hooks, heartbeat] if together.writes else [last],
                verbose=(1 if watched else 2) if together.writes else 0,
            )
        except tf.errors.OpError as error:
            reason = _reading_error(error)
            raise ((together.lost(error) or error) if reason is error else reason) from error


def _length(schedule: ScheduleConfig) -> str:
    most = f"{schedule.steps} batches"
    if schedule.minutes is None:
        return most
    return f"{schedule.minutes:g} minutes of batches" if schedule.steps == ENDLESS else f"at most {most}"


class _LastStep(keras.callbacks.Callback):
    """Ends the last epoch, which may be shorter than the others, after its last step.

    Data that run out would do so too, but of several devices some would have begun a step more.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            self.model.stop_training = True


def _hooks(model: keras.Model, settings: TrainConfig, out: Path, done: int, validation: data.LoadedSet) -> list:
    """What is done after an epoch, in this order, by the one process that writes the files."""
    schedule, rate = settings.schedule, settings.optimizer
    _truncate_log(out / "log.csv", done)
    probe = [np.stack([getattr(p, role) for p in validation.pairs[:4]])[..., None] for role in ("moving", "fixed")]
    warm_up_epochs = getattr(model, "warm_up_epochs", lambda epochs: 0)
    before = _minutes_so_far(out / "log.csv")
    clock = schedule.minutes and callbacks.Deadline(schedule.minutes, rate.learning_rate, rate.decay, before)
    return [
        *([clock] if clock else []),
        *_validation_dice(validation, out, warm_up_epochs(schedule.epochs)),
        callbacks.SanityCheck(*probe),
        callbacks.EpochTensorBoard(out / "tensorboard"),
        keras.callbacks.CSVLogger(out / "log.csv", append=done > 0),
        callbacks.Checkpoint(out / "checkpoints"),
    ]


def _reading_error(error: tf.errors.OpError) -> Exception:
    """The DataError of a file that went bad while the training read it, which TensorFlow has wrapped; else itself."""
    found = re.search(r"DataError: (.*)", str(error))
    return data.DataError(found[1]) if found else error


def _validation_dice(validation: data.LoadedSet, out: Path, warm_up: int) -> list[keras.callbacks.Callback]:
    """Overlap of the main structure after each epoch, of several sets of that of each; nothing where nothing is
    labelled."""
    best = out / "best.keras", _best_so_far(out / "log.csv", warm_up)
    if validation.parts:
        sets = {
            name: callbacks.ValidationDice(part.pairs, part.labels[part.main], name=f"{part.main} ({name})")
            for name, part in validation.parts.items()
            if part.main is not None
        }
        return [callbacks.JointValidationDice(sets, *best)] if sets else []
    if validation.main is None:
        return []
    label = validation.labels[validation.main]
    return [callbacks.ValidationDice(validation.pairs, label, *best, validation.main)]


def _load(settings: TrainConfig, out: Path, split: str) -> data.LoadedSet:
    # The division does not depend on the training's seed: runs of several seeds share their test patients.
    stored = out / "splits.json"
    return data.load(
        settings.data.name,
        data_dir=settings.data.dir,
        split=split,
        crop=settings.data.crop,
        size=settings.data.size,
        skip_bad=settings.data.skip_bad,
        noise=settings.data.noise,
        noise_kind=settings.data.noise_kind,
        noise_in=settings.data.noise_in,
        known_warp=settings.data.known_warp,
        rounds=1 if split == "val" else settings.data.rounds,  # after every epoch, one pair a subject tells enough
        patients=settings.data.patients,
        memory=settings.data.memory,
        align=_aligner(settings.data.affine),
        splits=stored if stored.exists() else None,
    )


@functools.cache
def _aligner(kind: str) -> Callable | None:
    # One for all parts of a run, so that a pair that is in two of them, or is read again, is aligned once.
    return registration.aligner(kind)


def _check_known(settings: TrainConfig, training: data.LoadedSet) -> None:
    """Refuse masks, landmarks and labels that would have no effect, or cannot have one."""
    cases = training.cases
    masks, points = any(case.masks for case in cases), any(case.points for case in cases)
    weight, overlap = settings.objective.landmark_weight, settings.objective.dice_weight
    if overlap and not training.labels:
        raise ValueError("--dice-weight has no effect: no pair of the train split has labels")
    if weight and not points:
        raise ValueError(
            "--landmark-weight has no effect: no pair of the train split has landmarks; a table has them in its "
            "columns points_moving and points_fixed"
        )
    if settings.schedule.pre_registered and (masks or points or overlap):
        raise ValueError(
            "--pre-registered does not go with masks, landmarks or --dice-weight, which do not follow a moved image"
        )
    if points and not weight:
        print("note: the landmarks of the table have no effect without --landmark-weight", file=sys.stderr)


def _checkpoint_of(settings: TrainConfig, out: Path, resume: bool) -> tuple[Path, int] | None:
    """The newest checkpoint in the run folder, if any; an error if the folder holds another run."""
    stored = out / "config.yaml"
    if stored.exists() and not resume:
        raise ValueError(f"{out} already holds a run; go on with --resume, or choose another --out")
    if stored.exists():
        before, now = config.to_dict(_placeless(config.load(stored))), config.to_dict(_placeless(settings))
        changed = [key for key in now if before[key] != now[key]]
        if changed:
            raise ValueError(
                f"{out} was started with another configuration ({', '.join(changed)} differ from {stored}); "
                "resume it with the same flags, or choose another --out"
            )
    return callbacks.latest_checkpoint(out / "checkpoints")


def _placeless(settings: TrainConfig) -> TrainConfig:
    # Where the data lie does not make another run: the folder may have been moved, or come from HETMORPH_DATA.
    # Nor does how much of them stays in memory. What is the set's or the backbone's own need not be spelt out.
    given, size, crop = settings.data, settings.data.size, settings.data.crop
    if not data.members(given.name):  # several sets may have several of either
        own = data.dataset(given.name)
        size = own.size if size is None else size
        crop = own.crops[0] if crop is None and own.crops else crop
    network = dataclasses.replace(settings.network, int_steps=int_steps(settings.network))
    weight = objectives.recipe(settings.objective).smoothness
    objective = dataclasses.replace(settings.objective, smoothness=weight)
    where = dataclasses.replace(given, dir=None, size=size, crop=crop, memory=DataConfig.memory)
    return dataclasses.replace(settings, data=where, network=network, objective=objective)


def _truncate_log(path: Path, done: int) -> None:
    """Drop log rows of epochs after the checkpoint: they will be run again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: 1 + done] if done else []))


def _minutes_so_far(path: Path) -> float:
    """How long the training has lasted by its log."""
    if not path.exists():
        return 0.0
    with path.open() as file:
        return max((float(row.get("minutes") or 0) for row in csv.DictReader(file)), default=0.0)


def _best_so_far(path: Path, warm_up: int) -> float:
    """Best score in the log, of the epochs after the warm start."""
    if not path.exists():
        return -1.0
    with path.open() as file:
        return max((float(row["val_dice"]) for row in list(csv.DictReader(file))[warm_up:]), default=-1.0)


def _report_skipped(loaded: data.LoadedSet) -> None:
    for case, reason in loaded.skipped:
        print(f"skipped {case}: {reason}", file=sys.stderr)
    if loaded.skipped:
        print(f"{len(loaded.skipped)} cases skipped", file=sys.stderr)


def main(argv=None, prog: str = "train.py") -> int:
    return exit_status(prog, functools.partial(run, parser(prog).parse_args(argv)))


def run(args: argparse.Namespace) -> None:
    """Train, evaluate, draw and export, or say what would be done."""
    settings = configuration(args)
    cluster = hosts.from_slurm() if args.slurm else hosts.from_tf_config()
    _check_devices(settings, args.devices, cluster)
    out = args.out or Path("runs") / f"{Path(settings.data.name).stem}-{settings.objective.name}"
    if args.dry_run:
        print(preview(settings, out, args.resume))
        return
    model = train(settings, out, args.resume, args.devices, cluster, args.wait, not args.no_jit_compile)
    if model is None:
        print(f"{cluster.name(cluster.index)} is done; {cluster.name(0)} writes {out}")
        return
    finish(model, settings, out)
    several = data.members(settings.data.name)
    tables = f"; in {', '.join(several)}: " if several else ", "
    print(f"wrote {out}: model.keras, saved_model/1{tables}summary.json, cases.csv, report.png")
