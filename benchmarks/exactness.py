"""The largest difference of displacements and images to those of voxelmorph 0.2, by precision, in voxels.

A GPU multiplies float32 numbers with 10 bits of their mantissa (TF32) unless it is asked not to; "exact" asks it, as
`--precision exact` does. The golden files are outputs that voxelmorph 0.2 has written on TensorFlow 2.15: NAME.h5 with
the weights, NAME.npz with inputs x and y, outputs out0 … and the displacement reg. Differences of exact ones are to be
within 1e-4. Of the libraries only those that hetmorph.networks needs have to be there.

Example:
    python benchmarks/exactness.py --golden golden --device gpu
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from common import report

PRECISIONS = ("exact", "float32", "bfloat16")


def main() -> None:
    args = arguments().parse_args()
    if not (paths := [path for path in sorted(args.golden.glob("*.h5")) if path.with_suffix(".npz").exists()]):
        raise SystemExit(f"expected --golden to hold NAME.h5 with NAME.npz, received {args.golden}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.path.insert(0, str(report.ROOT))
    import tensorflow as tf

    if args.device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise SystemExit(f"--device gpu: expected a GPU, received none: TensorFlow {tf.__version__} sees the processor")
    rows = [[path.stem, *(f"{differences(path, one):.1e}" for one in args.precision)] for path in paths]
    where = report.processor() if args.device == "cpu" else report.graphics()
    print(f"{where}, TensorFlow {tf.__version__}\n\n" + report.table(["golden file", *args.precision], rows))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, help="folder of the golden files")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="what computes (default: cpu)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="(default: all)")
    return parser


def differences(path: Path, precision: str) -> float:
    """The largest difference of a model's displacement, or of the field that it gives, from the golden ones.

    Args:
        path: the model; its golden outputs lie beside it.
        precision: one of `PRECISIONS`.
    """
    import tensorflow as tf

    from hetmorph.networks import VxmDense

    tf.config.experimental.enable_tensor_float_32_execution(precision != "exact")
    with np.load(path.with_suffix(".npz")) as file:
        golden = dict(file)
    model = VxmDense.load(path, **({"precision": "bfloat16"} if precision == "bfloat16" else {}))
    images = [tf.constant(golden[name]) for name in ("x", "y")]
    outputs = [np.asarray(one) for one in model(images, training=False)]
    stored = [golden[name] for name in sorted(golden) if name.startswith("out")]
    pairs = [(outputs[-1], stored[-1])]
    if not model.config.params.get("use_probs"):  # whose displacement the original draws anew each time
        pairs.append((model.register(golden["x"], golden["y"]), golden["reg"]))
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)


if __name__ == "__main__":
    main()
