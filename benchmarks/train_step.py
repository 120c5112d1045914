"""Time one update of a registration network, and the memory it takes, against voxelmorph on TensorFlow and PyTorch.

2-D: 8 pairs of 128 × 128; 3-D: one pair of 96³. "mse" is the mean squared difference with a penalty on the velocity's
gradient; "het" the heteroscedastic objective, which trains a second network; "het, two passes" warps anew for it, as
published. voxelmorph 0.3.4 runs VxmDense's network built of its modules ("same network"), that with PyTorch's
channels-last memory, and its own default network, which has a third of the weights and computes something else.
"jit_compile" has XLA compile the whole update, convolutions included; "steps_per_execution" are Keras'.

Peak memory is the largest resident set of the process, including the framework itself.

Example:
    python benchmarks/train_step.py --threads 1
"""

import itertools

from common import command
from common.report import table
from common.rounds import Contender, compete, progress, workers

# What TensorFlow does by itself on processors without AVX-512; hetmorph switches oneDNN on.
NO_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}
OURS = "hetmorph mse"
TORCH = ("voxelmorph-torch", "voxelmorph_torch.py")
CONTENDERS = [
    Contender(OURS, "hetmorph", "hetmorph_tf.py", {"objective": "mse"}),
    Contender("hetmorph mse, without oneDNN", "hetmorph", "hetmorph_tf.py", {"objective": "mse"}, NO_ONEDNN),
    Contender("hetmorph mse, bfloat16", "hetmorph", "hetmorph_tf.py", {"objective": "mse", "precision": "bfloat16"}),
    Contender("hetmorph mse, jit_compile", "hetmorph", "hetmorph_tf.py", {"objective": "mse", "jit_compile": True}),
    Contender("hetmorph mse, 4 steps_per_execution", "hetmorph", "hetmorph_tf.py", {"objective": "mse", "updates": 4}),
    Contender("hetmorph het", "hetmorph", "hetmorph_tf.py", {"objective": "reuse"}),
    Contender("hetmorph het, two passes", "hetmorph", "hetmorph_tf.py", {"objective": "recompute"}),
    Contender("voxelmorph 0.2, TF 2.15", "voxelmorph-tf", "voxelmorph_tf.py"),
    Contender("voxelmorph 0.2 through compat", "hetmorph", "voxelmorph_tf.py", {"compat": True}),
    Contender("voxelmorph 0.3.4, same network", *TORCH, {"layout": "dense"}),
    Contender("voxelmorph 0.3.4, same network, channels last", *TORCH, {"layout": "dense", "channels_last": True}),
    Contender("voxelmorph 0.3.4, its own network", *TORCH, {"layout": "own"}),
]
CASES = [{"shape": [128, 128], "batch": 8}, {"shape": [96, 96, 96], "batch": 1}]


def main() -> None:
    args = command.parser(__doc__, rounds=5).parse_args()
    contenders = command.chosen(CONTENDERS, args.only)
    pythons = command.pythons(contenders, args.python)
    results = []
    for threads, size in itertools.product(args.threads, CASES):
        case = {"benchmark": "train_step", "threads": threads, **size}
        progress(f"{size['shape']}, batch {size['batch']}, {threads} threads")
        repetitions = 1 if args.quick else 6 if len(size["shape"]) == 2 else 1
        with workers(contenders, pythons, threads) as running:
            timings = compete(running, case, 1 if args.quick else args.rounds, repetitions)
        for label, timing in timings.items():
            results.append({**case, "contender": label, "seconds": timing.median, "peak_mib": timing.peak_mib})
    command.save(
        "train_step", args, results, "\n\n".join(_table(results, *c) for c in itertools.product(CASES, args.threads))
    )


def _table(results: list[dict], size: dict, threads: int) -> str:
    mine = [r for r in results if r["shape"] == size["shape"] and r["threads"] == threads]
    reference = next((r["seconds"] for r in mine if r["contender"] == OURS), mine[0]["seconds"])
    rows = [
        [
            r["contender"],
            f"{1e3 * r['seconds']:.0f}",
            f"{size['batch'] / r['seconds']:.2f}",
            f"{r['seconds'] / reference:.2f}",
            f"{r['peak_mib']:.0f}",
        ]
        for r in mine
    ]
    shape = " × ".join(map(str, size["shape"]))
    header = ["update", "ms", "pairs/s", "time / hetmorph mse", "peak MiB"]
    return f"{shape}, batch {size['batch']}, {threads} threads\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
