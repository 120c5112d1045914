"""`import hetmorph` is light, and Keras finds the classes of a saved model all the same."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS

import hetmorph
from tests import fresh
from tests.networks.models import FEATURES

ROOT = Path(__file__).resolve().parent.parent


def python(code, *words):
    """What Python code prints in a fresh process, read as JSON; its warnings are errors."""
    if code.startswith("import keras, "):  # of a process that has done so
        code = f"import warnings; warnings.simplefilter('error', RuntimeWarning); {code}"
        return json.loads(fresh.output_of(code, *words).splitlines()[-1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


REGISTERED = """
import json, sys, keras
from keras.src.saving.object_registration import GLOBAL_CUSTOM_OBJECTS
restored = [type(keras.saving.load_model(path, compile=False)).__name__ for path in sys.argv[1:]]
names = sorted(name for name in GLOBAL_CUSTOM_OBJECTS if name.startswith(("hetmorph>", "neurite>")))
watching = [str(finder) for finder in sys.meta_path if type(finder).__module__ == "hetmorph.keras_classes"]
print(json.dumps([restored, names, watching, "exec_module" in vars(keras.__spec__.loader)]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One model in both kinds of file, and the names of all classes of the package that are registered."""
    folder, model = tmp_path_factory.mktemp("saved"), hetmorph.networks.VxmDense((16, 16), FEATURES)
    paths = [folder / "model.keras", folder / "model.h5"]
    for path in paths:
        model.save(path)
    for module in pkgutil.walk_packages(hetmorph.__path__, "hetmorph."):
        if not (module.name.endswith("__main__") or module.name.startswith("hetmorph.napari")):  # needs a viewer
            importlib.import_module(module.name)
    ours = {name: cls for name, cls in GLOBAL_CUSTOM_OBJECTS.items() if name.startswith(("hetmorph>", "neurite>"))}
    assert {name for name, cls in ours.items() if not isinstance(cls, type)} == set(), "registered by nobody"
    return paths, sorted(ours)


@pytest.mark.quick("import keras, hetmorph")
@pytest.mark.parametrize(
    "imports",
    [
        "import sys; sys.argv[0] = '/home/me/hetmorph.py'; import hetmorph, keras",
        "import keras, hetmorph",
        "import hetmorph; import tensorflow",  # which imports Keras before it is complete itself
        "from hetmorph.layers import VecInt",  # likewise
    ],
)
def test_keras_finds_the_classes_whoever_imports_it(saved, imports):
    paths, names = saved
    assert len(names) > 50
    assert python(imports + REGISTERED, *paths) == [["VxmDense", "VxmDense"], names, [], False]


def test_files_are_read_without_tensorflow():
    code = "import hetmorph, json, sys; from hetmorph.io import read_image; hetmorph.io.Grid; "
    assert python(code + "print(json.dumps([n for n in ('keras', 'tensorflow') if n in sys.modules]))") == []


def test_every_part_is_there_when_asked_for():
    assert {name for name in hetmorph.__all__ if not hasattr(hetmorph, name)} == set()
    assert set(hetmorph.__all__) <= set(dir(hetmorph))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(hetmorph, "nothing")  # noqa: B009
