"""Time a cohort registered by the plain loop and by one and two workers of Dask, and kill what does it.

`speed`: pairs per second of `hetmorph register --pairs` on real slices (ACDC, end-diastole to end-systole and back,
then slice to slice), the start of all processes left out: what 200 more pairs take longer. `overhead`: what Dask costs
a pair that takes no time, for 10,000 of them, and the memory of the client meanwhile. `kill`: 2,000 real slices by two
workers; one is killed, then another, then the client, and --resume goes on; nothing may be lost or doubled. `plan`: a
table of a million pairs, handed out as fast as --nodes nodes of 32 workers ask for batches; the workers are threads of
this process that sleep instead of registering, and are removed now and then as if their nodes had died.

Example:
    python benchmarks/cohort.py overhead
    python benchmarks/cohort.py speed kill --data-dir ~/ACDC
"""

import argparse
import contextlib
import csv
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from common import report
from common.rounds import progress, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = report.ROOT
sys.path.append(str(ROOT))
PAGE = ROOT / "docs" / "cohorts.md"
HALF = 48  # voxels: slices are cut to 96 × 96 round their middle
THREADS = 64  # workers that sleep in one process
SMALL, LARGE = 40, 240  # pairs of the two runs whose difference is the time of a pair
WAYS = {"the loop": [], "1 worker": ["--workers", "1"], "2 workers": ["--workers", "2"]}


def main() -> None:
    args = arguments()
    for part in args.parts:
        results, text = {"speed": speed, "overhead": overhead, "kill": kill, "plan": plan}[part](args)
        print(text)
        if not args.quick and not args.no_page:
            report.save(f"cohort-{part}", results, text, f"python benchmarks/cohort.py {part}", PAGE)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("speed", "overhead", "kill", "plan"))
    parser.add_argument("--data-dir", type=Path, help="of ACDC (default: environment variable HETMORPH_DATA)")
    parser.add_argument("--model", default="acdc_vxm_ncc", help="as of hetmorph register (default: acdc_vxm_ncc)")
    parser.add_argument("--rounds", type=int, default=3, help="of speed (default: 3)")
    of_plan = parser.add_argument_group("plan")
    of_plan.add_argument("--nodes", type=int, default=50, help="of 32 cores, a worker each (default: 50)")
    of_plan.add_argument("--lost", type=float, default=0.05, help="share of the nodes that die an hour (default: 0.05)")
    of_plan.add_argument("--start", type=float, default=20, help="s until a worker has its model (default: 20)")
    of_plan.add_argument("--price", type=float, default=0.05, help="of an hour of a core (default: 0.05)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to see that it runs")
    parser.add_argument("--no-page", action="store_true", help="leave docs/cohorts.md as it is")
    return parser.parse_args()


# -- real slices ----------------------------------------------------------------------------------------------------


def slices(args: argparse.Namespace, folder: Path, count: int) -> Path:
    """A table of pairs of slices, each a file; there are some 2,200 in ACDC."""
    import nibabel as nib
    import numpy as np

    from hetmorph.data.acdc import find_patients, read_info

    def path_of(patient: str, frame: str, z: int) -> str:
        return f"{patient}_{z:02d}_{frame}.nii.gz"

    patients, *_ = find_patients(args.data_dir or os.environ.get("HETMORPH_DATA"))
    both, further = [], []
    for patient, where in patients.items():
        info = read_info(where)
        for frame, number in (("ED", info.ed), ("ES", info.es)):
            image = nib.load(Path(where) / f"{patient}_frame{number:02d}.nii.gz")
            middle = [size // 2 for size in image.shape[:2]]
            cut = image.slicer[tuple(slice(max(0, at - HALF), at + HALF) for at in middle)]
            for z in range(cut.shape[2]):  # all in one plane, or a slice would not meet the next one
                one = nib.Nifti1Image(np.asanyarray(cut.dataobj)[:, :, z : z + 1], cut.affine)
                nib.save(one, folder / path_of(patient, frame, z))
        depth = cut.shape[2]
        for z in range(depth):
            names = path_of(patient, "ED", z), path_of(patient, "ES", z)
            both += [(f"{patient}_{z:02d}", *names), (f"{patient}_{z:02d}_back", *names[::-1])]
        further += [
            (f"{patient}_{z:02d}_next", *(path_of(patient, "ED", k) for k in (z, z + 1))) for z in range(depth - 1)
        ]
    rows = [*both, *further]
    if len(rows) < count:
        raise SystemExit(f"expected {count} pairs of slices, found {len(rows)}")
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "moving", "fixed"), *rows[:count]])
    return folder / "pairs.csv"


def register(args: argparse.Namespace, table: Path, out: Path, *words: str) -> subprocess.Popen:
    """`hetmorph register --pairs`, under way; one thread a process."""
    command = [sys.executable, "-m", "hetmorph.cli", "register", "--pairs", table, "--out", out, "--model", args.model]
    environment = {**os.environ, **settings(1), "PYTHONPATH": str(ROOT)}
    words = [*map(str, command), "--moved", "moved.nii.gz", "--fail-on", "never", *words]
    with (table.parent / "said.txt").open("w") as file:
        return subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen, table: Path) -> str:
    """What a process said, once it has ended well; some pairs may have failed."""
    status = process.wait()
    said = (table.parent / "said.txt").read_text()
    if status not in (0, 1):
        raise SystemExit(f"status {status}:\n{said[-2000:]}")
    return said


# -- pairs per second -----------------------------------------------------------------------------------------------


def speed(args: argparse.Namespace) -> tuple[list[dict], str]:
    """Pairs per second of each way."""
    small, large = (4, 24) if args.quick else (SMALL, LARGE)
    taken = {way: {small: [], large: []} for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        table = slices(args, folder, large)
        lines = table.read_text().splitlines(keepends=True)
        (folder / "small.csv").write_text("".join(lines[: small + 1]))
        for turn in range(1 if args.quick else args.rounds):
            for way, words in WAYS.items():
                for name, count in (("small.csv", small), ("pairs.csv", large)):
                    progress(f"round {turn + 1}: {way}, {count} pairs")
                    start = time.perf_counter()
                    ended(register(args, folder / name, folder / "out", *words), table)
                    taken[way][count].append(time.perf_counter() - start)
                    shutil.rmtree(folder / "out")
    results = []
    for way, seconds in taken.items():
        first, last = (statistics.median(seconds[count]) for count in (small, large))
        rate = (large - small) / (last - first)
        results.append(
            {"way": way, "pairs_per_second": rate, "start_seconds": first - small / rate, "seconds": seconds}
        )
    loop = results[0]["pairs_per_second"]
    rows = [
        [r["way"], f"{r['pairs_per_second']:.2f}", f"{r['pairs_per_second'] / loop:.2f}", f"{r['start_seconds']:.0f}"]
        for r in results
    ]
    return results, report.table(["done by", "pairs/s", "× the loop", "start and end, s"], rows)


# -- what Dask costs ------------------------------------------------------------------------------------------------


class Nothing:
    """A `Work` that takes no time; made where hetmorph is imported."""

    def __new__(cls, seconds: float = 0.0):
        from hetmorph.cohort import Work

        class Sleeping(Work):
            """Sleeps for each case."""

            def __init__(self, seconds: float):
                self.seconds = seconds

            def __call__(self, case, row):
                time.sleep(self.seconds)
                return {"row": {"case_id": case, "failed": ""}}

            def failed(self, case, row, reason):
                return {"row": {"case_id": case, "failed": reason}}

        return Sleeping(seconds)


def resident() -> float:
    """MiB of this process at present."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def overhead(args: argparse.Namespace) -> tuple[list[dict], str]:
    """Milliseconds a pair that takes no time, in batches as they are made and one by one; memory of the client."""
    from hetmorph.cohort import LARGE as WHOLE_BATCH
    from hetmorph.cohort import InTurn, Journal, Workers

    count = 1000 if args.quick else 10_000
    tasks = [(f"case-{number:05d}", {"moving": "m.nii.gz", "fixed": "f.nii.gz"}) for number in range(count)]
    ways = {
        "the loop": (InTurn(), 1.0),
        "2 workers": (Workers(2), 1.0),
        "2 workers, no batches": (Workers(2), WHOLE_BATCH),
    }
    results = []
    for way, (engine, size) in ways.items():
        progress(f"{way}, {count} pairs that take no time")
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "cases.partial.jsonl") as journal:
            start, seen, memory = None, Counter(), []
            for number, (case, result) in enumerate(engine.each(Nothing(), tasks, lambda _, size=size: size)):
                start = start or time.perf_counter()
                journal.add(case, result["row"])
                seen[case] += 1
                memory += [resident()] if number in (count // 10, count - 1) else []
            if len(seen) != count or set(seen.values()) != {1}:
                raise SystemExit(f"{way}: expected {count} cases once each, received {len(seen)}")
        seconds = time.perf_counter() - start
        results.append({"way": way, "ms_a_pair": 1e3 * seconds / count, "mib": memory})
    rows = [[r["way"], f"{r['ms_a_pair']:.2f}", *(f"{mib:.0f}" for mib in r["mib"])] for r in results]
    header = ["done by", "ms a pair", f"client, MiB after {count // 10:,}", f"after {count:,}"]
    return results, report.table(header, rows)


# -- killed on the way ----------------------------------------------------------------------------------------------


def kill(args: argparse.Namespace) -> tuple[list[dict], str]:
    """2,000 real slices, while workers and client are killed."""
    count = 60 if args.quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        table = slices(args, folder, count)
        out, times = folder / "out", {}
        process = register(args, table, out, "--workers", "2")
        for share in (0.15, 0.3):
            wait_for(process, out, share * count)
            victim = children(process.pid)[0]
            progress(f"{finished(out)} pairs done, worker {victim} is killed")
            os.kill(victim, signal.SIGKILL)
        wait_for(process, out, 0.5 * count)
        progress(f"{finished(out)} pairs done, the client is killed")
        process.kill()
        process.wait()
        time.sleep(5)  # what a worker has in hand
        before = finished(out)
        times = {path: path.stat().st_mtime_ns for path in out.glob("*/registration.json")}
        whole_lines = len((out / "cases.partial.jsonl").read_text().splitlines()) - 1
        said = ended(register(args, table, out, "--workers", "2", "--resume"), table)
        return judged(table, out, times, before, whole_lines, said)


def judged(table: Path, out: Path, times: dict, before: int, lines: int, said: str) -> tuple[list[dict], str]:
    """What is there in the end; SystemExit where something is lost, doubled, or left over."""
    with table.open(newline="") as file:
        wanted = [row["case"] for row in csv.DictReader(file)]
    with (out / "cases.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    rows, failed = Counter(row["case_id"] for row in listed), {row["case_id"] for row in listed if row["failed"]}
    whole = {path.parent.name for path in out.glob("*/registration.json") if (path.parent / "moved.nii.gz").exists()}
    wrong = {
        "lost from the table": set(wanted) - set(rows),
        "twice in the table": {case for case, number in rows.items() if number > 1},
        "without results": set(wanted) - whole - failed,
        "made twice": {path.parent.name for path, when in times.items() if path.stat().st_mtime_ns != when},
        "half files": {str(path) for path in out.rglob(".*")},
    }
    if any(wrong.values()):
        raise SystemExit(json.dumps({what: sorted(cases)[:5] for what, cases in wrong.items()}))
    skipped = int(re.search(r"(\d+) were done before", said)[1])
    result = {"pairs": len(wanted), "before_the_client_died": before, "in_its_table": lines, "taken_over": skipped}
    text = (
        f"{len(wanted)} pairs, two workers killed on the way, then the client after {before} results, of which its "
        f"table had {lines}. --resume took over {skipped} and did the others. Failed {len(failed)}, lost 0, doubled 0, "
        "made again 0, half files 0."
    )
    return [result], text


def finished(out: Path) -> int:
    """Pairs that are done."""
    return sum(1 for _ in out.glob("*/registration.json"))


def wait_for(process: subprocess.Popen, out: Path, count: float) -> None:
    """Return when so many pairs are done."""
    while finished(out) < count:
        if process.poll() is not None:
            raise SystemExit(f"ended too early, with status {process.returncode}")
        time.sleep(0.2)


def children(client: int) -> list[int]:
    """The workers of a client: its children that Python has spawned for work."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == client and any(b"spawn_main" in word for word in words):
            found.append(int(path.name))
    return sorted(found)


# -- past this machine ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Pairs of one kind, on paper.

    Attributes:
        name: of the table.
        seconds: a pair, with one thread.
        batch: pairs that go to a worker together.
        moved, transform: bytes of the files of a pair.
    """

    name: str
    seconds: float
    batch: int
    moved: float
    transform: float


# A slice as measured with acdc_vxm_het, half a second and 0.96 MB; a volume as docs/benchmarks.md has it with two
# threads, its files before compression.
KINDS = (
    Kind("slices of 216 × 256", 0.5, 32, 60e3, 0.9e6),
    Kind("volumes of 160 × 192 × 224", 5.0, 1, 160 * 192 * 224 * 2, 160 * 192 * 224 * 3 * 4),
)
TOLD = 6e3  # bytes of sidecars and record of a pair
FILES = 5  # of a pair
CORES = 32  # workers of a node, one core each
PAIRS = 1_000_000


def plan(args: argparse.Namespace) -> tuple[list[dict], str]:
    """What a million pairs take on paper, and whether one client and one scheduler can hand them out."""
    columns = [paper(kind, args) for kind in KINDS]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    simulated = simulation(args)
    return [simulated], f"{report.table(['', *(kind.name for kind in KINDS)], rows)}\n\n{told(simulated, args)}"


def paper(kind: Kind, args: argparse.Namespace) -> dict[str, str]:
    """A column of the table."""
    workers = args.nodes * CORES
    hours, core_hours = PAIRS * kind.seconds / workers / 3600, PAIRS * kind.seconds / 3600
    killed = workers * args.lost  # an hour
    redone = killed * (kind.seconds * kind.batch / 2 + args.start) / 3600  # worker-hours in each hour
    pairs_a_second, own = workers / kind.seconds, kind.moved + kind.transform + TOLD
    return {
        "time, h": f"{hours:.1f}",
        "core-hours": f"{core_hours:,.0f}",
        f"cost, at {args.price:g} a core-hour": f"{core_hours * args.price:.0f}",
        "batches": f"{PAIRS // kind.batch:,}",
        "batches a second": f"{pairs_a_second / kind.batch:.0f}",
        "moved images, TB": f"{PAIRS * kind.moved / 1e12:.2f}",
        "transforms, TB": f"{PAIRS * kind.transform / 1e12:.1f}",
        "files": f"{PAIRS * FILES:,}",
        "files a second": f"{pairs_a_second * FILES:,.0f}",
        "to write, GB/s": f"{pairs_a_second * own / 1e9:.1f}",
        "workers killed an hour": f"{killed:.0f}",
        "batches done again, in all": f"{killed * hours:.0f}",
        "time lost by that": f"{redone / workers:.2%}",
    }


def simulation(args: argparse.Namespace) -> dict:
    """Slices of a table of so many pairs by workers that sleep: client, scheduler and workers are a process each."""
    from hetmorph.cli.batch import DEFAULT, Jobs, pairs_of
    from hetmorph.cohort import Entries, Journal, Workers, cluster
    from hetmorph.evaluation import write_cases

    count, asked = PAIRS // 50 if args.quick else PAIRS, args.nodes * CORES / KINDS[0].seconds / 32
    cluster._do = Sleep(THREADS / asked)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder, empty, start = Path(folder), resident(), time.perf_counter()
        with (folder / "pairs.csv").open("w") as file:
            file.write("case,moving,fixed\n")
            file.writelines(f"sub-{k:07d},sub-{k:07d}_ED.nii.gz,sub-{k:07d}_ES.nii.gz\n" for k in range(count))
        rows, _ = pairs_of(folder / "pairs.csv")
        jobs = Jobs(rows, folder, folder / "out", DEFAULT)
        result = {"pairs": count, "asked": asked}
        result |= {"table_seconds": time.perf_counter() - start, "table_mib": resident() - empty}
        scheduler, address = stack.enter_context(running_scheduler(folder))
        sleeping, orders = stack.enter_context(running_sleepers(address))
        journal = stack.enter_context(Journal(folder / "cases.partial.jsonl"))
        first, begin, killed, seen, memory = None, None, 0, Counter(), []
        for number, (case, row) in enumerate(Workers(scheduler=address).each(Nothing(), jobs.items(), one)):
            if first is None:
                first, begin = time.perf_counter(), [spent(role) for role in (os.getpid(), scheduler, sleeping)]
            journal.add(case, row)
            seen[case] += 1
            if number % (count // 10) == count // 20:
                memory.append(resident())
                orders.send(True)
                killed += 1
                progress(f"{number} of {count} pairs, {memory[-1]:.0f} MiB")
        took, cpu = time.perf_counter() - first, [spent(role) for role in (os.getpid(), scheduler, sleeping)]
        if len(seen) != count or set(seen.values()) != {1}:
            raise SystemExit(f"expected {count} pairs once each, received {len(seen)}, {sum(seen.values())} in all")
        start = time.perf_counter()
        write_cases(folder / "cases.csv", Entries(journal, sorted(jobs)))
        result["cases_csv_seconds"] = time.perf_counter() - start
    ms = [1e3 * (after - before) / (count / 32) for before, after in zip(begin, cpu, strict=True)]
    result |= {f"{role}_ms_a_batch": one for role, one in zip(("client", "scheduler", "workers"), ms, strict=True)}
    return result | {"batches_a_second": count / 32 / took, "killed": killed, "mib": memory}


def told(result: dict, args: argparse.Namespace) -> str:
    """The simulation in words."""
    most = 1e3 / max(result["client_ms_a_batch"], result["scheduler_ms_a_batch"])
    memory = result["mib"]
    return (
        f"Simulated: {result['pairs']:,} pairs, whose table takes {result['table_seconds']:.0f} s to read and "
        f"{result['table_mib']:.0f} MiB. A client, a scheduler and a process of {THREADS} workers that sleep as long "
        f"as {args.nodes} nodes take handed out {result['batches_a_second']:.0f} batches of 32 a second, of "
        f"{result['asked']:.0f} that were asked for. A batch takes {result['client_ms_a_batch']:.1f} ms of the "
        f"client's core and {result['scheduler_ms_a_batch']:.1f} ms of the scheduler's: with a core for each, "
        f"{most:.0f} a second. The client had {memory[0]:.0f} MiB after the first twentieth and {memory[-1]:.0f} MiB "
        f"near the end. {result['killed']} workers were removed with what they had in hand: every pair came, each "
        f"once. cases.csv is written in {result['cases_csv_seconds']:.0f} s."
    )


@contextlib.contextmanager
def running_scheduler(folder: Path) -> Iterator[tuple[int, str]]:
    """Process and address of a scheduler."""
    where = folder / "scheduler.json"
    words = ["--port", "0", "--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(where)]
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *words], stderr=subprocess.DEVNULL
    )
    try:
        while not where.exists() or not where.read_text():
            if process.poll() is not None:
                raise SystemExit(f"the scheduler ended with status {process.returncode}")
            time.sleep(0.1)
        yield process.pid, json.loads(where.read_text())["address"]
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def running_sleepers(address: str) -> Iterator[tuple[int, Connection]]:
    """Process of the workers, and what tells it to remove one."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=sleepers, args=(address, there), daemon=True)
    process.start()
    here.recv()
    try:
        yield process.pid, here
    finally:
        process.terminate()
        process.join()


def sleepers(address: str, orders: Connection) -> None:
    """Workers, of which the oldest is removed at each order, as if its node had died, and another one comes."""
    import asyncio
    import logging

    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)

    def started() -> distributed.Worker:
        return distributed.Worker(address, nthreads=1, memory_limit=0, dashboard=False)

    async def run() -> None:
        workers = [await started() for _ in range(THREADS)]
        orders.send(True)
        while await asyncio.to_thread(orders.recv):
            await workers.pop(0).close(timeout=0.1, executor_wait=False)  # nothing that it has in hand arrives
            workers.append(await started())

    asyncio.run(run())


def spent(process: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Sleep:
    """Stands for `cluster._do`.

    Args:
        seconds: of a batch of 32.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, work: bytes, batch: bytes, folder: str) -> list[tuple[dict, str, str]]:
        from distributed.protocol import pickle

        cases = pickle.loads(batch)
        time.sleep(self.seconds * len(cases) / 32)
        return [({"case_id": case, "failed": "", "verdict": "accept"}, "", "") for case, _ in cases]


def one(_) -> float:
    """Size of a case, so that batches hold as many as they may."""
    return 1.0


if __name__ == "__main__":
    main()
