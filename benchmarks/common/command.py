"""The command line all benchmarks share."""

import argparse
import shlex
import sys

from common import environments, report


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads and processors (default: 1 2)")
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
    return result


def chosen(contenders: list, words: list[str]) -> list:
    """Contenders that --only leaves: that of a whole name, else all that hold the word."""
    names = {c.label for c in contenders}
    return [
        c
        for c in contenders
        if not words or any(word == c.label or word not in names and word in c.label for word in words)
    ]


def pythons(contenders: list, given: list[str]) -> dict[str, str]:
    """Interpreter of every environment that is needed."""
    known = dict(item.split("=", 1) for item in given)
    return {c.environment: environments.python_of(c.environment, known) for c in contenders}


def save(name: str, args: argparse.Namespace, results: list[dict], text: str) -> None:
    """Print the table and keep the results, unless they are of a trial run."""
    print(text)
    if args.quick or args.only:
        return
    shown = [word for word in sys.argv[1:] if "=" not in word and word != "--python"]
    report.save(name, results, text, shlex.join(["python", f"benchmarks/{name}.py", *shown]), _page(args))


def _page(args: argparse.Namespace):
    return None if args.no_page else report.PAGE
