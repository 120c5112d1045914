"""Time one update of a registration network, and the memory it takes, against voxelmorph on TensorFlow and PyTorch.

2-D: 8 pairs of 128 × 128; 3-D: one pair of 96³. "mse" is the mean squared difference with a penalty on the velocity's
gradient; "het" the heteroscedastic objective, which trains a second network; "het, two passes" warps anew for it, as
published. voxelmorph 0.3.4 runs VxmDense's network built of its modules ("same network"), that with PyTorch's
channels-last memory, and its own default network, which has a third of the weights and computes something else.
"jit_compile" has XLA compile the whole update, convolutions included, which Keras does by itself where there is a GPU;
"steps_per_execution" are Keras'. "torch.compile" compiles model and loss together.

Peak memory is the largest resident set of the process, including the framework itself.

With --device gpu the sizes are also 64 pairs of 128 × 128 and one of 160 × 192 × 224. The batch stays in the device's
memory for all. A time is then the mean of a turn of many updates, at whose end the device is waited for; a turn before
warms up. "first update" is from the start of the process to the end of the first update: importing, building, tracing,
compiling. "device MiB" is the most that the framework's tensors and working memory took at once.

Examples:
    python benchmarks/train_step.py --threads 1
    python benchmarks/train_step.py --threads 1 --only "hetmorph mse" "hetmorph het" --against ../hetmorph-before
    python benchmarks/train_step.py --device gpu
    python benchmarks/train_step.py --device gpu --cases 96x96x96:1 160x192x224:1 --only "hetmorph mse" torch.compile
"""

import contextlib
import dataclasses
import itertools
from pathlib import Path

from common import command
from common.report import table
from common.rounds import Contender, begin, compete, progress, workers

# What TensorFlow does by itself on processors without AVX-512; hetmorph switches oneDNN on.
NO_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}
OURS = "hetmorph mse"
TORCH = ("voxelmorph-torch", "voxelmorph_torch.py")
HETMORPH = ("hetmorph", "hetmorph_tf.py")
CPU, GPU = ("cpu",), ("gpu",)
CONTENDERS = [
    Contender(OURS, *HETMORPH, {"objective": "mse"}),
    Contender("hetmorph mse, without oneDNN", *HETMORPH, {"objective": "mse"}, NO_ONEDNN, CPU),
    Contender("hetmorph mse, bfloat16", *HETMORPH, {"objective": "mse", "precision": "bfloat16"}),
    Contender("hetmorph mse, jit_compile", *HETMORPH, {"objective": "mse", "jit_compile": True}),
    Contender("hetmorph mse, no jit_compile", *HETMORPH, {"objective": "mse", "jit_compile": False}, devices=GPU),
    Contender("hetmorph mse, 4 steps_per_execution", *HETMORPH, {"objective": "mse", "updates": 4}, devices=CPU),
    Contender("hetmorph het", *HETMORPH, {"objective": "reuse"}),
    Contender("hetmorph het, two passes", *HETMORPH, {"objective": "recompute"}),
    Contender("voxelmorph 0.2, TF 2.15", "voxelmorph-tf", "voxelmorph_tf.py", devices=CPU),
    Contender("voxelmorph 0.2 through compat", "hetmorph", "voxelmorph_tf.py", {"compat": True}),
    Contender("voxelmorph 0.3.4, same network", *TORCH, {"layout": "dense"}),
    Contender("voxelmorph 0.3.4, same network, channels last", *TORCH, {"layout": "dense", "channels_last": True}),
    Contender("voxelmorph 0.3.4, same network, torch.compile", *TORCH, {"layout": "dense", "compiled": True}),
    Contender("voxelmorph 0.3.4, its own network", *TORCH, {"layout": "own"}),
    Contender("voxelmorph 0.3.4, its own network, torch.compile", *TORCH, {"layout": "own", "compiled": True}),
]
REPETITIONS = {"cpu": {2: 6, 3: 1}, "gpu": {2: 50, 3: 10}}  # of a turn, by the number of axes
CASES = {
    "cpu": ["128x128:8", "96x96x96:1"],
    "gpu": ["128x128:8", "128x128:64", "96x96x96:1", "160x192x224:1"],
}


def main() -> None:
    args = arguments().parse_args()
    contenders = command.chosen(CONTENDERS, args.only, args.device)
    contenders += of_clone(contenders, args.against) if args.against else []
    pythons = command.pythons(contenders, args.python)
    sizes = args.cases or [command.size(text) for text in CASES[args.device]]
    results = []
    for threads, group in itertools.product(command.threads(args), [sizes] if args.at_once else [[s] for s in sizes]):
        cases = [{"benchmark": "train_step", "threads": threads, **size} for size in group]
        with contextlib.ExitStack() as stack:
            teams = [stack.enter_context(workers(contenders, pythons, threads, args.device)) for _ in cases]
            if args.at_once:
                begin(zip(teams, cases, strict=True))
            for team, case in zip(teams, cases, strict=True):
                results += timed(team, case, args)
    tables = (_table(results, size, count, args) for size, count in itertools.product(sizes, command.threads(args)))
    command.save("train_step", args, results, "\n\n".join(tables))


def arguments():
    parser = command.parser(__doc__, rounds=5, gpu=True)
    parser.add_argument(
        "--cases", type=command.size, nargs="+", metavar="SIZE:BATCH", help="in place of those of the device"
    )
    parser.add_argument("--against", type=Path, metavar="CLONE", help="another clone, whose hetmorph is timed too")
    return parser


def of_clone(contenders: list[Contender], clone: Path) -> list[Contender]:
    """The contenders that are hetmorph, from another clone of it."""
    if not (clone / "hetmorph").is_dir():
        raise SystemExit(f"--against: expected a clone of hetmorph, received {clone}")
    variables = {"HETMORPH_CLONE": str(clone.resolve())}
    return [
        dataclasses.replace(one, label=f"{one.label}, {clone.name}", variables={**one.variables, **variables})
        for one in contenders
        if one.script == HETMORPH[1]
    ]


def timed(team: list, case: dict, args) -> list[dict]:
    """What every contender takes for one case."""
    progress(f"{case['shape']}, batch {case['batch']}, {command.where(args, case['threads'])}")
    repetitions = 1 if args.quick else REPETITIONS[args.device][len(case["shape"])]
    timings = compete(team, case, 1 if args.quick else args.rounds, repetitions, args.keep_going)
    return [timing.result(case, label, args.device) for label, timing in timings.items()]


def _table(results: list[dict], size: dict, threads: int, args) -> str:
    gpu = args.device == "gpu"
    mine = [r for r in results if all(r[key] == size[key] for key in size) and r["threads"] == threads]
    reference = next((r["seconds"] for r in mine if r["contender"] == OURS), mine[0]["seconds"] if mine else None)
    rows = [
        [
            r["contender"],
            f"{1e3 * r['seconds']:.{2 if gpu else 0}f}",
            f"{size['batch'] / r['seconds']:.2f}",
            f"{r['seconds'] / reference:.2f}",
            *([f"{r['first_seconds']:.1f}", f"{r['device_mib']:.0f}"] if gpu else []),
            f"{r['peak_mib']:.0f}",
        ]
        for r in mine
    ]
    shape = " × ".join(map(str, size["shape"]))
    header = ["update", "ms", "pairs/s", "time / hetmorph mse", *(["first update, s", "device MiB"] if gpu else [])]
    where = command.where(args, threads)
    return f"{shape}, batch {size['batch']}, {where}\n\n" + table([*header, "peak MiB"], rows)


if __name__ == "__main__":
    main()
