"""Load a server: latency and throughput against inference in this process, and a server killed under load.

Runs against tensorflow_model_server, or the official image, where there is one, else against the tests' double of it in
Python; the table says which. Server and clients share the machine. Clients are threads of this process that send pairs
of 128 × 128 images one after the other; ratios are to the throughput of the same SavedModel called here.

Example:
    python benchmarks/serving.py --clients 1 2 4 8
"""

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import report
from common.rounds import progress

sys.path.insert(0, str(report.ROOT))

from hetmorph.evaluation import load  # noqa: E402
from hetmorph.networks import VxmDense  # noqa: E402
from hetmorph.serving import Client, deploy, export_savedmodel  # noqa: E402
from tests import servers  # noqa: E402

DOUBLE = "the tests' double of TensorFlow Serving (Python), not TensorFlow Serving"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8], help="threads (default: 1 2 4 8)")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: 10)")
    parser.add_argument("--size", type=int, nargs="+", default=[128, 128], help="of the images (default: 128 128)")
    parser.add_argument("--quick", action="store_true", help="one second each, to see that it runs")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    return parser.parse_args()


def summary(callers: servers.Callers) -> dict:
    """Rate and percentiles of the calls, seconds."""
    p50, p99 = np.percentile(callers.seconds, [50, 99])
    rate = len(callers.seconds) / callers.elapsed
    return {"requests": len(callers.seconds), "lost": len(callers.errors), "p50": p50, "p99": p99, "rate": rate}


def measured(call, count: int, seconds: float) -> dict:
    """Summary of `count` callers, warmed up."""
    call()
    with servers.Callers(call, count) as callers:
        time.sleep(seconds)
    return summary(callers)


def killed(server, call, count: int, seconds: float) -> dict:
    """The same, with the server killed after a third of the time and started again a second later."""
    with servers.Callers(call, count) as callers:
        time.sleep(seconds / 3)
        server.kill()
        time.sleep(1)
        down = time.perf_counter()
        server.start()
        down = time.perf_counter() - down + 1
        time.sleep(seconds * 2 / 3)
    return {**summary(callers), "longest": max(callers.seconds), "down": down}


def main() -> None:
    args = arguments()
    seconds = 1.0 if args.quick else args.seconds
    folder = Path(tempfile.mkdtemp()) / "pairs"
    try:
        results = run(folder, args, seconds)
    finally:
        shutil.rmtree(folder.parent)
    which = "TensorFlow Serving" if servers.real("/", 0) else DOUBLE
    text = f"Server: {which}.\n\n{tables(results)}"
    print(text)
    if not args.quick:
        page = None if args.no_page else report.PAGE
        report.save("serving", results, text, shlex.join(["python", "benchmarks/serving.py", *sys.argv[1:]]), page)


def run(folder: Path, args: argparse.Namespace, seconds: float) -> list[dict]:
    size = tuple(args.size)
    export_savedmodel(VxmDense((None,) * len(size)), folder, warmup=[size])
    deploy(folder, base_path=folder)
    moving, fixed = np.random.default_rng(0).random((2, 1, *size, 1), np.float32)
    local = load(folder).signatures["register"]
    progress("in this process")
    results = [
        {"what": "in this process", "clients": 1, **measured(lambda: local(moving=moving, fixed=fixed), 1, seconds)}
    ]
    inputs = {"moving": moving, "fixed": fixed}
    make = servers.real if servers.real(folder, 0) else servers.double
    with servers.Server(make, folder) as server:
        for protocol in ("grpc", "http"):
            with Client(server.address(protocol), timeout=120, retries=100) as client:
                for count in args.clients:
                    progress(f"{protocol}, {count} clients")
                    outcome = measured(lambda client=client: client.predict(inputs, "register"), count, seconds)
                    results.append({"what": protocol, "clients": count, **outcome})
                progress(f"{protocol}, killed")
                outcome = killed(server, lambda client=client: client.predict(inputs, "register"), 4, 3 * seconds)
                results.append({"what": f"{protocol}, server killed and restarted", "clients": 4, **outcome})
    return results


def tables(results: list[dict]) -> str:
    reference = results[0]["rate"]
    load = [
        [r["what"], str(r["clients"]), f"{1e3 * r['p50']:.1f}", f"{1e3 * r['p99']:.1f}", f"{r['rate']:.1f}"]
        + [f"{r['rate'] / reference:.2f}", str(r["lost"])]
        for r in results
        if "down" not in r
    ]
    kills = [
        [r["what"], str(r["clients"]), str(r["requests"]), str(r["lost"]), f"{r['down']:.1f}", f"{r['longest']:.1f}"]
        for r in results
        if "down" in r
    ]
    return "\n\n".join(
        [
            report.table(["how", "clients", "p50, ms", "p99, ms", "pairs/s", "pairs/s / in process", "lost"], load),
            report.table(["how", "clients", "answered", "lost", "server away, s", "longest request, s"], kills),
        ]
    )


if __name__ == "__main__":
    main()
