"""Time warping, integrating, composing, resizing, local correlation, with gradients too, and augmentation, with peers.

2-D: 8 images of 128 × 128, fields for integration of half that size; 3-D: one of 96³. Every contender runs in a process
and an environment of its own; they take turns. The table has milliseconds of hetmorph and, for every other one, how
many times as long it takes: above 1 hetmorph is faster. "memory" is the time to move the operation's inputs and outputs
once, at the bandwidth of a copy in main memory in the same run. "random affine" takes both images of each pair through
maps of their own, as `hetmorph train --augment-affine 0.05` does, and uniGradICON's training by `affine_grid` and
`grid_sample` of PyTorch.

With --device gpu a time is the mean of a turn of many, at whose end the device is waited for.

Examples:
    python benchmarks/kernels.py
    python benchmarks/kernels.py --operations "local correlation, 9" "local correlation, 15"
    python benchmarks/kernels.py --device gpu
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
    Contender("voxelmorph 0.2, TF 2.15", "voxelmorph-tf", "voxelmorph_tf.py", devices=("cpu",)),
    Contender("voxelmorph 0.2 through compat", "hetmorph", "voxelmorph_tf.py", {"compat": True}),
    Contender("voxelmorph 0.3.4, PyTorch", "voxelmorph-torch", "voxelmorph_torch.py"),
    Contender("grid_sample, PyTorch", "voxelmorph-torch", "voxelmorph_torch.py", {"bare": True}),
    Contender("MONAI, PyTorch", "voxelmorph-torch", "voxelmorph_torch.py", {"monai": True}),
    Contender("memory", "hetmorph", "memory.py", devices=("cpu",)),
]
REPETITIONS = {"cpu": {2: 20, 3: 8}, "gpu": {2: 200, 3: 50}}  # of a turn, by the number of axes
AUGMENTATION = "random affine"
OPERATIONS = ("warp", "integrate", "compose", "resize", "local correlation, 9", "local correlation, 15", AUGMENTATION)


def main() -> None:
    parser = command.parser(__doc__, rounds=5, gpu=True)
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, help="only these")
    args = parser.parse_args()
    contenders = command.chosen(CONTENDERS, args.only, args.device)
    pythons = command.pythons(contenders, args.python)
    results = []
    cases = itertools.product((2, 3), args.operations or OPERATIONS, (False, True))
    cases = [(*of, backward) for *of, backward in cases if not (backward and AUGMENTATION in of)]
    for threads in command.threads(args):
        with workers(contenders, pythons, threads, args.device) as running:
            for ndims, operation, backward in cases:
                case = {"benchmark": "kernels", "ndims": ndims, "operation": operation, "backward": backward}
                gradients = "with gradients" if backward else "forward"
                progress(f"{operation}, {ndims}-D, {gradients}, {command.where(args, threads)}")
                repetitions = 2 if args.quick else REPETITIONS[args.device][ndims]
                rounds = 1 if args.quick else args.rounds
                timings = compete(running, {**case, "threads": threads}, rounds, repetitions, args.keep_going)
                seconds = {label: timing.median for label, timing in timings.items()}
                results.append({**case, "threads": threads, "seconds": seconds})
    tables = (_table(results, count, contenders, args) for count in command.threads(args))
    command.save("kernels", args, results, "\n\n".join(tables))


def _table(results: list[dict], threads: int, contenders: list[Contender], args) -> str:
    others = [c.label for c in contenders if c.label != OURS]
    rows = []
    for result in (r for r in results if r["threads"] == threads):
        seconds = result["seconds"]
        what = f"{result['operation']}, {result['ndims']}-D{', with gradients' if result['backward'] else ''}"
        ratios = [f"{seconds[o] / seconds[OURS]:.2f}" if o in seconds else "" for o in others]
        rows.append([what, f"{1e3 * seconds[OURS]:.2f}", *ratios])
    header = ["operation", "hetmorph, ms", *(f"{label}, × hetmorph" for label in others)]
    return f"{command.where(args, threads)}; × hetmorph: the time as a multiple of hetmorph's\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
