"""The scripts of training/, which are no package, as modules."""

import importlib.util
from pathlib import Path

TRAINING = Path(__file__).resolve().parent.parent / "training"


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, TRAINING / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
