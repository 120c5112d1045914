"""Contenders of one case take turns, so that whatever else the machine does slows all of them."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
CONTENDERS = Path(__file__).resolve().parents[1] / "contenders"


@dataclass(frozen=True)
class Contender:
    """Who runs a case: label in the table, environment, script, what to add to the case, and environment variables."""

    label: str
    environment: str
    script: str
    options: dict = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Timing:
    """Seconds of every repetition, and peak memory of the process."""

    seconds: list[float]
    peak_mib: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Worker:
    """A contender's process, which builds a case and waits to be told how often to run it."""

    def __init__(self, contender: Contender, python: str, threads: int):
        self.contender = contender
        self.process = subprocess.Popen(
            [python, str(CONTENDERS / contender.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings(threads), **contender.variables},
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads]),
        )

    def build(self, case: dict) -> bool:
        """Have it build a case and run it once; whether the contender supports it."""
        self.seconds = []
        return self._ask({"case": {**case, **self.contender.options}})["supported"]

    def run(self, repetitions: int, keep: bool = True) -> None:
        """Run the case; without `keep` as a warm-up."""
        answer = self._ask({"repetitions": repetitions})
        self.seconds += answer["seconds"] if keep else []
        self.peak_mib = answer["peak_mib"]

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, message: dict) -> dict:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.communicate()[1]
            raise RuntimeError(f"{self.contender.label} failed:\n{errors[-3000:]}")
        return json.loads(line)


def settings(threads: int) -> dict[str, str]:
    """Environment in which every library here keeps to a number of threads."""
    return {**dict.fromkeys(_THREADS, str(threads)), "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@contextlib.contextmanager
def workers(contenders: list[Contender], pythons: dict[str, str], threads: int):
    """A process for every contender, pinned to `threads` processors, for as long as the block lasts."""
    running = []
    try:
        for contender in contenders:
            running.append(Worker(contender, pythons[contender.environment], threads))
        yield running
    finally:
        for worker in running:
            worker.stop()


def compete(running: list[Worker], case: dict, rounds: int, repetitions: int) -> dict[str, Timing]:
    """{label: Timing} of the contenders that support the case."""
    able = [worker for worker in running if worker.build(case)]
    for worker in able:
        worker.run(repetitions // 2, keep=False)
    for _ in range(rounds):
        for worker in able:
            worker.run(repetitions)
    return {w.contender.label: Timing(w.seconds, w.peak_mib) for w in able}


def cold_start(contender: Contender, case: dict, pythons: dict[str, str]) -> float:
    """Seconds from the start of a process of its own to the first result."""
    start = time.perf_counter()
    with workers([contender], pythons, case["threads"]) as (worker,):
        worker.build(case)
        return time.perf_counter() - start


def progress(text: str) -> None:
    """Say on the terminal what is being measured."""
    print(f"  {text}", file=sys.stderr, flush=True)
