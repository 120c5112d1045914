"""Time updates of one training on one device, on two of one process, and on two processes as two hosts.

A device is one core here, and one thread: "two devices" is one process on two cores, "two hosts" are two processes on a
core each, connected by TF_CONFIG as hosts are. Every arrangement trains the same batches of 128 × 128 by the pipeline
and `fit` that train.py uses; they take turns, each in processes of its own. The first updates, which compile, are left
out.

Example:
    python benchmarks/devices.py --rounds 3
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import report

ROOT = Path(__file__).resolve().parents[1]
ARRANGEMENTS = {"one device": (1, 1), "two devices": (2, 1), "two hosts": (1, 2)}  # devices of a host, hosts
OBJECTIVES = ("mse", "het")
BATCH = 8


def main() -> None:
    args = arguments()
    if args.worker:
        print(json.dumps(updates(**json.loads(args.worker))))
        return
    seconds = {}
    for turn in range(args.rounds):
        for objective in OBJECTIVES:
            for name in ARRANGEMENTS:
                print(f"round {turn + 1}: {objective}, {name}", file=sys.stderr)
                seconds.setdefault((objective, name), []).append(measured(objective, name, args.updates))
    results = [
        {"objective": objective, "arrangement": name, "seconds": statistics.median(times)}
        for (objective, name), times in seconds.items()
    ]
    text = table(results)
    print(text)
    if not args.no_page:
        shown = f"python benchmarks/devices.py --rounds {args.rounds} --updates {args.updates}"
        report.save("devices", results, text, shown, ROOT / "docs" / "several-devices.md")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each arrangement (default: 3)")
    parser.add_argument("--updates", type=int, default=20, help="that are timed in a turn (default: 20)")
    parser.add_argument("--no-page", action="store_true", help="leave docs/several-devices.md as it is")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def table(results: list[dict]) -> str:
    """Updates per second, and as a multiple of one device's."""
    rows = []
    for one in results:
        alone = next(r for r in results if (r["objective"], r["arrangement"]) == (one["objective"], "one device"))
        rows.append(
            [
                one["objective"],
                one["arrangement"],
                f"{1 / one['seconds']:.2f}",
                f"{alone['seconds'] / one['seconds']:.2f}",
            ]
        )
    return report.table(["objective", "arrangement", "updates/s", "× one device"], rows)


def measured(objective: str, name: str, count: int) -> float:
    """Seconds an update, of the slowest of the processes."""
    devices, hosts = ARRANGEMENTS[name]
    cores = sorted(os.sched_getaffinity(0))
    ports = [socket.create_server(("", 0)) for _ in range(hosts)]
    workers = [f"localhost:{one.getsockname()[1]}" for one in ports]
    for one in ports:
        one.close()
    one_thread = {name: "1" for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")}
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **one_thread, "TF_NUM_INTEROP_THREADS": str(devices)}
    processes = []
    for index in range(hosts):
        own = ",".join(str(cores[k % len(cores)]) for k in range(index * devices, (index + 1) * devices))
        job = {"objective": objective, "devices": devices, "workers": workers, "index": index, "count": count}
        words = ["taskset", "-c", own, sys.executable, __file__, "--worker", json.dumps(job)]
        processes.append(subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{objective}, {name}: a worker failed")
    return max(json.loads(text.splitlines()[-1]) for text in said)


def updates(objective: str, devices: int, workers: list[str], index: int, count: int) -> float:
    """Seconds an update, in one of the processes."""
    sys.path.append(str(ROOT))
    import keras

    from hetmorph import config, data
    from hetmorph.networks.build import build
    from hetmorph.training import distribute, hosts

    cluster = hosts.Cluster(tuple(workers), index) if len(workers) > 1 else None
    where = distribute(devices, cluster, {}, 120)
    settings = config.TrainConfig(
        objective=config.ObjectiveConfig(objective, warm_start=0 if objective == "het" else None)
    )
    pairs = data.load("phantom", split="train", size=(128, 128)).pairs
    keras.utils.set_random_seed(0)
    with where.scope():
        model = build(settings, (128, 128))
    batches = where.divided(lambda k, n: data.pipeline(pairs, BATCH, count + 2, 0, part=(k, n)), BATCH)
    moments = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: moments.append(time.perf_counter()))
    model.fit(batches, steps_per_epoch=count + 2, verbose=0, callbacks=[note])
    return (moments[-1] - moments[1]) / (len(moments) - 2)


if __name__ == "__main__":
    main()
