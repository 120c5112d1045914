"""Workers that are killed, that run into errors, and schedulers that are not there."""

import importlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from hetmorph.cohort import InTurn, Work, Workers, cluster, engine, stops_all
from hetmorph.cohort.work import LARGE, batches

pytest.importorskip("distributed")


class Squares(Work):
    """Writes the square of each number into a file of a folder, once; says how it went.

    Args:
        folder: for the files.
        deadly: name of the case that kills its worker, as often as it is tried.
        once: name of one that kills its worker once.
        wrong: name of one that raises.
    """

    def __init__(self, folder, deadly=None, once=None, wrong=None):
        self.folder, self.deadly, self.once, self.wrong = Path(folder), deadly, once, wrong

    def __call__(self, case, row):
        path, tries = self.folder / case, self.folder / f"{case}.tries"
        if path.exists():
            return {"square": int(path.read_text()), "before": True}
        with tries.open("a") as file:
            file.write("x")
        if case == self.deadly or case == self.once and len(tries.read_text()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if case == self.wrong:
            raise OSError(28, "No space left on device", "x.nii.gz")
        print(f"{case} done")
        print(f"{case} doubted", file=sys.stderr)
        path.write_text(str(row**2))
        return {"square": row**2}

    def failed(self, case, row, reason):
        return {"failed": reason}


def tasks(count):
    return [(f"case-{number:03d}", number) for number in range(count)]


def size(_):
    return 1.0


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler of Dask with two processes that are replaced when they die, as somebody else's cluster would be."""
    import dask
    import distributed

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 2}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as running,
    ):
        yield running.scheduler_address


def test_the_same_as_in_turn_and_nothing_is_done_twice(scheduler, tmp_path, capsys):
    expected = dict(InTurn().each(Squares(tmp_path / "a"), tasks(0), size))
    assert expected == {}
    results = [*Workers(scheduler=scheduler).each(Squares(tmp_path), tasks(50), size)]
    assert sorted(results) == [(case, {"square": number**2}) for case, number in tasks(50)]
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == [f"{case} done" for case, _ in tasks(50)]
    assert "case-007 doubted" in printed.err
    again = dict(Workers(scheduler=scheduler).each(Squares(tmp_path), tasks(50), size))
    assert all(result["before"] for result in again.values())
    assert {path.read_text() for path in tmp_path.glob("*.tries")} == {"x"}


def test_a_case_that_kills_its_workers_is_named_and_the_others_are_done(scheduler, tmp_path):
    work = Squares(tmp_path, deadly="case-004", once="case-011")
    results = dict(Workers(scheduler=scheduler).each(work, tasks(24), size))
    assert results.pop("case-004") == {"failed": "3 workers were killed while they did it (out of memory?)"}
    assert {case: result["square"] for case, result in results.items()} == {
        case: number**2 for case, number in tasks(24) if number != 4
    }
    assert (tmp_path / "case-011.tries").read_text() == "xx", "once killed, once done"
    assert all(
        path.read_text() == "x" for path in tmp_path.glob("*.tries") if path.stem not in ("case-004", "case-011")
    )


def test_a_full_disk_ends_the_run(scheduler, tmp_path):
    with pytest.raises(OSError, match="No space left") as raised:
        list(Workers(scheduler=scheduler).each(Squares(tmp_path, wrong="case-003"), tasks(9), size))
    assert stops_all(raised.value) and not stops_all(OSError(2, "no such file"))


def test_workers_that_are_not_like_this_process_are_told_of(scheduler, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from tests.cohort.test_cluster import Squares\nclass Own(Squares): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").Own(tmp_path)
    with pytest.raises(ImportError, match="No module named 'only_here'.* need the same packages"):
        list(Workers(scheduler=scheduler).each(work, tasks(3), size))
    graph = cluster._understood(RuntimeError("Error during deserialization of the task graph. This"))
    assert isinstance(graph, ImportError) and isinstance(cluster._understood(KeyError("a")), KeyError)


def test_a_result_that_died_with_its_worker_is_waited_for_again(tmp_path):
    """Dask says that it is there, then that it is lost, and has it made again: not so seldom with many workers."""

    class Future:
        key = "a"

        def __init__(self):
            self.said = ["lost", "pending", "finished"]

        @property
        def status(self):
            return self.said.pop(0) if len(self.said) > 1 else self.said[0]

        def add_done_callback(self, function):
            function(self)

    class Client:
        status = "running"

        def submit(self, *_, pure):
            return Future()

        def nthreads(self):
            return {"worker": 1}

        def gather(self, futures):
            return [[({"square": 4}, "", "")] for _ in futures]

    flight = cluster._Flight(Client(), Squares(tmp_path), patience=1.0)
    assert list(flight.of(iter([[("two", 2)]]))) == [("two", {"square": 4})]


def test_only_a_few_batches_are_asked_for_ahead(scheduler, tmp_path):
    asked = []

    def noted(task):
        asked.append(task)
        return LARGE  # each is a batch

    results = Workers(scheduler=scheduler).each(Squares(tmp_path), tasks(60), noted)
    next(results)
    assert len(asked) < 20
    assert len([*results]) == 59


def test_a_scheduler_that_is_not_there_or_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        for port in (mute.getsockname()[1], 1):
            address = f"tcp://127.0.0.1:{port}"
            with pytest.raises(ConnectionError, match=f"--scheduler {address}: .* none answered within 0.5 s"):
                list(Workers(scheduler=address).each(Squares(tmp_path), tasks(3), size))


def test_a_scheduler_without_workers_is_not_waited_for_without_end(tmp_path, monkeypatch):
    import distributed

    monkeypatch.setattr(cluster, "FIRST", 0.5)
    empty = distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0")
    with empty, pytest.raises(ConnectionError, match="has had no worker for 0.5 s"):
        list(Workers(scheduler=empty.scheduler_address).each(Squares(tmp_path), tasks(3), size))


@pytest.mark.parametrize(
    ("count", "scheduler", "message"),
    [
        (0, None, "expected 1 or more, received 0"),
        (None, "somewhere", "expected tcp://host:port or slurm, received somewhere"),
        (2, "tcp://127.0.0.1:8786", "are there: give one"),
        (None, "slurm", "needs --workers, the number of jobs"),
    ],
)
def test_what_does_not_go_together(count, scheduler, message):
    with pytest.raises(ValueError, match=message):
        engine(count, scheduler)


@pytest.mark.parametrize(("name", "scheduler"), [("distributed", None), ("dask_jobqueue", "slurm")])
def test_without_the_extra_it_is_told_what_to_install(monkeypatch, name, scheduler):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "hetmorph\[cohort\]"'):
        engine(2, scheduler)
    assert isinstance(engine(None, None), InTurn)


def test_dask_is_imported_by_nobody_who_did_not_ask():
    from tests import fresh

    code = "import sys, hetmorph.cohort, hetmorph.cli.main; print({'dask', 'distributed'} & set(sys.modules))"
    assert fresh.output_of(code).strip() == "set()"


SBATCH = """#!/bin/sh
cp "$1" {folder}/job.sh
sh {folder}/job.sh > {folder}/said 2>&1 &
echo $! > {folder}/pid
echo "Submitted batch job 1"
"""


@pytest.mark.slow
def test_jobs_of_slurm_are_processes_with_their_cores_as_threads(tmp_path, monkeypatch):
    """There is no SLURM here: `sbatch` and `scancel` start and end the job as a process of this machine."""
    import dask

    pytest.importorskip("dask_jobqueue")
    for name, script in (("sbatch", SBATCH), ("scancel", "#!/bin/sh\nkill $(cat {folder}/pid)\n")):
        (tmp_path / name).write_text(script.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in cluster._THREADS:
        monkeypatch.delenv(name, raising=False)  # what is set for the tests would go before
    own = {"cores": 4, "memory": "6GiB", "account": "hearts", "local-directory": str(tmp_path)}
    done = tmp_path / "done"
    done.mkdir()
    with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in own.items()}):
        results = dict(Workers(1, "slurm").each(Squares(done), tasks(8), size))
    assert {case: result["square"] for case, result in results.items()} == {case: n**2 for case, n in tasks(8)}
    script = (tmp_path / "job.sh").read_text()
    for wanted in ("--cpus-per-task=4", "--mem=6G", "-A hearts", "--nthreads 1", "export TF_NUM_INTRAOP_THREADS=4"):
        assert wanted in script


def test_small_cases_go_together_and_large_ones_alone():
    sizes = {"a": 1.0, "b": 1.0, "c": LARGE, "d": 1.0, "e": 1.0, "f": 1.0}
    made = batches(((name, None) for name in sizes), lambda task: sizes[task[0]], most=2)
    assert [[name for name, _ in batch] for batch in made] == [["a", "b"], ["c"], ["d", "e"], ["f"]]


def test_models_stay_where_they_are_loaded(tmp_path):
    import functools
    import pickle

    class Loading(Squares):
        @functools.cached_property
        def model(self):
            return lambda: "nothing that pickle takes"

    globals()["Loading"], Loading.__qualname__ = Loading, "Loading"
    work = Loading(tmp_path)
    assert work.model() and "model" in vars(work)
    assert "model" not in vars(pickle.loads(pickle.dumps(work)))
    del globals()["Loading"]


@pytest.mark.slow
def test_a_killed_client_leaves_nothing_running_and_nothing_doubled(tmp_path):
    import subprocess

    code = (
        "import sys, time\n"
        "from tests.cohort.test_cluster import Squares, tasks\n"
        "from hetmorph.cohort import Workers\n"
        "class Slow(Squares):\n"
        "    def __call__(self, case, row):\n"
        "        time.sleep(0.2)\n"
        "        return super().__call__(case, row)\n"
        "if __name__ == '__main__':\n"
        "    list(Workers(2).each(Slow(sys.argv[1]), tasks(200), lambda _: 1.0))\n"
    )
    (tmp_path / "run.py").write_text(code)
    done = tmp_path / "done"
    done.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(done)], env=environment)
    while len([*done.glob("*.tries")]) < 10:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    time.sleep(3)
    before = len([*done.glob("*.tries")])
    time.sleep(2)
    assert len([*done.glob("*.tries")]) == before < 200, "the workers have gone with it"
    results = dict(InTurn().each(Squares(done), tasks(200), size))
    assert {case: result["square"] for case, result in results.items()} == {c: n**2 for c, n in tasks(200)}
