"""`train.py` on two hosts, two processes here: the files of one run, and what is left when a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.training.test_hosts import addresses

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TINY = """
data: {name: phantom, size: [32, 32]}
network: {features: [[4, 4], [4, 4, 4]], int_steps: 2}
schedule: {steps: 60, steps_per_epoch: 5, batch_size: 4}
objective: {name: het, warm_start: 1}
"""
PATIENCE = 300  # seconds; what hangs fails


def start(out, *flags, hosts=1):
    """Processes of a training, one for each host."""
    config = out.with_suffix(".yaml")
    config.write_text(TINY)
    workers, environ = addresses(hosts), {**os.environ, "HETMORPH_XLA": "0"}
    command = [sys.executable, str(ROOT / "training" / "train.py"), "--config", str(config), "--out", str(out), *flags]
    processes = []
    for index in range(hosts):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        own = {**environ, "TF_CONFIG": json.dumps(cluster)} if hosts > 1 else environ
        processes.append(subprocess.Popen(command, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return processes


def ended(processes):
    """Status and stderr of each."""
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def weights(out):
    (path,) = (out / "checkpoints").glob("[0-9]*.keras")
    return keras.saving.load_model(path).get_weights()


def log(out):
    return np.genfromtxt(out / "log.csv", delimiter=",", names=True)


def assert_same_run(out, whole):
    for a, b in zip(weights(out), weights(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-4)
    for name in log(whole).dtype.names:
        np.testing.assert_allclose(log(out)[name], log(whole)[name], rtol=5e-3, atol=1e-3, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    assert ended(start(out))[0][0] == 0
    return out


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_stops_the_other_and_both_go_on(killed, whole, tmp_path):
    out = tmp_path / "run"
    processes = start(out, hosts=2)
    deadline = time.monotonic() + PATIENCE
    while not list((out / "checkpoints").glob("0000[3-9].keras")):
        assert time.monotonic() < deadline and processes[killed].poll() is None
        time.sleep(0.05)
    os.kill(processes[killed].pid, signal.SIGKILL)
    results = ended(processes)
    status, said = results[1 - killed]
    assert results[killed][0] == -signal.SIGKILL and status == 2
    assert f"worker {killed} (localhost:" in said and "start all of them again to resume" in said
    assert len(said.splitlines()) == 1
    assert not (out / "summary.json").exists()
    assert [status for status, _ in ended(start(out, "--resume", hosts=2))] == [0, 0]
    assert_same_run(out, whole)
    assert (out / "summary.json").exists() and (out / "saved_model" / "1").exists()
