"""Contenders of one case take turns, so that whatever else the machine does slows all of them."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
CONTENDERS = Path(__file__).resolve().parents[1] / "contenders"


@dataclass(frozen=True)
class Contender:
    """Who runs a case: label in the table, environment, script, what to add to the case, variables, devices."""

    label: str
    environment: str
    script: str
    options: dict = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "gpu")


@dataclass
class Timing:
    """Seconds of every turn, of the first one with all that precedes it, and peak memory of process and device."""

    seconds: list[float]
    peak_mib: float
    first: float
    device_mib: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def result(self, case: dict, label: str, device: str) -> dict:
        """What is kept of a contender's turns at a case; of a GPU, told at once as well, should the rest not end."""
        result = {**case, "contender": label, "seconds": self.median, "peak_mib": self.peak_mib}
        if device == "gpu":
            result |= {"first_seconds": self.first, "device_mib": self.device_mib}
            progress(f"{label}: {1e3 * self.median:.2f} ms, first {self.first:.1f} s, {self.device_mib:.0f} MiB")
        return result


class Failed(RuntimeError):
    """A contender's process has ended."""


class Worker:
    """A contender's process, which builds a case and waits to be told how often to run it."""

    def __init__(self, contender: Contender, python: str, threads: int, device: str = "cpu"):
        self.contender, self.python, self.threads, self.device = contender, python, threads, device
        self.process, self.begun = None, False

    def begin(self, case: dict) -> None:
        """Have it build a case and run it once, and do not wait for it; its process starts with the first case."""
        self.seconds, self.begun, since = [], True, time.time()
        self.process = self.process or self._started()
        self._tell({"case": {**case, "device": self.device, **self.contender.options}, "since": since})

    def build(self, case: dict) -> bool:
        """Have it build a case, or wait until it has; whether the contender supports it."""
        if not self.begun:
            self.begin(case)
        answer, self.begun = self._answer(), False
        if "missing" in answer:
            raise SystemExit(f"--device {self.device}: {answer['missing']} ({self.contender.label})")
        self.first = answer["first"]
        return answer["supported"]

    def run(self, repetitions: int, keep: bool = True) -> None:
        """Run the case; without `keep` as a warm-up."""
        self._tell({"repetitions": repetitions})
        answer = self._answer()
        self.seconds += answer["seconds"] if keep else []
        self.peak_mib, self.device_mib = answer["peak_mib"], answer["device_mib"]

    def stop(self) -> None:
        """End the process."""
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.errors.close()

    def _started(self) -> subprocess.Popen:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  not a pipe, which fills up while nobody reads it
        return subprocess.Popen(
            [self.python, str(CONTENDERS / self.contender.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **settings(self.threads, self.device), **self.contender.variables},
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: self.threads]),
        )

    def _tell(self, message: dict) -> None:
        with contextlib.suppress(BrokenPipeError):  # `_answer` says what became of it
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise Failed(f"{self.contender.label} failed:\n{self.errors.read()[-3000:]}")
        return json.loads(line)


def settings(threads: int, device: str = "cpu") -> dict[str, str]:
    """Environment in which every library here keeps to a number of threads, or to the GPU memory that it needs."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if device == "gpu":  # whose processes stay alive, each with its share of the memory
        return {**quiet, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return {
        **dict.fromkeys(_THREADS, str(threads)),
        "TF_NUM_INTEROP_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        **quiet,
    }


@contextlib.contextmanager
def workers(contenders: list[Contender], pythons: dict[str, str], threads: int, device: str = "cpu"):
    """A process for every contender, pinned to `threads` processors, for as long as the block lasts."""
    running = [Worker(c, pythons[c.environment], threads, device) for c in contenders]
    try:
        yield running
    finally:
        for worker in running:
            worker.stop()


def begin(teams) -> None:
    """Have all workers of pairs (workers, case) build their case at the same time; `compete` waits for each."""
    for running, case in teams:
        for worker in running:
            worker.begin(case)


def compete(
    running: list[Worker], case: dict, rounds: int, repetitions: int, keep_going: bool = False
) -> dict[str, Timing]:
    """{label: Timing} of the contenders that support the case; `keep_going` leaves out those that fail, and says so."""
    able = list(running)

    def each(task) -> None:
        for worker in list(able):
            try:
                if task(worker) is False:
                    able.remove(worker)
            except Failed as failure:
                if not keep_going:
                    raise
                progress(str(failure))
                able.remove(worker)

    each(lambda worker: worker.build(case))
    # The second update may compile anew; and what a GPU does first, it does cold.
    warming = repetitions if any(worker.device == "gpu" for worker in able) else max(repetitions // 2, 1)
    each(lambda worker: worker.run(warming, keep=False))
    for _ in range(rounds):
        each(lambda worker: worker.run(repetitions))
    return {w.contender.label: Timing(w.seconds, w.peak_mib, w.first, w.device_mib) for w in able}


def cold_start(contender: Contender, case: dict, pythons: dict[str, str], device: str = "cpu") -> float:
    """Seconds from the start of a process of its own to the first result."""
    start = time.perf_counter()
    with workers([contender], pythons, case["threads"], device) as (worker,):
        worker.build(case)
        return time.perf_counter() - start


def progress(text: str) -> None:
    """Say on the terminal what is being measured."""
    print(f"  {text}", file=sys.stderr, flush=True)
