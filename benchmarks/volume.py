"""Time and memory of one update, and of one registration, on a volume of 160 × 192 × 224.

The programs run one after the other, each in a process of its own: first a registration or an update that builds and
traces everything, then one that is timed. Peak memory is the largest resident set of the process, the framework
included. bfloat16 halves the U-Net's images in memory; weights, coordinates and losses stay in float32. Slabs
are gradient checkpointing: the convolutions of full resolution are computed slab by slab, and again for the gradient.

Example:
    python benchmarks/volume.py --threads 2
"""

import itertools

from common import command
from common.report import table
from common.rounds import Contender, compete, progress, workers

OURS = ("hetmorph", "hetmorph_tf.py")
TORCH = ("voxelmorph-torch", "voxelmorph_torch.py")
LEAN = {"precision": "bfloat16", "slabs": 8}
CONTENDERS = [
    Contender("hetmorph mse", *OURS, {"objective": "mse", "form": "function"}),
    Contender("hetmorph mse, bfloat16", *OURS, {"objective": "mse", "form": "function", "precision": "bfloat16"}),
    Contender("hetmorph mse, 8 slabs", *OURS, {"objective": "mse", "form": "function", "slabs": 8}),
    Contender("hetmorph mse, bfloat16, 8 slabs", *OURS, {**LEAN, "objective": "mse", "form": "function"}),
    Contender("hetmorph het", *OURS, {"objective": "reuse"}),
    Contender("hetmorph het, bfloat16, 8 slabs", *OURS, {**LEAN, "objective": "reuse"}),
    Contender("voxelmorph 0.2, TF 2.15", "voxelmorph-tf", "voxelmorph_tf.py"),
    Contender("voxelmorph 0.3.4, same network", *TORCH, {"layout": "dense"}),
]
SHAPE = [160, 192, 224]


def main() -> None:
    args = command.parser(__doc__, rounds=1).parse_args()
    contenders = command.chosen(CONTENDERS, args.only)
    pythons = command.pythons(contenders, args.python)
    results = []
    for threads, benchmark, contender in itertools.product(args.threads, ("train_step", "inference"), contenders):
        if benchmark == "inference" and contender.options.get("objective") == "reuse":
            continue  # registers as "mse" does
        case = {"benchmark": benchmark, "threads": threads, "shape": SHAPE, "batch": 1}
        progress(f"{benchmark}, {contender.label}, {threads} threads")
        with workers([contender], pythons, threads) as running:
            timing = compete(running, case, args.rounds, 1)[contender.label]
        results.append({**case, "contender": contender.label, "seconds": timing.median, "peak_mib": timing.peak_mib})
    command.save("volume", args, results, "\n\n".join(_table(results, threads) for threads in args.threads))


def _table(results: list[dict], threads: int) -> str:
    rows = [
        [
            "update" if r["benchmark"] == "train_step" else "registration",
            r["contender"],
            f"{r['seconds']:.1f}",
            f"{r['peak_mib'] / 1024:.1f}",
        ]
        for r in results
        if r["threads"] == threads
    ]
    return f"{threads} threads\n\n" + table(["what", "program", "s", "peak GiB"], rows)


if __name__ == "__main__":
    main()
