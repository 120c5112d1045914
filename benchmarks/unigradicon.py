"""uniGradICON here and in its original: equal displacements, time and memory of a registration and of one step.

The original, uniGradICON 1.0.6 on PyTorch, writes a checkpoint of the published network with random weights and batch
statistics; both register the same pair with it. A step is one update of all weights by the published loss on that pair:
local correlation, σ 5, in both directions, and 1.5 times the gradient of the inverse consistency. Peak memory is the
largest resident set of the process, the framework included. Of the ratios, above 1 means that hetmorph takes less.

Example:
    python benchmarks/unigradicon.py --size 175 --threads 2
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from common import command
from common.report import table
from common.rounds import Contender, compete, progress, workers

ORIGINAL = Contender("uniGradICON 1.0.6", "unigradicon", "unigradicon_torch.py")
OURS = Contender("hetmorph", "hetmorph", "unigradicon_tf.py")
WHAT = {"inference": "registration", "step": "step"}


def main() -> None:
    parser = command.parser(__doc__, rounds=1)
    parser.add_argument("--size", type=int, nargs="+", default=[175], help="voxels along each axis (default: 175)")
    parser.add_argument("--what", nargs="+", default=list(WHAT), choices=WHAT, help="what to time (default: both)")
    args = parser.parse_args()
    shape = args.size * 3 if len(args.size) == 1 else args.size
    pythons = command.pythons([ORIGINAL, OURS], args.python)
    results, texts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for threads, benchmark in itertools.product(command.threads(args), args.what):
            case = {"benchmark": benchmark, "threads": threads, "shape": shape, "folder": folder}
            for contender in (ORIGINAL, OURS):  # one after the other: both at once would not fit into memory
                progress(f"{WHAT[benchmark]}, {contender.label}, {threads} threads")
                with workers([contender], pythons, threads) as running:
                    timing = compete(running, case, args.rounds, 1)[contender.label]
                told = {"contender": contender.label, "seconds": timing.median, "peak_mib": timing.peak_mib}
                results.append({**case, **told, "folder": None})
        texts.append(_table(results))
        if "inference" in args.what:
            told = _difference(Path(folder))
            results.append({"shape": shape, **told})
            texts.append(
                f"Displacements of up to {told['largest']:.2f} voxels differ by at most {told['furthest']:.1g} "
                f"voxels, on average by {told['mean']:.1g}."
            )
    command.save("unigradicon", args, results, "\n\n".join(texts))


def _difference(folder: Path) -> dict:
    """Of the displacements that both have written, voxels."""
    original, ours = (np.load(folder / f"{name}.npy") for name in ("original", "ours"))
    apart = np.abs(original - ours)
    return {
        "largest": float(np.abs(original).max()),
        "furthest": float(apart.max()),
        "mean": float(apart.mean()),
    }


def _table(results: list[dict]) -> str:
    rows = []
    for first, second in zip(results[::2], results[1::2], strict=True):
        for one in (first, second):
            ratios = first["seconds"] / one["seconds"], first["peak_mib"] / one["peak_mib"]
            rows.append(
                [
                    WHAT[one["benchmark"]],
                    str(one["threads"]),
                    one["contender"],
                    f"{one['seconds']:.2f}",
                    f"{ratios[0]:.2f}",
                    f"{one['peak_mib'] / 1024:.2f}",
                    f"{ratios[1]:.2f}",
                ]
            )
    size = " × ".join(map(str, results[0]["shape"]))
    return f"{size} voxels\n\n" + table(["what", "threads", "program", "s", "ratio", "peak GiB", "ratio"], rows)


if __name__ == "__main__":
    main()
