"""Workers of Dask, on this machine, on a cluster that runs, or on one of SLURM.

Dask schedules, moves and restarts; here is what it must be told. A worker is a process that does one case at a time.
Only so many batches are on their way that no worker waits, so that neither side's memory grows with the cohort. What a
killed worker had in hand is done by another. A case during which `KILLS` workers died is given up, and named.

`distributed` and `dask_jobqueue` are imported when workers are asked for (`pip install "hetmorph[cohort]"`).
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import io
import logging
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

from hetmorph.cohort.work import MOST, InTurn, Task, Work, batches

SLURM = "slurm"
KILLS = 3
ANSWER = 30.0  # seconds that a scheduler may take to answer
FIRST = 300.0  # seconds that it may be without any worker, unless they stand in a queue
_AHEAD = 3  # batches a worker: the one that is done, and those on their way
_TURNS = 8  # batches that each worker gets at least, so that all end at the same time
_THREADS = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
_SAME = "scheduler and workers need the same packages as this program, hetmorph among them"
_busy = threading.Lock()  # of a worker's process, whatever its number of threads: one case at a time


@dataclass(frozen=True)
class Workers:
    """Dask's workers, as the options --workers and --scheduler ask for them.

    Attributes:
        count: number of processes to start here, or of jobs of SLURM; None with a scheduler whose workers are there.
        scheduler: None for this machine, "slurm", or the address of one that runs, "tcp://host:8786".

    Raises:
        ValueError: the two do not go together.
        ImportError: the packages are not installed.
    """

    count: int | None = None
    scheduler: str | None = None

    def __post_init__(self):
        runs = self.scheduler not in (None, SLURM)
        if self.count is not None and self.count < 1:
            raise ValueError(f"--workers: expected 1 or more, received {self.count}")
        if runs and "://" not in self.scheduler:
            raise ValueError(f"--scheduler: expected tcp://host:port or {SLURM}, received {self.scheduler}")
        if runs and self.count is not None:
            raise ValueError(f"--workers starts workers, those of --scheduler {self.scheduler} are there: give one")
        if not runs and self.count is None:
            raise ValueError(f"--scheduler {self.scheduler} needs --workers, the number of jobs")
        for name in ("distributed", *(["dask_jobqueue"] if self.scheduler == SLURM else [])):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ImportError(
                    f"--workers and --scheduler need the package {name.replace('_', '-')}; "
                    'install it: pip install "hetmorph[cohort]"'
                ) from error

    def each(self, work: Work, tasks: Sequence[Task], size: Callable[[Task], float]) -> Iterator[tuple[str, dict]]:
        """Name and result of each case, as they come; what a worker prints is printed here.

        Args:
            work: what is done.
            tasks: the cases.
            size: bytes of the files of a case, by which small ones are put together.

        Raises:
            ConnectionError: the scheduler does not answer, is gone, or has no workers.
            Exception: what a case raised.
        """
        if not tasks:
            return
        with self._client() as client:
            flight = _Flight(client, work, patience=None if self.scheduler == SLURM else FIRST)
            workers = self.count or max(1, len(client.nthreads()))
            most = min(MOST, max(1, len(tasks) // (_TURNS * workers)))
            yield from flight.of(batches(tasks, size, most))

    @contextmanager
    def _client(self) -> Iterator:
        """A client of the scheduler; whatever was started for it ends with it."""
        import dask
        import distributed

        for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is told here, in a line
        settings = {"distributed.scheduler.allowed-failures": KILLS - 1, "distributed.worker.profile.enabled": False}
        with dask.config.set(settings), ExitStack() as stack:
            start = {None: _here, SLURM: _slurm}.get(self.scheduler)
            if start is None:
                _answering(self.scheduler)
            where = self.scheduler if start is None else stack.enter_context(start(self.count))
            yield stack.enter_context(distributed.Client(where, timeout=ANSWER, set_as_default=False))


def _answering(address: str) -> None:
    """Return when a scheduler has answered; Dask's client would wait for one that says nothing, without end."""
    from distributed.core import connect, send_recv

    async def asked() -> dict:
        comm = await connect(address)
        try:
            return await send_recv(comm, op="identity")
        finally:
            comm.abort()

    async def soon() -> dict:
        return await asyncio.wait_for(asked(), ANSWER)

    try:
        answer = asyncio.run(soon())
    except (OSError, ValueError) as error:
        answer = {"type": type(error).__name__}
    if answer.get("type") != "Scheduler":
        raise ConnectionError(f"--scheduler {address}: expected a scheduler of Dask, none answered within {ANSWER:g} s")


def engine(count: int | None, scheduler: str | None) -> InTurn | Workers:
    """Who does the cases: the plain loop, unless workers are asked for.

    Args:
        count: --workers.
        scheduler: --scheduler.

    Raises:
        ValueError: as `Workers`.
        ImportError: likewise.
    """
    return InTurn() if count is None and scheduler is None else Workers(count, scheduler)


def _here(count: int):
    """Processes of this machine, which share its cores and its memory."""
    import distributed

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # any port: two cohorts may run at once
        memory_limit=distributed.system.MEMORY_LIMIT // count,
        silence_logs=logging.CRITICAL,
        env=_environment(max(1, cores // count)),
    )


def _slurm(count: int):
    """Jobs of SLURM, a worker each."""
    import dask_jobqueue

    cluster = dask_jobqueue.SLURMCluster(**_slurm_options())
    cluster.scale(count)
    print(f"{count} jobs of SLURM asked for; waiting for the first", file=sys.stderr)
    return cluster


def _slurm_options() -> dict:
    """One case at a time in each job, on all its cores; the rest is as Dask's jobqueue.yaml says."""
    import dask
    import dask_jobqueue  # noqa: F401

    def told(name: str, otherwise):
        return dask.config.get(f"jobqueue.{SLURM}.{name}", None) or otherwise

    cores = told("cores", 1)
    exports = [f"export {name}={value}" for name, value in _environment(cores).items()]
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": cores,
        "memory": told("memory", "4GiB"),
        "job_script_prologue": [*told("job-script-prologue", []), *exports],
        "scheduler_options": {"dashboard_address": ":0"},
    }


def _environment(threads: int) -> dict[str, str]:
    """Variables of a worker: so many threads, no notes of TensorFlow, of a GPU no more memory than it needs."""
    wanted = dict.fromkeys(_THREADS, str(threads))
    wanted |= {"TF_NUM_INTEROP_THREADS": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


class _Flight:
    """The batches that are on their way.

    Dask cannot say which of the batches that a worker had in hand killed it. Those that it gives up wait until
    everything else is done, and go case by case, each alone.

    Args:
        client: client of the scheduler.
        work: what is done.
        patience: seconds that there may be no worker; None waits as long as it takes.
    """

    def __init__(self, client, work: Work, patience: float | None):
        self._client, self._work, self._patience = client, work, patience
        self._packed, self._folder = _packed(work), os.getcwd()
        self._there: dict[str, tuple] = {}  # by key: the future, and the batch
        self._over: queue.SimpleQueue = queue.SimpleQueue()
        self._room, self._counted, self._alone_since = 0, -math.inf, None

    def of(self, waiting: Iterator[list[Task]]) -> Iterator[tuple[str, dict]]:
        """Send all batches, a few at a time; name and result of each case."""
        suspects = []
        for batch in waiting:
            self._send(batch)
            while len(self._there) >= self._may_be():
                yield from self._next(suspects)
        while self._there:
            yield from self._next(suspects)
        for task in suspects:
            self._send([task])
            while self._there:
                yield from self._next(None)

    def _send(self, batch: list[Task]) -> None:
        future = self._client.submit(_do, self._packed, _packed(batch), self._folder, pure=False)
        self._there[future.key] = future, batch
        future.add_done_callback(self._over.put)

    def _next(self, suspects: list[Task] | None) -> Iterator[tuple[str, dict]]:
        """Wait for a batch; what came of it, and of others that are over too.

        Args:
            suspects: gets the cases of a batch that was given up; None says that it was alone, so that it is to blame.
        """
        over = [(future, future.status) for future in self._waited()]  # which may change any moment
        finished = [future for future, status in over if status == "finished"]
        try:
            gathered = self._client.gather(finished)
        except OSError:  # none of the work's: these futures have results. A worker with one of them has just died
            self._count()
            for future, _ in over:
                future.add_done_callback(self._over.put)
            time.sleep(0.1)  # until the scheduler has noticed
            return
        for future, answer in zip(finished, gathered, strict=True):
            _, batch = self._there.pop(future.key)
            for (case, _), (result, printed, told) in zip(batch, answer, strict=True):
                sys.stdout.write(printed)
                sys.stderr.write(told)
                yield case, result
        for future, status in over:
            if status in ("pending", "lost"):  # its result was on a worker that has died since: it is made again
                future.add_done_callback(self._over.put)
            elif status == "error":
                yield from self._given_up(future.exception(), self._there.pop(future.key)[1], suspects)
            elif status != "finished":
                raise self._gone()

    def _given_up(
        self, error: BaseException, batch: list[Task], suspects: list[Task] | None
    ) -> Iterator[tuple[str, dict]]:
        """What comes of a batch that Dask has no result of; the error, unless workers were killed by it."""
        if not _killed(error):
            raise _understood(error)
        if suspects is not None:
            suspects += batch
            return
        (case, row), deaths = batch[0], error.allowed_failures + 1
        reason = f"{deaths} workers were killed while they did it (out of memory?)"
        yield case, self._work.failed(case, row, reason)

    def _waited(self) -> list:
        """Futures that are over, at least one; ConnectionError if none can come any more."""
        while True:
            try:
                over = [self._over.get(timeout=2.0)]
                while not self._over.empty():
                    over.append(self._over.get())
                return over
            except queue.Empty:
                self._may_be()
            if self._client.status != "running":
                raise self._gone()
            if self._alone_since and self._patience and time.monotonic() - self._alone_since > self._patience:
                raise ConnectionError(f"the scheduler has had no worker for {self._patience:g} s")

    def _may_be(self) -> int:
        """How many batches may be on their way; workers are counted now and then."""
        if time.monotonic() - self._counted > 2.0:
            self._count()
        return self._room

    def _count(self) -> None:
        """Count the workers; ConnectionError where the scheduler does not say."""
        try:
            workers = len(self._client.nthreads())
        except OSError as error:
            raise self._gone() from error
        self._alone_since = None if workers else self._alone_since or time.monotonic()
        self._room, self._counted = _AHEAD * max(1, workers), time.monotonic()

    def _gone(self) -> ConnectionError:
        return ConnectionError("the scheduler is gone, or cannot be reached any more")


def _killed(error: BaseException) -> bool:
    from distributed.scheduler import KilledWorker

    return isinstance(error, KilledWorker)


def _understood(error: BaseException) -> BaseException:
    """The error, in plain words where the scheduler could not read what it was sent."""
    if isinstance(error, RuntimeError) and "deserialization of the task graph" in str(error):
        return ImportError(f"the scheduler cannot read what it is sent: {_SAME}")
    return error


def _packed(what) -> bytes:
    """Anything as bytes that are not looked into on the way: what is in them may need TensorFlow to be understood."""
    from distributed.protocol import pickle

    return pickle.dumps(what)


@functools.lru_cache(maxsize=1)
def _unpacked(packed: bytes):
    """The work, with the model that it loads, kept from one batch to the next."""
    from distributed.protocol import pickle

    return pickle.loads(packed)


def _do(work: bytes, batch: bytes, folder: str) -> list[tuple[dict, str, str]]:
    """In a worker: the result of each case of a batch, and what was printed.

    Args:
        work: a `Work`, packed.
        batch: its cases, packed.
        folder: in which relative paths begin.
    """
    from distributed.protocol import pickle

    with _busy:
        for name, value in _environment(1).items():
            os.environ.setdefault(name, value)
        try:
            os.chdir(folder)
        except OSError as error:
            raise ValueError(f"a worker does not see {folder}: workers need the files under the same paths") from error
        try:
            work, tasks = _unpacked(work), pickle.loads(batch)
        except (ImportError, AttributeError) as error:
            raise ImportError(f"a worker cannot read what it is sent ({error}): {_SAME}") from error
        return [_told(work, *task) for task in tasks]


def _told(work: Work, case: str, row) -> tuple[dict, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        result = work(case, row)
    return result, out.getvalue(), err.getvalue()
