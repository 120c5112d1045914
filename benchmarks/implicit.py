"""Memory of one training update as the volume grows: a network of coordinates beside networks of voxels.

Each cell is a process of its own that trains on one pair of noise volumes for two updates, on one thread. Its peak is
that of the whole process, with TensorFlow itself (about 0.7 GiB) and both images; the second update is timed. The last
column is the slope, GiB for a million voxels more, from the smallest to the largest volume that was measured. Rows are
"arch objective", as train.py takes them.

Example:
    python benchmarks/implicit.py --sides 64 96 128 160 --rows "vxm mse" "nephi nephi"
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from common.report import table  # noqa: E402
from common.rounds import settings  # noqa: E402

ROWS = ["vxm mse", "gradicon gradicon", "nephi nephi"]


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[64, 96, 128], help="voxels (default: 64 96 128)")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="'ARCH OBJECTIVE'", help=f"default: {ROWS}")
    parser.add_argument("--points", type=int, help="nephi: where images are compared (default: as train.py's)")
    parser.add_argument("--one", action="store_true", help="measure one row and side in this process")
    return parser.parse_args(argv)


def measure(row: str, side: int, points: int | None) -> None:
    """Print peak GiB, and seconds of the second update."""
    import numpy as np

    from hetmorph import config
    from hetmorph.networks.build import build

    arch, objective = row.split()
    options = {"similarity": "mse"} if objective == "gradicon" else {"points": points} if objective == "nephi" else {}
    asked = {"network": {"arch": arch}, "objective": {"name": objective, **options}}
    model = build(config.from_dict(asked), (side,) * 3)
    pair = tuple(np.random.default_rng(0).random((2, 1, side, side, side, 1), np.float32))
    targets = [pair[1], np.zeros((1, 1, 1, 1, 3), np.float32)] if arch == "vxm" else None
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        model.fit(pair, targets, batch_size=1, verbose=0)
        seconds.append(time.perf_counter() - start)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} {seconds[1]:.1f}")


def measured(row: str, side: int, points: int | None) -> tuple[float, float] | None:
    """GiB and seconds of a process of its own; None where it ended for want of memory."""
    words = ["--rows", row, "--sides", str(side), *(["--points", str(points)] if points else [])]
    done = subprocess.run(
        [sys.executable, __file__, "--one", *words], env=os.environ | settings(1), capture_output=True, text=True
    )
    if done.returncode < 0 or "ResourceExhausted" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    gib, seconds = done.stdout.splitlines()[-1].split()
    return float(gib), float(seconds)


def slope(cells: list[tuple[int, float]]) -> str:
    """GiB for a million voxels more."""
    if len(cells) < 2:
        return ""
    (small, first), (large, last) = cells[0], cells[-1]
    return f"{(last - first) / (large**3 - small**3) * 1e6:.2f}"


def main(argv=None) -> None:
    args = arguments(argv)
    if args.one:
        return measure(args.rows[0], args.sides[0], args.points)
    rows = []
    for row in args.rows:
        found = []
        for side in args.sides:
            found.append(measured(row, side, args.points))
            print(f"{row}, {side}³: {found[-1] or 'out of memory'}", file=sys.stderr, flush=True)
        cells = [f"{one[0]:.2f} ({one[1]:.1f} s)" if one else "-" for one in found]
        known = [(side, one[0]) for side, one in zip(args.sides, found, strict=True) if one]
        rows.append([row, *cells, slope(known)])
    print(table(["network, objective", *(f"{side}³" for side in args.sides), "GiB per 10⁶ voxels"], rows))
    return None


if __name__ == "__main__":
    sys.exit(main())
