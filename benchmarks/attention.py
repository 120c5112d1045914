"""Time and memory of attention to coordinates: queries of an image of so many voxels a side, keys of it and its margin.

Each row is measured in a process of its own, on one thread. The peak is that of the whole process, with TensorFlow
itself (about 0.6 GiB) and the features of both images; "dense" is what the matrix of weights alone would take.

Example:
    python benchmarks/attention.py --sides 16 24 32 44
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

PADDING, FEATURES, LENGTH = 9, 128, 4.0  # of CARL


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[16, 24, 32, 44], help="voxels (default: 16 24 32 44)")
    parser.add_argument("--block-size", type=int, default=512, help="of the layer (default: 512)")
    parser.add_argument("--one", choices=("forward", "gradient"), help="measure one side in this process")
    return parser.parse_args(argv)


def measure(side: int, block_size: int, gradient: bool) -> None:
    """Print seconds and peak GiB."""
    import tensorflow as tf

    from hetmorph.layers import CoordinateAttention, FeatureNorm

    padded = [1, *[side + 2 * PADDING] * 3, FEATURES]
    features = [FeatureNorm(LENGTH)(tf.random.normal(padded)) for _ in range(2)]
    layer = CoordinateAttention(PADDING, block_size)
    layer.build([padded, padded])

    @tf.function
    def run(moving, fixed):
        if not gradient:
            return layer([moving, fixed])
        with tf.GradientTape() as tape:
            tape.watch([moving, fixed])
            total = tf.reduce_sum(tf.square(layer([moving, fixed])))
        return tape.gradient(total, [moving, fixed])

    start = time.perf_counter()
    _ = [part.numpy() for part in tf.nest.flatten(run(*features))]
    print(f"{time.perf_counter() - start:.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}")


def measured(side: int, block_size: int, what: str) -> list[str]:
    """Seconds and GiB of a process of its own."""
    command = [sys.executable, __file__, "--sides", str(side), "--block-size", str(block_size), "--one", what]
    done = subprocess.run(command, env=os.environ | settings(1), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def main(argv=None) -> None:
    args = arguments(argv)
    if args.one:
        return measure(args.sides[0], args.block_size, args.one == "gradient")
    rows = []
    for side in args.sides:
        queries, keys = side**3, (side + 2 * PADDING) ** 3
        cells = [cell for what in ("forward", "gradient") for cell in measured(side, args.block_size, what)]
        rows.append([f"{side}³ × {side + 2 * PADDING}³", *cells, f"{4 * queries * keys / 2**30:.3g}"])
    print(table(["voxels", "forward, s", "peak, GiB", "with gradient, s", "peak, GiB", "dense, GiB"], rows))
    return None


if __name__ == "__main__":
    sys.exit(main())
