"""Time and memory of one update, and of one registration, on a volume of 160 × 192 × 224.

The programs run one after the other, each in a process of its own: first a registration or an update that builds and
traces everything, then one that is timed. Peak memory is the largest resident set of the process, the framework
included. bfloat16 halves the U-Net's images in memory; weights, coordinates and losses stay in float32. Slabs
are gradient checkpointing: the convolutions of full resolution are computed slab by slab, and again for the gradient.

With --device gpu the images stay in the device's memory, the moved image comes back; a time is the mean of a turn, the
device is waited for at its end, "first" is from the start of the process to the end of the first one, and "device GiB"
the most that the framework's tensors and working memory took at once.

Examples:
    python benchmarks/volume.py --threads 2
    python benchmarks/volume.py --device gpu --what registration
"""

import contextlib
import itertools

from common import command
from common.report import table
from common.rounds import Contender, begin, compete, progress, workers

OURS = ("hetmorph", "hetmorph_tf.py")
TORCH = ("voxelmorph-torch", "voxelmorph_torch.py")
LEAN = {"precision": "bfloat16", "slabs": 8}
CONTENDERS = [
    Contender("hetmorph mse", *OURS, {"objective": "mse", "form": "function"}),
    Contender("hetmorph mse, jit_compile", *OURS, {"objective": "mse", "form": "compiled"}, devices=("gpu",)),
    Contender("hetmorph mse, bfloat16", *OURS, {"objective": "mse", "form": "function", "precision": "bfloat16"}),
    Contender("hetmorph mse, 8 slabs", *OURS, {"objective": "mse", "form": "function", "slabs": 8}),
    Contender("hetmorph mse, bfloat16, 8 slabs", *OURS, {**LEAN, "objective": "mse", "form": "function"}),
    Contender("hetmorph het", *OURS, {"objective": "reuse"}),
    Contender("hetmorph het, bfloat16, 8 slabs", *OURS, {**LEAN, "objective": "reuse"}),
    Contender("voxelmorph 0.2, TF 2.15", "voxelmorph-tf", "voxelmorph_tf.py", devices=("cpu",)),
    Contender("voxelmorph 0.3.4, same network", *TORCH, {"layout": "dense"}),
    Contender("voxelmorph 0.3.4, same network, torch.compile", *TORCH, {"layout": "dense", "compiled": True}),
]
WHAT = {"update": "train_step", "registration": "inference"}
SHAPE = [160, 192, 224]


def main() -> None:
    parser = command.parser(__doc__, rounds=1, gpu=True)
    parser.add_argument("--what", nargs="+", default=list(WHAT), choices=WHAT, help="what to time (default: both)")
    parser.add_argument(
        "--size", type=int, nargs=3, default=SHAPE, help="voxels along each axis (default: 160 192 224)"
    )
    args = parser.parse_args()
    contenders = command.chosen(CONTENDERS, args.only, args.device)
    pythons = command.pythons(contenders, args.python)
    results = []
    for threads in command.threads(args):
        turns = [
            (what, contender, {"benchmark": WHAT[what], "threads": threads, "shape": args.size, "batch": 1})
            for what, contender in itertools.product(args.what, contenders)
            if competes(what, contender)
        ]
        with contextlib.ExitStack() as stack:
            teams = [workers([contender], pythons, threads, args.device) for _, contender, _ in turns]
            if args.at_once:
                entered = [stack.enter_context(team) for team in teams]
                begin(zip(entered, (case for *_, case in turns), strict=True))
                teams = [contextlib.nullcontext(team) for team in entered]
            for (what, contender, case), team in zip(turns, teams, strict=True):
                progress(f"{what}, {contender.label}, {command.where(args, threads)}")
                with team as running:
                    results += timed(running, case, args)
    tables = (_table(results, count, args) for count in command.threads(args))
    command.save("volume", args, results, "\n\n".join(tables))


def competes(what: str, contender: Contender) -> bool:
    """Whether a contender has something of its own to show."""
    if what == "registration":
        return contender.options.get("objective") != "reuse"  # registers as "mse" does
    return contender.options.get("form") != "compiled"  # Keras compiles the update by itself


def timed(running: list, case: dict, args) -> list[dict]:
    """What the one contender takes; nothing if it failed."""
    repetitions = 1 if args.quick or args.device == "cpu" else 10
    timings = compete(running, case, args.rounds, repetitions, args.keep_going)
    return [timing.result(case, label, args.device) for label, timing in timings.items()]


def _table(results: list[dict], threads: int, args) -> str:
    gpu = args.device == "gpu"
    rows = [
        [
            next(what for what, benchmark in WHAT.items() if benchmark == r["benchmark"]),
            r["contender"],
            f"{1e3 * r['seconds']:.1f}" if gpu else f"{r['seconds']:.1f}",
            *([f"{r['first_seconds']:.1f}", f"{r['device_mib'] / 1024:.1f}"] if gpu else []),
            f"{r['peak_mib'] / 1024:.1f}",
        ]
        for r in results
        if r["threads"] == threads
    ]
    header = ["what", "program", *(["ms", "first, s", "device GiB"] if gpu else ["s"]), "peak GiB"]
    return f"{command.where(args, threads)}\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
