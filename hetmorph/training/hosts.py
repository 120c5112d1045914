"""Which processes train together, and a meeting of them before TensorFlow connects them.

TensorFlow waits for ever for a worker that does not come, and says nothing of workers that were started for different
trainings. The meeting has a time limit, and every worker is told the same reason.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

TF_CONFIG = "TF_CONFIG"
_FORM = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID")
_PORTS = 20_000, 10_000  # of SLURM's jobs: the first, and how many numbers are shared out among them


@dataclass(frozen=True)
class Cluster:
    """The workers of a training, one process each, and which of them this one is.

    Attributes:
        workers: "host:port" of each; the first one writes the files.
        index: position of this process among them.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def on_this_host(self) -> int:
        """How many of the workers share this one's host."""
        return sum(_host(other) == _host(self.workers[self.index]) for other in self.workers)

    @property
    def local_index(self) -> int:
        """How many of them come before this one."""
        return sum(_host(other) == _host(self.workers[self.index]) for other in self.workers[: self.index])

    def name(self, index: int) -> str:
        """What a message calls a worker.

        Args:
            index: position among the workers.
        """
        return f"worker {index} ({self.workers[index]})"


def from_tf_config(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that the variable TF_CONFIG describes; None where it is not set, or names this process alone.

    Args:
        environ: the environment.

    Raises:
        ValueError: it is not of the form that TensorFlow documents.
    """
    text = environ.get(TF_CONFIG, "").strip()
    if not text:
        return None
    try:
        given = json.loads(text)
        jobs, task = given["cluster"], given["task"]
        chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
        others = set(jobs) - {"chief", "worker"}
        kind, number = task["type"], task["index"]
        addresses = (*chiefs, *workers)
        index = number + (len(chiefs) if kind == "worker" else 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _malformed(text) from None
    if others:
        raise ValueError(f"TF_CONFIG: expected workers that all train, received tasks of the kind {sorted(others)[0]}")
    own = {"chief": chiefs, "worker": workers}.get(kind)
    if not addresses or own is None or not isinstance(number, int) or not all(map(_is_address, addresses)):
        raise _malformed(text)
    if not 0 <= number < len(own):
        raise ValueError(f"TF_CONFIG: expected an index of the {len(own)} {kind}s, from 0 on, received {number}")
    return _cluster("TF_CONFIG", addresses, index)


def from_slurm(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The tasks of the step that `srun` started this process in, in the order of their ranks; None where it is alone.

    Tasks lie on the nodes in blocks, as SLURM puts them unless told otherwise. Ports follow from the number of the job.

    Args:
        environ: the environment.

    Raises:
        ValueError: the process is none of a step, or the variables contradict each other.
    """
    missing = [name for name in _SLURM if name not in environ]
    if missing:
        raise ValueError(f"SLURM: expected a process that srun started, but {missing[0]} is not set")
    rank, nodes, counts, job = (environ[name] for name in _SLURM)
    hosts, tasks = list(_expanded_hosts(nodes)), list(_expanded_counts(counts))
    if len(hosts) != len(tasks):
        raise ValueError(f"SLURM: expected as many nodes as counts of tasks, received {nodes!r} and {counts!r}")
    base, room = _PORTS
    port = base + int(job) % room
    addresses = tuple(f"{host}:{port + k}" for host, count in zip(hosts, tasks, strict=True) for k in range(count))
    if not 0 <= int(rank) < len(addresses):
        raise ValueError(f"SLURM: expected a rank of the {len(addresses)} tasks, received SLURM_PROCID={rank}")
    return _cluster("SLURM", addresses, int(rank))


def meet(cluster: Cluster, plan: Mapping, seconds: float) -> None:
    """Return when all workers are there and are about to do the same; otherwise all of them raise the same error.

    The first worker listens at its address, the others call it. Afterwards its port is free again.

    Args:
        cluster: the workers.
        plan: what all have to agree in, of values that JSON knows.
        seconds: how long to wait.

    Raises:
        ConnectionError: a worker did not come, or the port is taken.
        ValueError: two workers are to do different things.
    """
    own = {"index": cluster.index, "workers": list(cluster.workers), "plan": json.loads(json.dumps(plan))}
    until = time.monotonic() + seconds
    with _listening(cluster) as listener:
        reason = _gather(listener, cluster, own, until, seconds) if cluster.index == 0 else None
    if cluster.index:
        reason = _report(cluster, own, until, seconds)
    if reason:
        raise (ConnectionError if reason["absent"] else ValueError)(reason["text"])


def _gather(listener: socket.socket, cluster: Cluster, own: dict, until: float, seconds: float) -> dict | None:
    """Hear every worker, and tell each the reason why not to begin, if there is one: also those who come after it."""
    there: dict[int, socket.socket] = {}
    reason = None
    while len(there) < len(cluster.workers) - 1:
        listener.settimeout(max(0.01, until - time.monotonic()))
        try:
            caller, _ = listener.accept()
        except TimeoutError:
            absent = [cluster.name(k) for k in range(1, len(cluster.workers)) if k not in there]
            reason = reason or _reason(f"{', '.join(absent)} did not come within {seconds:g} s", absent=True)
            break
        told = _received(caller, until)
        if told is None or told.keys() != own.keys():
            caller.close()  # somebody else
            continue
        reason = reason or _difference(cluster, own, told, there)
        there[told["index"] if told["index"] not in there else -1] = caller
    for caller in there.values():
        with caller:
            caller.sendall(_line(reason))
    return reason


def _report(cluster: Cluster, own: dict, until: float, seconds: float) -> dict | None:
    """Call the first worker until it answers, and hear whether to begin."""
    first = cluster.workers[0]
    absent = _reason(f"{cluster.name(0)} did not answer within {seconds:g} s", absent=True)
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return absent
        try:
            with socket.create_connection((_host(first), _port(first)), timeout=min(left, 10)) as line:
                line.sendall(_line(own))
                # It may have begun to wait for the others only now.
                told = _received(line, time.monotonic() + seconds + 10)
        except OSError:
            told = None
        if told is not None:
            return told if told.get("text") else None
        time.sleep(min(0.2, max(0, left)))


def _difference(cluster: Cluster, own: dict, told: dict, there: Mapping) -> dict | None:
    index = told["index"]
    if told["workers"] != own["workers"]:
        return _reason(
            f"expected the same cluster in all workers, but worker 0 was given {own['workers']} and worker {index} "
            f"{told['workers']}"
        )
    if index in there or not 0 < index < len(cluster.workers):
        return _reason(f"expected one worker for each index of TF_CONFIG, but two are worker {index}")
    for key in sorted(own["plan"].keys() | told["plan"].keys()):
        here, other = own["plan"].get(key), told["plan"].get(key)
        if here != other:
            return _reason(
                f"expected the same in all workers, but {key} is {here} in worker 0 and {other} in worker {index}"
            )
    return None


@contextmanager
def _listening(cluster: Cluster) -> Iterator[socket.socket]:
    """A socket on the port of this worker; who has taken it is found now, and not by TensorFlow, which would hang."""
    port = _port(cluster.workers[cluster.index])
    try:
        listener = socket.create_server(("", port), backlog=len(cluster.workers))
    except OSError as error:
        raise ConnectionError(
            f"{cluster.name(cluster.index)} cannot listen on port {port}: {error.strerror}"
        ) from error
    with listener:
        yield listener


def _reason(text: str, absent: bool = False) -> dict:
    return {"text": text, "absent": absent}


def _line(value) -> bytes:
    return json.dumps(value or {}).encode() + b"\n"


def _received(line: socket.socket, until: float) -> dict | None:
    """What the other end says in one line of JSON; None if it says anything else, or hangs up."""
    try:
        line.settimeout(max(0.01, until - time.monotonic()))
        with line.makefile("rb") as stream:
            told = json.loads(stream.readline(1_000_000))
        return told if isinstance(told, dict) else None
    except (OSError, ValueError):
        return None


def _cluster(source: str, addresses: tuple[str, ...], index: int) -> Cluster | None:
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"{source}: expected a different host:port for each worker, received {', '.join(addresses)}")
    return Cluster(tuple(addresses), index) if len(addresses) > 1 else None


def _malformed(text: str) -> ValueError:
    return ValueError(f"TF_CONFIG: expected {_FORM}, received {text[:200]}")


def _is_address(text) -> bool:
    return isinstance(text, str) and re.fullmatch(r".+:\d{1,5}", text) is not None


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _expanded_hosts(nodes: str) -> Iterator[str]:
    """`n[01-03,7],m` as n01, n02, n03, n7, m."""
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        found = re.fullmatch(r"([^\[]*)\[([\d,-]+)\](.*)", name)
        if found is None:
            yield name
            continue
        before, numbers, after = found.groups()
        for part in numbers.split(","):
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                yield f"{before}{number:0{len(first)}d}{after}"


def _expanded_counts(counts: str) -> Iterator[int]:
    """`2(x3),1` as 2, 2, 2, 1."""
    for part in counts.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None:
            raise ValueError(f"SLURM: expected SLURM_STEP_TASKS_PER_NODE such as 2(x3),1, received {counts!r}")
        yield from [int(found[1])] * int(found[2] or 1)
