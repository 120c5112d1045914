"""The command line all benchmarks share."""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from common import environments, report


def parser(description: str, rounds: int, gpu: bool = False) -> argparse.ArgumentParser:
    """Options of every benchmark; `gpu` adds those of the ones that can be run on one."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--threads", type=int, nargs="+", help="threads and processors (default: 1 2; with a GPU: all, and no limit)"
    )
    result.add_argument("--rounds", type=int, default=rounds, help=f"turns of each contender (default: {rounds})")
    result.add_argument("--quick", action="store_true", help="one round of few repetitions, to see that it runs")
    result.add_argument(
        "--only", nargs="+", default=[], help="contenders of these names, or whose name holds one of these words"
    )
    result.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    result.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help=f"use an interpreter as it is instead of making one of {', '.join(environments.REQUIREMENTS)}",
    )
    result.set_defaults(device="cpu", keep_going=False, at_once=False, out=None)
    if gpu:
        result.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="what computes (default: cpu)")
        result.add_argument("--keep-going", action="store_true", help="leave out a contender that fails, and say so")
        result.add_argument(
            "--at-once",
            action="store_true",
            help="build all contenders of all cases at once, where cores and memory allow it, then time them in turn: "
            "sooner done, but each first run takes longer than alone",
        )
        result.add_argument("--out", type=Path, help="folder of its own for the results; the page is left as it is")
    return result


def size(text: str) -> dict:
    """A size of images and a batch, as in 128x128:8."""
    try:
        shape, batch = text.split(":")
        return {"shape": [int(n) for n in shape.split("x")], "batch": int(batch)}
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected sizes and a batch as in 128x128:8, received {text!r}") from None


def threads(args: argparse.Namespace) -> list[int]:
    """Numbers of threads to time with."""
    return args.threads or ([1, 2] if args.device == "cpu" else [len(os.sched_getaffinity(0))])


def where(args: argparse.Namespace, count: int) -> str:
    """What computes, for the head of a table."""
    at_once = ", all built at once" if args.at_once else ""
    return (f"{count} threads" if args.device == "cpu" else report.graphics()) + at_once


def chosen(contenders: list, words: list[str], device: str = "cpu") -> list:
    """Contenders of a device that --only leaves: that of a whole name, else all that hold the word."""
    able = [c for c in contenders if device in c.devices]
    names = {c.label for c in able}
    return [
        c for c in able if not words or any(word == c.label or word not in names and word in c.label for word in words)
    ]


def pythons(contenders: list, given: list[str]) -> dict[str, str]:
    """Interpreter of every environment that is needed."""
    known = dict(item.split("=", 1) for item in given)
    return {c.environment: environments.python_of(c.environment, known) for c in contenders}


def save(name: str, args: argparse.Namespace, results: list[dict], text: str) -> None:
    """Print the table and keep the results, unless they are of a trial run."""
    print(text, flush=True)
    name += "-gpu" if args.device == "gpu" else ""
    shown = [word for word in sys.argv[1:] if "=" not in word and word != "--python"]
    words = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        kept = {"command": words, "device": where(args, 0), "results": results, "table": text}
        (args.out / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    elif not (args.quick or args.only or any(getattr(args, name, None) for name in ("cases", "operations", "against"))):
        report.save(name, results, text, words, _page(args), None if args.device == "cpu" else report.graphics())


def _page(args: argparse.Namespace):
    return None if args.no_page else report.PAGE
