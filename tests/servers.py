"""Servers for the tests and the benchmark: a real TensorFlow Serving where there is one, else the test double."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from hetmorph.serving.deploy import IMAGE

ROOT = Path(__file__).resolve().parent.parent
NONE = "no TF Serving here"  # reason of skipped tests


def double(*_) -> list[str]:
    """Command of the test double."""
    return [sys.executable, str(ROOT / "tests" / "reference_server.py")]


def real(folder, port: int) -> list[str] | None:
    """Command of a real server: tensorflow_model_server on the PATH, or the official image; None without both."""
    if binary := shutil.which("tensorflow_model_server"):
        return [binary]
    if shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        options = ["--rm", "--network=host", f"--volume={folder}:{folder}:ro", f"--name=hetmorph-test-{port}"]
        return ["docker", "run", *options, "--entrypoint=tensorflow_model_server", IMAGE]
    return None


class Server:
    """A process that serves the models of one `models.config`.

    Args:
        make: `double` or `real`.
        folder: of the model, filled by `deploy(folder, base_path=folder)`.
        extra: further flags.
    """

    def __init__(self, make, folder, *extra: str):
        self.folder, self.ports = Path(folder).resolve(), free_ports(2)
        self.command = make(self.folder, self.ports[0])
        self.flags = [
            f"--port={self.ports[0]}",
            f"--rest_api_port={self.ports[1]}",
            f"--model_config_file={self.folder}/models.config",
            "--model_config_file_poll_wait_seconds=1",
            "--allow_version_labels_for_unavailable_models=true",
            f"--monitoring_config_file={self.folder}/monitoring.config",
            "--rest_api_timeout_in_ms=300000",
            *extra,
        ]
        self.start()

    def start(self, wait: float = 90) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        self.log = (self.folder / ".server.log").open("ab")
        self.process = subprocess.Popen([*self.command, *self.flags], stdout=self.log, stderr=self.log, env=environment)
        if wait:
            self.wait(wait)

    def wait(self, seconds: float = 90) -> None:
        """Until a version is available."""
        end = time.monotonic() + seconds
        while "AVAILABLE" not in self.get(f"/v1/models/{self.folder.name}"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no server: {(self.folder / '.server.log').read_text()[-3000:]}")
            time.sleep(0.2)

    def get(self, path: str) -> str:
        """The text at a path of the REST port, "" where there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}{path}", timeout=5) as response:
                return response.read().decode()
        except (urllib.error.URLError, OSError):
            return ""

    def address(self, protocol: str, choice: str = "") -> str:
        port = self.ports[0] if protocol == "grpc" else self.ports[1]
        return f"{protocol}://127.0.0.1:{port}/{self.folder.name}{choice}"

    def kill(self) -> None:
        """As a power cut does."""
        if self.command[0] == "docker":
            subprocess.run(["docker", "kill", f"hetmorph-test-{self.ports[0]}"], capture_output=True, check=False)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def alive(self) -> bool:
        return self.process.poll() is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Callers:
    """Threads that call a function over and over while the block runs.

    Attributes:
        seconds: how long each call took.
        errors: what the others raised.
        elapsed: seconds the block took.
    """

    def __init__(self, call, count: int, pause: float = 0.0):
        self.seconds, self.errors, self.elapsed = [], [], 0.0
        self._call, self._pause, self._stop = call, pause, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        while not self._stop.is_set():
            start = time.perf_counter()
            try:
                self._call()
                self.seconds.append(time.perf_counter() - start)
                self._stop.wait(self._pause)
            except Exception as error:  # noqa: BLE001
                self.errors.append(error)

    def __enter__(self):
        self.elapsed = -time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.elapsed += time.perf_counter()
