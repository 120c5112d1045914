"""Time one update of the methods of inverse consistency, and its memory, against one of the squared difference.

2-D: 8 pairs of 128 × 128, registered in both directions by every method. "the same network" is VxmDense's; GradICON's
own is four tall U-Nets, constricon two affine steps and two velocities, both at half of the published width. Velocities
are followed by the midpoint's method, or integrated by squaring, which is cheaper and whose inverse is less exact.

Peak memory is the largest resident set of the process, including the framework itself.

Example:
    python benchmarks/consistency.py --threads 1
"""

from common import command
from common.report import table
from common.rounds import Contender, compete, progress, workers

NCC = {"similarity": "ncc", "window": 15}
BOTH = "mse, both directions"
METHODS = {
    BOTH: ({"name": "mse"}, {"bidir": True}),
    "icon, the same network": ({"name": "icon", "similarity": "mse"}, {}),
    "gradicon, the same network": ({"name": "gradicon", "similarity": "mse"}, {}),
    "gradicon, the same network, local correlation": ({"name": "gradicon", **NCC}, {}),
    "three repeats, local correlation": ({"name": "diffusion", **NCC}, {"bidir": True, "repeats": 3}),
    "gradicon's own network": ({"name": "gradicon", "similarity": "mse"}, {"arch": "gradicon", "width": 0.5}),
    "constricon": ({"name": "velocity-diffusion", "similarity": "mse"}, {"arch": "constricon", "width": 0.5}),
}
CONTENDERS = [
    Contender(name, "hetmorph", "hetmorph_tf.py", {"config": {"objective": objective, "network": network}})
    for name, (objective, network) in METHODS.items()
]
CASE = {"benchmark": "train_step", "shape": [128, 128], "batch": 8}


def main() -> None:
    args = command.parser(__doc__, rounds=5).parse_args()
    contenders = command.chosen(CONTENDERS, args.only)
    pythons = command.pythons(contenders, args.python)
    results, tables = [], []
    for threads in args.threads:
        case = {**CASE, "threads": threads}
        progress(f"{threads} threads")
        with workers(contenders, pythons, threads) as running:
            timings = compete(running, case, 1 if args.quick else args.rounds, 1 if args.quick else 3)
        mine = [
            {**case, "contender": label, "seconds": timing.median, "peak_mib": timing.peak_mib}
            for label, timing in timings.items()
        ]
        results += mine
        tables.append(_table(mine, threads))
    command.save("consistency", args, results, "\n\n".join(tables))


def _table(results: list[dict], threads: int) -> str:
    reference = next((r["seconds"] for r in results if r["contender"] == BOTH), results[0]["seconds"])
    rows = [
        [
            r["contender"],
            f"{1e3 * r['seconds']:.0f}",
            f"{r['seconds'] / reference:.2f}",
            f"{r['peak_mib']:.0f}",
        ]
        for r in results
    ]
    header = ["update", "ms", f"time / {BOTH}", "peak MiB"]
    return f"128 × 128, batch 8, {threads} threads\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
