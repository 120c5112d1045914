"""Updates per second of `hetmorph train`, validation included, against the same compiled update on a repeated batch.

The command trains one epoch, which compiles, and then those that are timed, from the end of the first to the end of the
last: reading, augmentation, validation, logs and checkpoints are in it. Then its model's own training function runs on
one of its batches again and again, in the same process; of turns of updates the fastest counts. Of the ratio, 1 is the
least there can be, on a machine that does nothing else. Each data set is trained in a process of its own, with the
objective's defaults.

Examples:
    python benchmarks/train_command.py --steps-per-epoch 20
    python benchmarks/train_command.py --device gpu --data phantom acdc=/data/ACDC
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import command, report
from common.rounds import progress

EPOCHS, STEPS, UPDATES, TURNS = 3, 50, 100, 5
# A process on the device, with what the command of a user would have.
ENVIRONMENT = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    "gpu": {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"},
}


class Trained(BaseException):
    """The training is over; what the command does afterwards is not timed."""


def main() -> None:
    args = arguments().parse_args()
    if args.worker:
        print(json.dumps(measured(**json.loads(args.worker))))
        return
    results = []
    for data in args.data:
        for objective in args.objectives:
            progress(f"{data}, {objective}")
            results.append(row(data, objective, args))
    where = report.processor() if args.device == "cpu" else report.graphics()
    text = f"{where}, {args.epochs} epochs of {args.steps_per_epoch} updates\n\n{table(results)}"
    args.quick, args.only, args.at_once = False, [], False
    command.save("train_command", args, results, text)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="what computes (default: cpu)")
    parser.add_argument(
        "--data", nargs="+", default=["phantom"], metavar="NAME[=FOLDER]", help="data sets (default: phantom)"
    )
    parser.add_argument("--objectives", nargs="+", default=["mse"], help="methods (default: mse)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"that are timed (default: {EPOCHS})")
    parser.add_argument("--steps-per-epoch", type=int, default=STEPS, help=f"updates of one (default: {STEPS})")
    parser.add_argument("--out", type=Path, help="folder of its own for the results; the page is left as it is")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def words_of(data: str) -> list[str]:
    """Options of the command for NAME or NAME=FOLDER."""
    name, _, folder = data.partition("=")
    return ["--data", name, *(["--data-dir", folder] if folder else [])]


def row(data: str, objective: str, args: argparse.Namespace) -> dict:
    """What a process has measured of one data set and objective."""
    with tempfile.TemporaryDirectory() as folder:
        steps = args.steps_per_epoch
        words = [*words_of(data), "--objective", objective, "--steps", str((1 + args.epochs) * steps)]
        words += ["--steps-per-epoch", str(steps), "--out", f"{folder}/run"]
        job = {"words": words, "device": args.device, "steps": args.epochs * steps, "since": time.time()}
        process = subprocess.run(
            [sys.executable, __file__, "--worker", json.dumps(job)],
            env={**os.environ, **ENVIRONMENT[args.device]},
            capture_output=True,
            text=True,
            check=False,
        )
    if process.returncode:
        raise SystemExit(process.stderr[-2000:].strip() or f"{data}, {objective}: status {process.returncode}")
    told = json.loads(process.stdout.splitlines()[-1])
    progress(f"{told['command']:.1f} updates/s of {told['bare']:.1f}, first epoch over after {told['first']:.1f} s")
    return {"data": data.partition("=")[0], "objective": objective, **told}


def table(results: list[dict]) -> str:
    """One row a training."""
    rows = [
        [
            r["data"],
            r["objective"],
            f"{r['command']:.2f}",
            f"{r['bare']:.2f}",
            f"{r['bare'] / r['command']:.2f}",
            f"{r['first']:.1f}",
        ]
        for r in results
    ]
    return report.table(
        ["data", "objective", "hetmorph train, updates/s", "bare, updates/s", "ratio", "first epoch over after, s"],
        rows,
    )


def measured(words: list[str], device: str, steps: int, since: float) -> dict:
    """Updates per second of the command with these words, and of its compiled update alone.

    Args:
        words: of the command.
        device: "cpu" or "gpu".
        steps: updates that are timed.
        since: when the process was started, seconds since the epoch.
    """
    sys.path[:0] = [str(report.ROOT), str(report.ROOT / "benchmarks" / "contenders")]
    import hardware
    import keras

    from hetmorph.cli import train

    try:
        where = hardware.of(device, "tensorflow")
    except hardware.Missing as error:
        raise SystemExit(f"--device {device}: {error}") from None
    fit, ends, fitted = keras.Model.fit, [], {}

    @functools.wraps(fit)
    def timed_fit(model, x, *args, callbacks, **options):
        # Last of all callbacks: what the others do at the end of an epoch is done.
        clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.time()))
        fit(model, x, *args, callbacks=[*callbacks, clock], **options)
        fitted.update(model=model, batches=x)
        raise Trained

    keras.Model.fit = timed_fit
    standard_output, sys.stdout = sys.stdout, sys.stderr
    try:
        train.run(train.parser("train").parse_args(words))
    except Trained:
        pass
    finally:
        keras.Model.fit, sys.stdout = fit, standard_output
    bare = bare_updates(fitted["model"], fitted["batches"], where)
    return {"command": steps / (ends[-1] - ends[0]), "bare": bare, "first": ends[0] - since}


def bare_updates(model, batches, where) -> float:
    """Updates per second of a model's own training function on the first of its batches, in the fastest turn."""
    import tensorflow as tf

    repeated = iter(tf.data.Dataset.from_tensors(next(iter(batches))).repeat())
    calls = max(1, UPDATES // TURNS // model.steps_per_execution)
    seconds = []
    for _ in range(1 + TURNS):  # the first one warms up
        start = time.time()
        for _ in range(calls):
            model.train_function(repeated)
        where.wait()
        seconds.append(time.time() - start)
    return calls * model.steps_per_execution / min(seconds[1:])


if __name__ == "__main__":
    main()
