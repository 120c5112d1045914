"""Time warping, integrating, composing and resizing, forward and with gradients, against voxelmorph and PyTorch.

2-D: 8 images of 128 × 128, fields for integration of half that size; 3-D: one of 96³. Every contender runs in a process
and an environment of its own; they take turns. The table has milliseconds of hetmorph and, for every other one, how
many times as long it takes: above 1 hetmorph is faster. "memory" is the time to move the operation's inputs and outputs
once, at the bandwidth of a copy in main memory in the same run.

Examples:
    python benchmarks/kernels.py
    python benchmarks/kernels.py --quick --threads 1 --only hetmorph memory
"""

import itertools

from common import command
from common.report import table
from common.rounds import Contender, compete, progress, workers

OURS = "hetmorph"
CONTENDERS = [
    Contender(OURS, "hetmorph", "hetmorph_tf.py"),
    Contender("hetmorph, not compiled", "hetmorph", "hetmorph_tf.py", {"xla": False}),
    Contender("voxelmorph 0.2, TF 2.15", "voxelmorph-tf", "voxelmorph_tf.py"),
    Contender("voxelmorph 0.2 through compat", "hetmorph", "voxelmorph_tf.py", {"compat": True}),
    Contender("voxelmorph 0.3.4, PyTorch", "voxelmorph-torch", "voxelmorph_torch.py"),
    Contender("grid_sample, PyTorch", "voxelmorph-torch", "voxelmorph_torch.py", {"bare": True}),
    Contender("memory", "hetmorph", "memory.py"),
]
OPERATIONS = ("warp", "integrate", "compose", "resize")


def main() -> None:
    args = command.parser(__doc__, rounds=5).parse_args()
    contenders = command.chosen(CONTENDERS, args.only)
    pythons = command.pythons(contenders, args.python)
    results = []
    for threads in args.threads:
        with workers(contenders, pythons, threads) as running:
            for ndims, operation, backward in itertools.product((2, 3), OPERATIONS, (False, True)):
                case = {"benchmark": "kernels", "ndims": ndims, "operation": operation, "backward": backward}
                progress(f"{operation}, {ndims}-D, {'with gradients' if backward else 'forward'}, {threads} threads")
                repetitions = 2 if args.quick else 20 if ndims == 2 else 8
                timings = compete(running, {**case, "threads": threads}, 1 if args.quick else args.rounds, repetitions)
                seconds = {label: timing.median for label, timing in timings.items()}
                results.append({**case, "threads": threads, "seconds": seconds})
    command.save("kernels", args, results, "\n\n".join(_table(results, t, contenders) for t in args.threads))


def _table(results: list[dict], threads: int, contenders: list[Contender]) -> str:
    others = [c.label for c in contenders if c.label != OURS]
    rows = []
    for result in (r for r in results if r["threads"] == threads):
        seconds = result["seconds"]
        what = f"{result['operation']}, {result['ndims']}-D{', with gradients' if result['backward'] else ''}"
        ratios = [f"{seconds[o] / seconds[OURS]:.2f}" if o in seconds else "" for o in others]
        rows.append([what, f"{1e3 * seconds[OURS]:.2f}", *ratios])
    header = ["operation", "hetmorph, ms", *(f"{label}, × hetmorph" for label in others)]
    return f"{threads} threads; × hetmorph: the time as a multiple of hetmorph's\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
