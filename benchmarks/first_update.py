"""Where the time to the first update of a training goes, by its parts and by what changes them.

Every row is a process of its own, which says how long it took to import the library (TensorFlow with it), to meet the
device, to build the model, to trace its update, and to run that once, which optimises the graph, compiles it and tries
out algorithms; then what an update takes. "compiled" are the functions that XLA compiles in an update: distinct ones,
and calls of them. 8 pairs of 128 × 128, the objectives mse and het.

The variants change one thing each: Keras compiles the whole update by XLA where there is a GPU ("as it is" there), or
`jit_compile=False` leaves that to the kernels; HETMORPH_XLA=0 compiles nothing; no algorithm of cuDNN or XLA is tried
out; what was compiled, or tried out, is kept on disk and found by a second process; TensorFlow does not optimise the
graph.

Examples:
    python benchmarks/first_update.py
    python benchmarks/first_update.py --device gpu --jobs 4 --objectives mse
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from common import command, report
from common.rounds import progress, settings

BATCH, SHAPE, UPDATES = 8, [128, 128], 20
PARTS = {"import": "import", "device": "device", "model": "model", "trace": "trace", "update": "first update"}


@dataclass(frozen=True)
class Variant:
    """What one row changes: variables of the environment, in which {folder} is one of its own, and what the model gets.

    A folder is filled by a process before the one that is measured.
    """

    variables: dict[str, str] = field(default_factory=dict)
    options: dict = field(default_factory=dict)

    @property
    def twice(self) -> bool:
        return any("{folder}" in value for value in self.variables.values())


KEPT = {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory={folder}"}
KERNELS = {"jit_compile": False}
VARIANTS = {
    "cpu": {
        "as it is": Variant(),
        "HETMORPH_XLA=0": Variant({"HETMORPH_XLA": "0"}),
        "graph not optimised": Variant(options={"grappler": False}),
        "compiled code kept on disk": Variant(KEPT),
        "jit_compile=True": Variant(options={"jit_compile": True}),
    },
    "gpu": {
        "as it is": Variant(),
        "jit_compile=False": Variant(options=KERNELS),
        "jit_compile=False, HETMORPH_XLA=0": Variant({"HETMORPH_XLA": "0"}, KERNELS),
        "jit_compile=False, TF_CUDNN_USE_AUTOTUNE=0": Variant({"TF_CUDNN_USE_AUTOTUNE": "0"}, KERNELS),
        "jit_compile=False, compiled code kept on disk": Variant(KEPT, KERNELS),
        "jit_compile=False, graph not optimised": Variant(options={**KERNELS, "grappler": False}),
        "jit_compile=True": Variant(options={"jit_compile": True}),
        "jit_compile=True, xla_gpu_autotune_level=0": Variant(
            {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}, {"jit_compile": True}
        ),
        "jit_compile=True, algorithms kept on disk": Variant(
            {"XLA_FLAGS": "--xla_gpu_per_fusion_autotune_cache_dir={folder}"}, {"jit_compile": True}
        ),
        "jit_compile=True, compiled code kept on disk": Variant(KEPT, {"jit_compile": True}),
    },
}


def main() -> None:
    args = arguments().parse_args()
    if args.worker:
        print(json.dumps(measured(**json.loads(args.worker))))
        return
    variants = chosen(VARIANTS[args.device], args.only)
    jobs = [(objective, name) for objective, name in itertools.product(args.objectives, variants)]
    with ThreadPoolExecutor(args.jobs) as pool:
        told = list(pool.map(lambda job: row(*job, variants[job[1]], args), jobs))
    results = [result for result in told if result is not None]
    where = report.processor() if args.device == "cpu" else report.graphics()
    at_once = f", {args.jobs} processes at a time" if args.jobs > 1 else ""
    text = f"{' × '.join(map(str, args.shape))}, batch {BATCH}, {where}{at_once}; seconds\n\n{table(results)}"
    args.quick = args.at_once = False
    command.save("first_update", args, results, text)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="what computes (default: cpu)")
    parser.add_argument(
        "--objectives", nargs="+", choices=("mse", "het"), default=["mse", "het"], help="(default: both)"
    )
    parser.add_argument("--only", nargs="+", default=[], help="variants of these names")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    parser.add_argument("--shape", type=int, nargs="+", default=SHAPE, help="voxels along each axis (default: 128 128)")
    parser.add_argument("--out", type=Path, help="folder of its own for the results; the page is left as it is")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def chosen(variants: dict[str, Variant], names: list[str]) -> dict[str, Variant]:
    """The variants of these names, in their order; all without names."""
    if unknown := [name for name in names if name not in variants]:
        raise SystemExit(f"expected --only to name some of {', '.join(variants)}, received {unknown[0]}")
    return {name: variant for name, variant in variants.items() if not names or name in names}


def row(objective: str, name: str, variant: Variant, args: argparse.Namespace) -> dict | None:
    """What a process of a variant has measured; None if it failed, which is said."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + variant.twice):
            job = {"objective": objective, "shape": args.shape, "device": args.device, "options": variant.options}
            # Together with flags that are there already, such as the place of CUDA's files.
            own = {
                key: " ".join([*os.environ.get(key, "").split(), value.format(folder=folder)])
                if "FLAGS" in key
                else value
                for key, value in variant.variables.items()
            }
            process = subprocess.run(
                [sys.executable, __file__, "--worker", json.dumps({**job, "since": time.time()})],
                env={**os.environ, **environment(args.device), **own},
                capture_output=True,
                text=True,
                check=False,
            )
            if process.returncode:
                if "--device" in process.stderr.splitlines()[-1]:
                    raise SystemExit(process.stderr.splitlines()[-1])
                progress(f"{name}, {objective} failed:\n{process.stderr[-2000:]}")
                return None
        result = {"variant": name, "objective": objective, **json.loads(process.stdout.splitlines()[-1])}
        if variant.twice:
            result["files"] = sum(path.is_file() for path in Path(folder).rglob("*"))
    progress(f"{name}, {objective}: first update after {sum(result[part] for part in PARTS):.1f} s")
    return result


def environment(device: str) -> dict[str, str]:
    """Of a process on the device, with all processors."""
    cores = len(os.sched_getaffinity(0))
    given = {key: os.environ[key] for key in ("TF_NUM_INTRAOP_THREADS",) if key in os.environ}
    return {key: value for key, value in settings(cores, device).items() if key != "TF_NUM_INTEROP_THREADS"} | given


def table(results: list[dict]) -> str:
    """One row a process; the parts up to the first update, their sum, an update, and what XLA compiles."""
    rows = [
        [
            r["objective"],
            r["variant"] + (f" ({r['files']} files), second process" if "files" in r else ""),
            *(f"{r[part]:.1f}" for part in PARTS),
            f"{sum(r[part] for part in PARTS):.1f}",
            f"{1e3 * r['later']:.1f}",
            f"{r['kernels']} · {r['calls']}",
        ]
        for r in results
    ]
    return report.table(["objective", "variant", *PARTS.values(), "sum", "an update, ms", "compiled"], rows)


def measured(objective: str, shape: list[int], device: str, options: dict, since: float) -> dict:
    """The parts of the way to the first update of a model, in this process.

    Args:
        objective: "mse" or "het".
        shape: of the images.
        device: "cpu" or "gpu".
        options: of `compile`, and "grappler".
        since: when the process was started, seconds since the epoch.
    """
    sys.path[:0] = [str(report.ROOT), str(report.ROOT / "benchmarks" / "contenders")]
    moments = [since]
    import hardware
    import keras_training
    import problem
    import tensorflow as tf

    from hetmorph import losses
    from hetmorph.networks import HetVxmDense, VxmDense

    moments.append(time.time())
    try:
        where = hardware.of(device, "tensorflow")
    except hardware.Missing as error:
        raise SystemExit(f"--device {device}: {error}") from None
    tf.reduce_sum(tf.ones([8, 8])).numpy()
    moments.append(time.time())
    if not options.pop("grappler", True):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    model = VxmDense(shape) if objective == "mse" else HetVxmDense(shape)
    keras_training.compile_with(model, losses, **options)
    batch = keras_training.with_targets(problem.pair(shape, BATCH))
    moments.append(time.time())
    update = keras_training.on_device(model, batch)
    calls, kernels = compiled_functions(update.trace())
    moments.append(time.time())
    update()
    where.wait()
    moments.append(time.time())
    update()
    where.wait()
    start = time.time()
    for _ in range(UPDATES):
        update()
    where.wait()
    parts = {part: after - before for part, before, after in zip(PARTS, moments, moments[1:], strict=False)}
    inside = {"kernels": 1, "calls": 1} if model.jit_compile else {"kernels": kernels, "calls": calls}
    return {**parts, "later": (time.time() - start) / UPDATES, **inside}


def compiled_functions(concrete) -> tuple[int, int]:
    """How often functions that XLA compiles are called in a graph, and how many there are."""
    graph = concrete.graph.as_graph_def()
    marked = {one.signature.name for one in graph.library.function if one.attr["_XlaMustCompile"].b}
    nodes = itertools.chain(graph.node, *(one.node_def for one in graph.library.function))
    called = [node.attr["f"].func.name for node in nodes if "f" in node.attr]
    return sum(name in marked for name in called), len(marked & set(called))


if __name__ == "__main__":
    main()
