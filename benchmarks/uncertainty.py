"""Time and memory of an uncertainty map against what the model itself takes, in one run.

The same pair is registered once by the model, as `evaluation.wrap(model)` does it, and n = 50 times for a map; the two
take turns, so that whatever else the machine does slows both. The ratio is the map's time in single registrations: 50
would mean that transforms, warps and statistics cost nothing. Memory is the largest resident set of a process of its
own for each: one that registers the volume once, and one that also maps it with two transforms (memory does not grow
with their number).

Example:
    python benchmarks/uncertainty.py --threads 1
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import report
from common.report import table
from common.rounds import progress, settings

FAMILIES = ("translation", "affine", "smooth-bspline", "bspline")
IMAGE = (128, 128)
VOLUME = (160, 192, 224)
N = 50


def main() -> None:
    args = arguments()
    os.environ.update(settings(args.threads))
    sys.path.insert(0, str(report.ROOT))
    if args.memory:
        return peak(tuple(args.volume), args.memory)
    results = [timed(name, args.rounds) for name in FAMILIES]
    shape = tuple(args.volume)
    model, mapped = (peak_of(shape, what) for what in ("model", "map"))
    results.append({"volume": shape, "model_mib": model, "map_mib": mapped})
    text = f"{args.threads} threads, n = {N}, {IMAGE[0]} × {IMAGE[1]}\n\n" + _table(results[:-1])
    text += (
        f"\n\nA volume of {' × '.join(map(str, shape))}: peak {model / 1024:.2f} GiB for the registration, "
        f"{mapped / 1024:.2f} GiB with the map (whole covariance), {(mapped - model) / 1024:+.2f} GiB."
    )
    print(text)
    if not args.quick:
        command = f"python benchmarks/uncertainty.py --threads {args.threads}"
        page = None if args.no_page else report.ROOT / "docs" / "uncertainty.md"
        report.save("uncertainty", results, text, command, page)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="maps of each family; the median counts (default: 7)")
    parser.add_argument("--volume", type=int, nargs=3, default=VOLUME, help="size of the volume for the memory")
    parser.add_argument("--quick", action="store_true", help="keep nothing, to see that it runs")
    parser.add_argument("--no-page", action="store_true", help="leave docs/uncertainty.md as it is")
    parser.add_argument("--memory", choices=("model", "map"), help=argparse.SUPPRESS)  # of the process of its own
    return parser.parse_args()


def pair_of(shape: tuple[int, ...]):
    """A blurred ball, and a smaller one beside it."""
    sys.path.insert(0, str(Path(__file__).parent / "contenders"))
    import problem

    return (image[0, ..., 0] for image in problem.pair(list(shape), 1))


def timed(family: str, rounds: int) -> dict:
    """Median seconds of one registration and of one map, taking turns."""
    from hetmorph import evaluation, networks, uncertainty

    progress(f"{family}, {IMAGE}")
    moving, fixed = pair_of(IMAGE)
    predictor = evaluation.wrap(networks.VxmDense(IMAGE))
    single, whole = [], []
    for round_ in range(rounds + 1):
        for _ in range(10):
            start = time.perf_counter()
            predictor(moving, fixed)
            single.append(time.perf_counter() - start)
        start = time.perf_counter()
        uncertainty.equivariance_uncertainty(predictor, moving, fixed, family, n=N, progress=False)
        whole.append(time.perf_counter() - start)
        if round_ == 0:  # traced and compiled now
            single, whole = [], []
    one, n = statistics.median(single), statistics.median(whole)
    return {"transforms": family, "pass_seconds": one, "map_seconds": n, "passes": n / one}


def peak_of(shape: tuple[int, ...], what: str) -> float:
    """MiB that a process of its own needs."""
    progress(f"memory of the {what}, {shape}")
    command = [sys.executable, __file__, "--memory", what, "--volume", *map(str, shape)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak(shape: tuple[int, ...], what: str) -> None:
    """Register a volume, map it if asked, and print the largest resident set in MiB."""
    from hetmorph import evaluation, networks, uncertainty

    moving, fixed = pair_of(shape)
    predictor = evaluation.wrap(networks.VxmDense(shape))
    predictor.displacements(moving[None], fixed[None])
    if what == "map":
        uncertainty.equivariance_uncertainty(predictor, moving, fixed, n=2, progress=False)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))


def _table(results: list[dict]) -> str:
    rows = [
        [r["transforms"], f"{1e3 * r['pass_seconds']:.1f}", f"{r['map_seconds']:.2f}", f"{r['passes']:.1f}"]
        for r in results
    ]
    return table(["transforms", "one registration, ms", "map, s", "in registrations"], rows)


if __name__ == "__main__":
    main()
