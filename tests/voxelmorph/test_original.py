"""The loader of voxelmorph and neurite: its rules, its refusals, and that it touches nothing else."""

import ast
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hetmorph
from hetmorph.voxelmorph import original
from tests import fresh

ROOT = Path(__file__).resolve().parents[2]

# rule, source that Keras 2 accepted, what it becomes
RULES = [
    ("get_shape", "x.get_shape()[-1]", "x.shape[-1]"),
    ("shape_as_list", "x[0].get_shape()[1:].as_list()[1:]", "list(x[0].shape[1:])[1:]"),
    ("nibabel_get_data", "img.get_data().squeeze()", "img.dataobj[...].squeeze()"),
    ("getargspec", "inspect.getargspec(func)", "inspect.getfullargspec(func)[:4]"),
    ("learning_phase", "training = K.learning_phase()", "training = False"),
    ("numpy_inf", "best = -np.Inf", "best = -np.inf"),
    ("compute_dtype", "tf.cast(x, self._compute_dtype)", "tf.cast(x, self.compute_dtype)"),
    ("dtype_is_integer", "labels.dtype.is_integer", "tf.as_dtype(labels.dtype).is_integer"),
    ("optimizer_lr", "self.model.optimizer.lr", "self.model.optimizer.learning_rate"),
    ("scipy_ndimage", "scipy.ndimage.interpolation.zoom(x, 2)", "scipy.ndimage.zoom(x, 2)"),
    ("is_file_of_array", "if not os.path.isfile(f):", "if not (isinstance(f, str) and os.path.isfile(f)):"),
    ("model_ends", "f(model.layers[-2].output)", "f(_single(model.layers[-2].output))"),
    ("dropout_noise_shape", "D(noise_shape=noise_shape)", "D(noise_shape=[n and int(n) for n in noise_shape])"),
    ("dense_units", "KL.Dense(np.prod(s), activation='elu')", "KL.Dense(int(np.prod(s)), activation='elu')"),
    ("missing_dot", "tf.kerasregularizers.l2", "tf.keras.regularizers.l2"),
    ("softmax_lambda", "KL.Lambda(softmax_lambda_fcn, name=n)", "KL.Softmax(name=n)"),
    ("identity_lambda", "KL.Lambda(lambda x: x, name=n)", "KL.Activation('linear', name=n)"),
    ("super_of_own_class", "super(self.__class__, self).__init__()", "super().__init__()"),
    ("backend_choice", "backend = py.utils.get_backend()", "backend = 'tensorflow'"),
    (
        "keras_losses_import",
        "from tensorflow.keras.losses import mean_squared_error as l2",
        "import keras; l2 = keras.losses.mean_squared_error",
    ),
]
UNTOUCHED = [
    "x.get_shape(1)",
    "img.get_data(caching='fill')",
    "np.inf",
    "float(d).is_integer()",
    "self.lr",
    "self.output = x",
    "KL.Lambda(lambda x: x + 1)",
    "super(Resize, self).__init__()",
    "KL.Dense(3)",
    "from tensorflow.keras.layers import Layer",
]


@pytest.mark.parametrize(("rule", "before", "after"), RULES, ids=[rule for rule, *_ in RULES])
def test_rule(rule, before, after):
    assert original.rewrite(before) == after


def test_every_rule_has_its_example():
    assert [rule for rule, *_ in original.RULES] == [rule for rule, *_ in RULES]


@pytest.mark.parametrize("source", UNTOUCHED)
def test_what_still_works_is_left_alone(source):
    assert original.rewrite(source) == source


PACKAGE_FILES = sorted(
    path for package in (original.ne, original.vxm) for path in Path(package.__file__).parent.rglob("*.py")
)
GONE = {"get_shape", "as_list", "get_data", "getargspec", "learning_phase", "Inf", "_compute_dtype", "lr"}
GONE |= {"kerasregularizers", "kerasmodels", "interpolation", "morphology"}


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=lambda p: "/".join(p.parts[-3:]))
@pytest.mark.filterwarnings("ignore:invalid escape sequence", r"ignore:.*is an invalid escape sequence")
def test_every_module_of_both_packages_is_rewritten_completely(path):
    """Line by line, and nothing that broke is left: the names that are gone, by Python's own reading."""
    rewritten = original.rewrite(path.read_text())
    assert rewritten.count("\n") == path.read_text().count("\n")
    attributes = [node for node in ast.walk(ast.parse(rewritten)) if isinstance(node, ast.Attribute)]
    assert not {node.attr for node in attributes} & GONE
    ends = [node for node in attributes if node.attr in ("input", "output") and isinstance(node.ctx, ast.Load)]
    assert rewritten.count("_single(") == len(ends) or path.parent.name == "torch"


def test_autograph_compiles_the_rewritten_source():
    """TensorFlow converts functions from the source that `inspect` finds; the file's would be the old one."""
    source = inspect.getsource(original.ne.layers.HyperDense._call_batch)
    assert "self.compute_dtype" in source
    assert "self._compute_dtype" not in source


# hetmorph's layers that are built of nothing of the originals, and become subclasses of them nevertheless
ADOPTED = {
    "voxelmorph": ["ComposeTransform", "RescaleTransform", "SpatialTransformer", "VecInt", "VecIntegration"],
    "neurite": ["Negate", "SampleNormalLogVar"],
}
INHERITED = {
    "voxelmorph": ["AddIdentity", "AffineToDenseShift", "InvertAffine", "ParamsToAffineMatrix"],
    "neurite": ["CovStream", "HyperConv2D", "HyperConv3DFromDense", "HyperDense", "LocalParamWithInput", "MeanStream"],
}


@pytest.mark.parametrize("package", ADOPTED)
def test_layers_are_subclasses_of_the_originals(package):
    originals = sys.modules[f"{package}.tf.layers"]
    for name in ADOPTED[package] + INHERITED[package]:
        own = getattr(hetmorph.layers, name)
        assert issubclass(own, getattr(originals, name)) and own is not getattr(originals, name)


def test_no_other_layer_has_the_name_of_an_original():
    """It would become a subclass of it by mistake."""
    own = {
        name for name, value in vars(hetmorph.layers).items() if ".voxelmorph." not in getattr(value, "__module__", "")
    }
    same = {
        name
        for package in ADOPTED
        for name, value in vars(sys.modules[f"{package}.tf.layers"]).items()
        if inspect.isclass(value) and value.__module__ == f"{package}.tf.layers" and name in own
    }
    assert same == set(ADOPTED["voxelmorph"] + ADOPTED["neurite"])


def test_the_core_layers_do_the_same_before_and_after():
    """Nothing that they inherit from the originals matters: configurations and results are those without them."""
    assert fresh.output_of(LAYERS.format(first="")) == fresh.output_of(LAYERS.format(first="import voxelmorph"))


LAYERS = """
import hetmorph, keras, numpy as np
{first}
layers = hetmorph.layers
field = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype("float32")
matrix = np.array([[[1, 0.1, 2], [0, 1, -1]]], "float32")
for layer, inputs in [
    (layers.SpatialTransformer(indexing="xy", fill_value=0.0), [field, field]),
    (layers.SpatialTransformer("nearest", name="affine"), [field, matrix]),
    (layers.VecInt(int_steps=3), field),
    (layers.RescaleTransform(2), field),
    (layers.RescaleTransform(2, name="matrix"), matrix),
    (layers.ComposeTransform(), [matrix, field]),
    (layers.Negate(), field),
    (layers.SampleNormalLogVar(seed=1), [field, field]),
]:
    for training in (False, True) if "sample" in layer.name else (None,):
        output = layer(inputs, training=training) if training is not None else layer(inputs)
        print(sorted(layer.get_config().items(), key=str), np.asarray(output).sum(dtype=float))
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
"""


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
    taken["finders"] = [id(f) for f in sys.meta_path if not type(f).__module__.startswith("hetmorph.")]
    taken["eager"] = tf.executing_eagerly(), tf.config.functions_run_eagerly()
    taken["filters"] = list(warnings.filters)
    taken["autolog"] = tf.get_logger().level
    return taken
before = snapshot()
import hetmorph
hetmorph.networks.SynthStrip
after = snapshot()
changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
print("changed", changed)
[finder] = [f for f in sys.meta_path if type(f).__module__.startswith("hetmorph.")]
print("found", [name for name in ("keras.none", "numpy.none", "hetmorph", "voxel") if finder.find_spec(name)])
import voxelmorph, neurite
print(voxelmorph is hetmorph.voxelmorph.original.vxm, neurite.__version__, "torch" in sys.modules)
import matplotlib
print(matplotlib.rcParams._get_backend_or_none())
"""


@pytest.mark.slow
def test_nothing_else_in_the_program_changes():
    """And it works after `import voxelmorph` failed, selects no plotting backend and imports no torch."""
    lines = run(SNAPSHOT, MPLBACKEND="").splitlines()
    assert lines[0] == "failed"
    assert lines[1] == "changed []"
    assert lines[2] == "found []"
    assert lines[3] == "True 0.2 False"
    assert lines[4] == "None"


WITHOUT = """
import sys
import hetmorph.transforms, hetmorph.steps, hetmorph.training, hetmorph.objectives, hetmorph.losses, hetmorph.data
import hetmorph.io, hetmorph.layers, hetmorph.networks, hetmorph.evaluation, hetmorph.uncertainty, hetmorph.serving
import keras, numpy as np
from hetmorph.networks import HetVxmDense, MultiPass, Registration, TransMorph, VxmDense, velocity_network

shape, small, pair = (16, 16), [[4, 4], [4, 4, 4]], np.random.default_rng(0).uniform(size=(2, 1, 16, 16, 1))
step = hetmorph.steps.VelocityStep(velocity_network(shape, nb_unet_features=small))
transmorph = TransMorph(shape, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=(2, 2))
vxm = VxmDense(shape, small, bidir=True, use_probs=True)
for model in (vxm, MultiPass(HetVxmDense(shape, small), 2), transmorph, Registration(step, shape)):
    model.save(sys.argv[1] + "/model.keras")
    keras.saving.load_model(sys.argv[1] + "/model.keras").register(*pair)
vxm.save(sys.argv[1] + "/model.h5")
VxmDense.load(sys.argv[1] + "/model.h5")
print(sorted({name.split(".")[0] for name in sys.modules} & {"voxelmorph", "neurite"}))
"""


@pytest.mark.slow  # that no line asks for it is tested in test_floors.py
def test_the_core_never_imports_voxelmorph(tmp_path):
    """Parts are imported, models built, saved, loaded and applied in a fresh process."""
    assert fresh.output_of(WITHOUT, tmp_path).splitlines()[-1] == "[]"


@pytest.mark.slow
def test_neurite_imports_after_hetmorph_though_nothing_imported_keras_before():
    assert run("import hetmorph, neurite; print(neurite.layers.Resize.__name__)") == "Resize\n"


def test_threads_that_import_at_once_get_one_package():
    code = """
    import importlib, sys, threading, hetmorph, keras
    asked = ["voxelmorph", "hetmorph.voxelmorph.layers", "neurite", "hetmorph.voxelmorph.networks"] * 2
    errors, started = [], threading.Barrier(len(asked))
    def ask(name):
        started.wait()
        try:
            importlib.import_module(name)
        except BaseException as error:
            errors.append(repr(error))
    threads = [threading.Thread(target=ask, args=(name,)) for name in asked]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    import neurite, voxelmorph
    from hetmorph import layers
    print(errors, issubclass(layers.SpatialTransformer, voxelmorph.layers.SpatialTransformer),
          issubclass(layers.MeanStream, neurite.layers.MeanStream), layers.Negate.__mro__[1] is neurite.layers.Negate)
    """
    assert fresh.output_of(textwrap.dedent(code)).split() == ["[]", "True", "True", "True"]


def test_a_pickle_finds_its_classes_in_another_process(tmp_path):
    classes = [original.vxm.layers.VecInt, hetmorph.layers.VecInt, hetmorph.layers.MeanStream, original.ne.models.unet]
    (tmp_path / "classes.pickle").write_bytes(pickle.dumps(classes))
    code = """
    import pickle, sys, hetmorph
    from pathlib import Path
    original, own, stream, unet = pickle.loads(Path(sys.argv[1]).read_bytes())
    print(issubclass(own, original), stream is hetmorph.layers.MeanStream, unet.__module__)
    """
    printed = fresh.output_of(textwrap.dedent(code), tmp_path / "classes.pickle")
    assert printed.split() == ["True", "True", "neurite.tf.models"]


# Runs original.py by itself: none of these needs more of hetmorph.
ALONE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("alone", {str(ROOT / "hetmorph" / "voxelmorph" / "original.py")!r})
alone = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
try:
    alone.vxm
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
    """What it has works for it alone: a second copy beside it would be found by no pickle."""
    code = """
    import sys, types
    own = sys.modules["voxelmorph"] = types.ModuleType("voxelmorph")
    import hetmorph, keras
    hetmorph.networks.VxmDense((16, 16))
    try:
        hetmorph.layers.MeanStream
    except ImportError as error:
        print(error)
    print(sys.modules["voxelmorph"] is own)
    """
    message, kept = fresh.output_of(textwrap.dedent(code)).splitlines()
    assert "voxelmorph was imported before hetmorph" in message
    assert kept == "True"
