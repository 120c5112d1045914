"""Time hetmorph's layers against voxelmorph 0.2's: forward and backward, one thread, alternating in one process.

Each layer runs in a tf.function on [batch, size, size] float32 data. Times are medians of the repetitions, in
milliseconds; the ratio is voxelmorph / hetmorph, above 1 where hetmorph is faster.

Example:
    python benchmarks/layers.py --size 128 --batch 8
"""

import argparse
import os
import statistics
import time

for _variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from hetmorph import layers  # noqa: E402
from hetmorph.compat import vxm  # noqa: E402


def cases(batch: int, size: int) -> dict:
    """{name: (hetmorph's layer, voxelmorph's layer, inputs)}."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), tf.float32)

    image, field, half = (
        normal(batch, size, size, 1),
        normal(batch, size, size, 2),
        normal(batch, size // 2, size // 2, 2),
    )
    return {
        "SpatialTransformer": (layers.SpatialTransformer(), vxm.layers.SpatialTransformer(), [image, field]),
        "VecInt, 7 steps": (layers.VecInt(int_steps=7), vxm.layers.VecInt(int_steps=7), half),
        "RescaleTransform 2": (layers.RescaleTransform(2), vxm.layers.RescaleTransform(2), half),
    }


def step_of(layer, inputs):
    """Function that runs the layer and the gradient of its squared output."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs) ** 2)
        return loss, tape.gradient(loss, inputs)

    return step


def medians(steps, repetitions: int) -> list[float]:
    """Median milliseconds of each function; they take turns, so that a busy machine slows all of them."""
    times = [[] for _ in steps]
    for step in steps:
        step()
    for _ in range(repetitions):
        for step, own in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()[0].numpy()
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="voxels along each of two axes (default: 128)")
    parser.add_argument("--batch", type=int, default=8, help="samples (default: 8)")
    parser.add_argument("--repetitions", type=int, default=30, help="runs of each (default: 30)")
    args = parser.parse_args()
    print(f"{args.batch} x {args.size} x {args.size}, forward and backward, TensorFlow {tf.__version__}, one thread\n")
    print("| layer | hetmorph ms | voxelmorph ms | ratio |\n|---|---|---|---|")
    for name, (ours, original, inputs) in cases(args.batch, args.size).items():
        own, other = medians([step_of(ours, inputs), step_of(original, inputs)], args.repetitions)
        print(f"| {name} | {own:.2f} | {other:.2f} | {other / own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
