"""Time one update of the methods of inverse consistency, and its memory, against one of the squared difference.

2-D: 8 pairs of 128 × 128, registered in both directions by every method. "the same network" is VxmDense's; GradICON's
own is four tall U-Nets, constricon two affine steps and two velocities, both at half of the published width. Velocities
are followed by the midpoint's method, or integrated by squaring, which is cheaper and whose inverse is less exact.

Peak memory is the largest resident set of the process, including the framework itself.

With --device gpu a time is the mean of a turn, at whose end the device is waited for; "first update" is from the start
of the process to the end of the first one, "device MiB" the most that tensors and working memory took at once.

Examples:
    python benchmarks/consistency.py --threads 1
    python benchmarks/consistency.py --device gpu --case 175x175x175:1 --only "gradicon's own network"
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
CASE = "128x128:8"


def main() -> None:
    parser = command.parser(__doc__, rounds=5, gpu=True)
    parser.add_argument("--case", type=command.size, default=CASE, metavar="SIZE:BATCH", help=f"(default: {CASE})")
    args = parser.parse_args()
    contenders = command.chosen(CONTENDERS, args.only, args.device)
    pythons = command.pythons(contenders, args.python)
    results, tables = [], []
    for threads in command.threads(args):
        case = {"benchmark": "train_step", **args.case, "threads": threads}
        progress(command.where(args, threads))
        with workers(contenders, pythons, threads, args.device) as running:
            timings = compete(running, case, 1 if args.quick else args.rounds, 1 if args.quick else 3, args.keep_going)
        mine = [timing.result(case, label, args.device) for label, timing in timings.items()]
        results += mine
        tables.append(_table(mine, threads, args))
    command.save("consistency", args, results, "\n\n".join(tables))


def _table(results: list[dict], threads: int, args) -> str:
    gpu = args.device == "gpu"
    reference = next((r["seconds"] for r in results if r["contender"] == BOTH), None)
    rows = [
        [
            r["contender"],
            f"{1e3 * r['seconds']:.{1 if gpu else 0}f}",
            f"{r['seconds'] / reference:.2f}" if reference else "",
            *([f"{r['first_seconds']:.1f}", f"{r['device_mib']:.0f}"] if gpu else []),
            f"{r['peak_mib']:.0f}",
        ]
        for r in results
    ]
    header = ["update", "ms", f"time / {BOTH}", *(["first update, s", "device MiB"] if gpu else []), "peak MiB"]
    shape = " × ".join(map(str, args.case["shape"]))
    return f"{shape}, batch {args.case['batch']}, {command.where(args, threads)}\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
