"""Time the registration of pairs by the Keras model, a tf.function and a SavedModel, against peers and classical tools.

The network is VxmDense with default features on 128 × 128 images; the classical programs register the same pair, one at
a time. Ratios are per pair against the SavedModel at the same batch size; the classical ones have batch size 1. "first
result" is the time from the start of the process to the first pair or batch done, imports and tracing included.

Example:
    python benchmarks/inference.py --threads 1
"""

import itertools
import subprocess
import sys
import tempfile

from common import command, report
from common.report import table
from common.rounds import Contender, cold_start, compete, progress, workers

OURS = "hetmorph SavedModel"
TORCH = ("voxelmorph-torch", "voxelmorph_torch.py")
CPU = ("cpu",)
CONTENDERS = [
    Contender(OURS, "hetmorph", "saved_model.py"),
    Contender("hetmorph Keras model", "hetmorph", "hetmorph_tf.py", {"form": "predict"}),
    Contender("hetmorph tf.function", "hetmorph", "hetmorph_tf.py", {"form": "function"}),
    Contender("voxelmorph 0.3.4, same network", *TORCH, {"layout": "dense"}),
    Contender("voxelmorph 0.3.4, same network, channels last", *TORCH, {"layout": "dense", "channels_last": True}),
    Contender("voxelmorph 0.3.4, its own network", *TORCH, {"layout": "own"}),
    Contender("SimpleITK diffeomorphic demons", "classical", "classical.py", {"tool": "demons"}, devices=CPU),
    Contender("ANTsPy SyNOnly", "classical", "classical.py", {"tool": "syn"}, devices=CPU),
    Contender("greedy", "classical", "classical.py", {"tool": "greedy"}, devices=CPU),
]
SHAPE = [128, 128]
BATCHES = (1, 8, 32)
# In a process of its own: the contender that serves the file shall not have hetmorph in memory.
EXPORT = f"""
import sys
from hetmorph.networks import VxmDense
from hetmorph.serving import export_savedmodel
print(export_savedmodel(VxmDense({SHAPE}), sys.argv[1]))
"""


def main() -> None:
    args = command.parser(__doc__, rounds=5, gpu=True).parse_args()
    contenders = command.chosen(CONTENDERS, args.only, args.device)
    pythons = command.pythons(contenders, args.python)
    results = []
    folder = tempfile.mkdtemp()
    saved_model = subprocess.run(
        [sys.executable, "-c", EXPORT, folder], check=True, capture_output=True, text=True, cwd=report.ROOT
    )
    exported = {"saved_model": saved_model.stdout.splitlines()[-1]}
    for threads, batch in itertools.product(command.threads(args), BATCHES):
        case = {"benchmark": "inference", "threads": threads, "shape": SHAPE, "batch": batch}
        progress(f"batch {batch}, {threads} threads")
        with workers(contenders, pythons, threads, args.device) as running:
            rounds, repetitions = 1 if args.quick else args.rounds, 2 if args.quick else 5
            timings = compete(running, {**case, **exported}, rounds, repetitions, args.keep_going)
        for contender in (c for c in contenders if c.label in timings):
            timing = timings[contender.label]
            first = cold_start(contender, {**case, **exported}, pythons, args.device)
            row = {**case, "contender": contender.label, "seconds": timing.median}
            results.append({**row, "cold_start": first, "peak_mib": timing.peak_mib})
    tables = (_table(results, count, args) for count in command.threads(args))
    command.save("inference", args, results, "\n\n".join(tables))


def _table(results: list[dict], threads: int, args) -> str:
    rows = []
    for batch in BATCHES:
        mine = [r for r in results if r["batch"] == batch and r["threads"] == threads]
        reference = next((r["seconds"] for r in mine if r["contender"] == OURS), mine[0]["seconds"])
        for r in mine:
            pairs = batch / r["seconds"]
            ratio, first = r["seconds"] / reference, r["cold_start"]
            rows.append(
                [
                    r["contender"],
                    str(batch),
                    f"{1e3 * r['seconds']:.1f}",
                    f"{pairs:.1f}",
                    f"{ratio:.2f}",
                    f"{first:.1f}",
                ]
            )
    header = ["program", "batch", "latency, ms", "pairs/s", "time / SavedModel", "first result, s"]
    return f"{command.where(args, threads)}\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
