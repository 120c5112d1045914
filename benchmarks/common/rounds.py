"""Contenders of one case take turns, so that whatever else the machine does slows all of them."""

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
    """Who runs a case: label in the table, environment, script, and what to add to the case."""

    label: str
    environment: str
    script: str
    options: dict = field(default_factory=dict)


@dataclass
class Timing:
    """Seconds of every repetition, peak memory of the process, and seconds from its start to its first result."""

    seconds: list[float]
    peak_mib: float
    cold_start: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Worker:
    """A contender's process with its case built, waiting to be told how often to run it."""

    def __init__(self, contender: Contender, case: dict, python: str):
        self.contender = contender
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [python, str(CONTENDERS / contender.script), json.dumps({**case, **contender.options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings(case["threads"])},
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case["threads"]]),
        )
        self.supported = self._answer()["supported"]
        self.cold_start = time.perf_counter() - start
        self.seconds, self.peak_mib = [], 0.0

    def run(self, repetitions: int, keep: bool = True) -> None:
        """Run the case; without `keep` as a warm-up."""
        self.process.stdin.write(f"{repetitions}\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.seconds += answer["seconds"] if keep else []
        self.peak_mib = answer["peak_mib"]

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.communicate()[1]
            raise RuntimeError(f"{self.contender.label} failed:\n{errors[-3000:]}")
        return json.loads(line)


def settings(threads: int) -> dict[str, str]:
    """Environment in which every library here keeps to a number of threads."""
    return {**dict.fromkeys(_THREADS, str(threads)), "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def compete(contenders: list[Contender], case: dict, pythons: dict, rounds: int, repetitions: int) -> dict:
    """{label: Timing} of the contenders that support the case."""
    workers = []
    try:
        for contender in contenders:
            worker = Worker(contender, case, pythons[contender.environment])
            workers.append(worker)
        running = [w for w in workers if w.supported]
        for worker in running:
            worker.run(repetitions // 2, keep=False)
        for _ in range(rounds):
            for worker in running:
                worker.run(repetitions)
        return {w.contender.label: Timing(w.seconds, w.peak_mib, w.cold_start) for w in running}
    finally:
        for worker in workers:
            worker.stop()


def progress(text: str) -> None:
    """Say on the terminal what is being measured."""
    print(f"  {text}", file=sys.stderr, flush=True)
