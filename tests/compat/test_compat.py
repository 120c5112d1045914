"""The loader of voxelmorph and neurite: its rules, its refusals, and that it touches nothing else."""

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hetmorph import compat

ROOT = Path(__file__).resolve().parents[2]

# rule, source that Keras 2 accepted, what it becomes
RULES = [
    ("get_shape", "x.get_shape()[-1]", "_k3.shape_of(x)[-1]"),
    ("shape_as_list", "x.get_shape().as_list()[1:]", "_k3.as_list(_k3.shape_of(x))[1:]"),
    ("nibabel_get_data", "img.get_data().squeeze()", "_k3.image_data(img).squeeze()"),
    ("getargspec", "inspect.getargspec(func)", "_k3.argspec(func)"),
    ("learning_phase_call", "training = K.learning_phase()", "training = _k3.learning_phase()"),
    ("numpy_inf", "best = -np.Inf", "best = -np.inf"),
    ("compute_dtype", "tf.cast(x, self._compute_dtype)", "tf.cast(x, self.compute_dtype)"),
    ("dtype_is_integer", "labels.dtype.is_integer", "_k3.is_integer(labels.dtype)"),
    ("optimizer_lr", "self.model.optimizer.lr", "self.model.optimizer.learning_rate"),
    ("scipy_ndimage", "scipy.ndimage.interpolation.zoom(x, 2)", "scipy.ndimage.zoom(x, 2)"),
    ("is_file_of_array", "os.path.isfile(f)", "_k3.is_file(f)"),
    ("model_ends", "model.output.shape", "_k3.single(model.output).shape"),
    ("dropout_noise_shape", "D(0.1, noise_shape=n)", "D(0.1, noise_shape=_k3.python_ints(n))"),
    ("missing_dot", "tf.kerasregularizers.l2", "tf.keras.regularizers.l2"),
    ("dense_units", "KL.Dense(np.prod(s), activation='elu')", "KL.Dense(int(np.prod(s)), activation='elu')"),
    ("softmax_lambda", "KL.Lambda(softmax_lambda_fcn, name=n)", "KL.Softmax(name=n)"),
    ("identity_lambda", "KL.Lambda(lambda x: x, name=n)", "KL.Activation('linear', name=n)"),
    ("super_of_own_class", "super(self.__class__, self).__init__()", "super().__init__()"),
    ("backend_choice", "backend = py.utils.get_backend()", "backend = 'tensorflow'"),
    (
        "keras_losses_import",
        "from tensorflow.keras.losses import mean_squared_error as l2",
        "[l2] = _k3.keras_losses('mean_squared_error')",
    ),
]
UNTOUCHED = [
    "x.get_shape(1)",
    "img.get_data(caching='fill')",
    "np.inf",
    "float(d).is_integer()",
    "self.lr",
    "KL.Lambda(lambda x: x + 1)",
    "super(Resize, self).__init__()",
    "KL.Dense(3)",
    "from tensorflow.keras.layers import Layer",
]


@pytest.mark.parametrize(("rule", "before", "after"), RULES, ids=[rule for rule, *_ in RULES])
def test_rule(rule, before, after):
    assert compat.rewrite(before) == after


def test_every_rule_has_its_example():
    assert {rule.__name__ for rule in compat.RULES} == {rule for rule, *_ in RULES}


@pytest.mark.parametrize("source", UNTOUCHED)
def test_what_still_works_is_left_alone(source):
    assert compat.rewrite(source) == source


def test_line_numbers_and_comments_stay():
    source = "# é before\ny = f(\n    x.get_shape(),  # why\n    np\n    .Inf,\n)\nz = 1\n"
    rewritten = compat.rewrite(source)
    assert rewritten.count("\n") == source.count("\n")
    assert "# é before" in rewritten and "# why" in rewritten
    assert rewritten.splitlines()[-1] == "z = 1"
    ast.parse(rewritten)


PACKAGE_FILES = sorted(
    path for package in (compat.ne, compat.vxm) for path in Path(package.__file__).parent.rglob("*.py")
)


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=lambda p: "/".join(p.parts[-3:]))
def test_every_module_of_both_packages_is_rewritten_completely(path):
    rewritten = compat.rewrite(path.read_text())
    assert compat.rewrite(rewritten).count("\n") == path.read_text().count("\n")
    rewriter = compat._Rewriter()
    rewriter.visit(ast.parse(rewritten))
    # What a rule wraps in a helper, it would wrap again; nothing else may be left.
    left = [node for node in rewriter.replaced if "_k3." not in ast.unparse(node)]
    assert not left


def test_autograph_compiles_the_rewritten_source():
    """TensorFlow converts functions from the source that `inspect` finds; the file's would be the old one."""
    source = inspect.getsource(compat.ne.layers.HyperDense._call_batch)
    assert "self.compute_dtype" in source
    assert "self._compute_dtype" not in source


def run(code, *path, **environment):
    """Run Python code in a fresh process and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), **environment}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


SNAPSHOT = """
import importlib, inspect, sys, warnings
import keras, nibabel, numpy, scipy.ndimage, tensorflow as tf
try:  # as a program that tried the original first
    import voxelmorph
except Exception:
    print("failed")
owners = {
    "keras": keras, "losses": keras.losses, "layers": keras.layers, "backend": keras.backend,
    "KerasTensor": keras.KerasTensor, "Layer": keras.layers.Layer, "Model": keras.Model, "Dense": keras.layers.Dense,
    "Optimizer": keras.optimizers.Optimizer, "tf.keras.losses": importlib.import_module("tensorflow.keras.losses"),
    "Tensor": tf.Tensor, "TensorShape": tf.TensorShape, "numpy": numpy, "inspect": inspect, "ndimage": scipy.ndimage,
    "nifti": nibabel.Nifti1Image, "builtins": importlib.import_module("builtins"),
}
def snapshot():
    taken = {f"{o}.{k}": id(v) for o, owner in owners.items() for k, v in vars(owner).items()
             if k not in ("__warningregistry__", "_")}
    taken["policy"] = keras.mixed_precision.dtype_policy().name
    taken["format"] = keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()
    taken["finders"] = [id(f) for f in sys.meta_path]
    taken["eager"] = tf.executing_eagerly(), tf.config.functions_run_eagerly()
    taken["filters"] = list(warnings.filters)
    taken["autolog"] = tf.get_logger().level
    return taken
before = snapshot()
import hetmorph
import hetmorph.networks.synth
after = snapshot()
changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
print("changed", changed)
import voxelmorph, neurite
print(voxelmorph is hetmorph.compat.vxm, neurite.__version__, "torch" in sys.modules)
import matplotlib
print(matplotlib.rcParams._get_backend_or_none())
"""


def test_nothing_else_in_the_program_changes():
    """And it works after `import voxelmorph` failed, selects no plotting backend and imports no torch."""
    lines = run(SNAPSHOT, MPLBACKEND="").splitlines()
    assert lines[0] == "failed"
    assert lines[1] == "changed []"
    assert lines[2] == "True 0.2 False"
    assert lines[3] == "None"


# Runs compat.py by itself: hetmorph would import TensorFlow, which none of these needs.
ALONE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("alone", {str(ROOT / "hetmorph" / "compat.py")!r})
try:
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
except ImportError as error:
    print(error)
print("imported:", sorted({{"torch", "voxelmorph", "neurite", "tensorflow"}} & set(sys.modules)))
"""


def fake_package(folder, name, text):
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text(text)


@pytest.mark.parametrize("name", ["voxelmorph", "neurite"])
@pytest.mark.parametrize("version", ["0.3", "0.3.1.dev1", "1.0", "0.1"])
def test_another_version_is_refused_with_the_fix(name, version, tmp_path):
    fake_package(tmp_path, name, f"import torch\n__version__ = '{version}'\n")
    message, imported = run(ALONE, tmp_path).splitlines()
    assert f"{name} {version}" in message
    assert 'pip install "voxelmorph==0.2" "neurite==0.2"' in message
    assert imported == "imported: []"


def test_a_missing_package_is_named(tmp_path):
    hide = "import sys; sys.path = [p for p in sys.path if 'packages' not in p]\n"
    message, imported = run(hide + ALONE).splitlines()
    assert "needs neurite 0.2, which is not installed" in message
    assert 'pip install "voxelmorph==0.2" "neurite==0.2"' in message


def test_keras_2_is_refused():
    message, imported = run(ALONE, TF_USE_LEGACY_KERAS="1").splitlines()
    assert "TF_USE_LEGACY_KERAS" in message
    assert imported == "imported: []"


def test_a_program_keeps_the_package_it_had_imported():
    code = """
    import sys, types
    own = sys.modules["voxelmorph"] = types.ModuleType("voxelmorph")
    own.part = sys.modules["voxelmorph.part"] = types.ModuleType("voxelmorph.part")
    import hetmorph.compat
    print(sys.modules["voxelmorph"] is own, sys.modules["voxelmorph.part"] is own.part,
          hetmorph.compat.vxm.networks.VxmDense.__name__)
    """
    assert run(code).split() == ["True", "True", "VxmDense"]
