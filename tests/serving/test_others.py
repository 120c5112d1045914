"""Programs that share no code with hetmorph: clients on its server, a server under its client, other loaders."""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from hetmorph.serving import Client, ServingError
from tests.servers import free_ports
from tests.serving.conftest import pair

OVMSCLIENT = """
import sys

sys.modules["tensorflow"] = None  # neither it nor hetmorph is needed
import numpy as np
import ovmsclient

protocol, address, request, result = sys.argv[1:]
make = {"grpc": ovmsclient.make_grpc_client, "http": ovmsclient.make_http_client}[protocol]
client = make(address)
status = client.get_model_status("heart", model_version=1)
assert status[1]["state"] == "AVAILABLE", status
if protocol == "grpc":  # over REST it reads OpenVINO's spelling of the metadata only
    inputs = client.get_model_metadata("heart", model_version=1)["inputs"]
    assert set(inputs) == {"moving", "fixed"} and inputs["moving"]["shape"] == [-1, -1, -1, 1], inputs
np.savez(result, **client.predict(dict(np.load(request)), "heart", model_version=1, timeout=60))
"""


@pytest.mark.slow
def test_ovmsclient(heart, server, protocol, tmp_path):
    if importlib.util.find_spec("ovmsclient") is None:
        pytest.skip("no ovmsclient here: pip install --no-deps ovmsclient")
    moving, fixed = pair((19, 26))
    np.savez(tmp_path / "request.npz", moving=moving[None, ..., None], fixed=fixed[None, ..., None])
    address = server.address(protocol).split("://")[1].split("/")[0]
    files = [tmp_path / "request.npz", tmp_path / "result.npz"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", OVMSCLIENT, protocol, address, *files], check=True)
    result, expected = np.load(tmp_path / "result.npz"), heart[0](moving, fixed)
    np.testing.assert_allclose(result["displacement"][0], expected.displacement, atol=1e-5)
    np.testing.assert_allclose(result["moved"][0, ..., 0], expected.moved, atol=1e-5)


@pytest.fixture(scope="module")
def kserve():
    """Port of a running KServe."""
    pytest.importorskip("requests")
    python = os.environ.get("HETMORPH_KSERVE_PYTHON", sys.executable)
    if python == sys.executable and importlib.util.find_spec("kserve") is None:
        pytest.skip("no kserve here; HETMORPH_KSERVE_PYTHON may name a Python that has it")
    (port,) = free_ports(1)
    program = Path(__file__).with_name("kserve_model.py")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([python, program, f"--http_port={port}"], **quiet)
    try:
        _wait(f"http://127.0.0.1:{port}/v1/models/heart", process)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait(url, process):
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "KServe has ended"
            time.sleep(0.2)
    raise AssertionError("KServe does not answer")


def test_the_client_on_kserve(kserve):
    moving, fixed = (np.stack([image, image[::-1]])[..., None] for image in pair((5, 7)))
    with Client(f"http://127.0.0.1:{kserve}/heart", rows=True) as client:
        result = client.predict({"moving": moving, "fixed": fixed}, "register")
        np.testing.assert_array_equal(result["moved"], moving / 2)
        np.testing.assert_array_equal(result["displacement"][..., :1], moving - fixed)
        with pytest.raises(ServingError, match="negative voxels"):
            client.predict({"moving": -moving, "fixed": fixed}, "register")
        with pytest.raises(ServingError, match="not an answer of TensorFlow Serving"):
            client.status()  # KServe has a form of its own for it
        assert client.predict({"moving": moving, "fixed": fixed}, "register")["moved"].shape == moving.shape


@pytest.mark.slow
def test_openvino_runs_the_folder(heart):
    openvino = pytest.importorskip("openvino", reason="no openvino here: pip install openvino")
    moving, fixed = pair((32, 32))
    model = openvino.Core().read_model(str(heart[1] / "1"))  # takes serving_default
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = {"moving": moving[None, ..., None], "fixed": fixed[None, ..., None]}
    inputs = {entry: images[role] for entry in model.inputs for role in images if role in "".join(entry.names)}
    assert len(inputs) == 2
    outputs = [np.asarray(value) for value in compiled({entry.any_name: x for entry, x in inputs.items()}).values()]
    (displacement,) = (value for value in outputs if value.shape[-1] == 2)
    np.testing.assert_allclose(displacement[0], heart[0](moving, fixed).displacement, atol=1e-3)
