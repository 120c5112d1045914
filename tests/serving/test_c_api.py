"""An export runs in TensorFlow's C++ runtime, the loader and session that TensorFlow Serving uses."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from hetmorph.networks import VxmDense
from hetmorph.serving import export_savedmodel


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """register.c, compiled against the libraries inside the installed TensorFlow."""
    compiler, libraries = shutil.which("gcc"), tf.sysconfig.get_lib()
    if compiler is None:
        pytest.skip("no gcc here")
    if not Path(libraries, "libtensorflow_cc.so.2").exists():
        pytest.skip(f"no libtensorflow_cc.so.2 in {libraries}")
    binary = tmp_path_factory.mktemp("c") / "register"
    source = Path(__file__).with_name("register.c")
    flags = [f"-I{tf.sysconfig.get_include()}", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    names = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    subprocess.run([compiler, "-O1", source, "-o", binary, *flags, *names], check=True)
    return binary


@pytest.mark.slow
def test_c_program_registers_an_odd_size(program, tmp_path):
    height, width = 21, 37
    rng = np.random.default_rng(0)
    model = VxmDense((None, None), nb_unet_features=[[4, 4], [4, 4, 4]])
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.2)
    folder = export_savedmodel(model, tmp_path)
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["register"]
    inputs = [signature.inputs[name].name.partition(":")[0] for name in ("moving", "fixed")]
    displacement = signature.outputs["displacement"].name.split(":")

    moving, fixed = (rng.random((1, height, width, 1)).astype("float32") for _ in range(2))
    command = [program, folder, *inputs, *displacement, str(height), str(width)]
    done = subprocess.run(command, input=moving.tobytes() + fixed.tobytes(), capture_output=True, check=True)
    result = np.frombuffer(done.stdout, "float32").reshape(1, height, width, 2)
    expected = model.register(moving, fixed)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(result, expected, atol=1e-5)
