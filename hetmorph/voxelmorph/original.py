"""The original voxelmorph 0.2 and neurite 0.2, importable under Keras 3.

Both packages were written for Keras 2 and fail on import, or later, because names and behaviours they rely
on are gone. Nothing outside them is changed to help: a finder that knows the two names alone rewrites the source of
their modules while these are loaded, by the rules below, each of which says what broke. The files on disk stay as they
were installed, no byte code is cached, and `keras`, `tensorflow`, `numpy` and `inspect` are never touched, so that
every other Keras code in the program behaves as if hetmorph had not been imported.

This room is the only one of the library that imports the two packages:

>>> from hetmorph.voxelmorph.original import ne, vxm
>>> vxm.__version__, ne.__version__
('0.2', '0.2')
"""

import importlib
import os
import re
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

__all__ = ["ne", "vxm"]

ne: ModuleType  # both are imported when they are first asked for, see `__getattr__`
vxm: ModuleType

PACKAGES = {"ne": "neurite", "vxm": "voxelmorph"}
FIX = 'pip install "voxelmorph==0.2" "neurite==0.2"'

# -----------------------------------------------------------------------------------------------------------
# The rules: what, the source that fails as a regular expression, what takes its place
# -----------------------------------------------------------------------------------------------------------

# A name with its attributes, subscripts and calls, as in `model.layers[-2].output`.
_VALUE = r"(?<![\w.])(\w+(?:\.\w+|\[[^\[\]]*\]|\([^()]*\))*)"

RULES = (
    # KerasTensor lost the method.
    ("get_shape", r"\.get_shape\(\)", ".shape"),
    # The shape of a KerasTensor is a tuple.
    ("shape_as_list", _VALUE + r"\.as_list\(\)", r"list(\1)"),
    # Raises since nibabel 5.
    ("nibabel_get_data", r"\.get_data\(\)", ".dataobj[...]"),
    # Gone in Python 3.11.
    ("getargspec", r"inspect\.getargspec\((\w+)\)", r"inspect.getfullargspec(\1)[:4]"),
    # Gone in Keras 3, which passes `training` down by itself; where nobody said anything, it is inference.
    ("learning_phase", r"K\.learning_phase\(\)", "False"),
    # Gone in numpy 2.
    ("numpy_inf", r"np\.Inf\b", "np.inf"),
    # Keras 3 layers have the public name only.
    ("compute_dtype", r"self\._compute_dtype\b", "self.compute_dtype"),
    # The dtype of a KerasTensor is a string.
    ("dtype_is_integer", r"(\w+\.dtype)\.is_integer\b", r"tf.as_dtype(\1).is_integer"),
    # Keras 3 optimisers have the long name only.
    ("optimizer_lr", r"\.optimizer\.lr\b", ".optimizer.learning_rate"),
    # The inner modules are gone from scipy.
    ("scipy_ndimage", r"scipy\.ndimage\.(?:interpolation|morphology)\.", "scipy.ndimage."),
    # Raises for an array, so that volumes in memory never were accepted.
    ("is_file_of_array", r"not os\.path\.isfile\((\w+)\):", r"not (isinstance(\1, str) and os.path.isfile(\1)):"),
    # Keras 3 gives a list of one where the model was built with a list of one.
    ("model_ends", _VALUE + r"\.((?:in|out)put)\b(?! *=[^=])", r"_single(\1.\2)"),
    # Keras 3 takes Python integers only.
    ("dropout_noise_shape", r"noise_shape=noise_shape\b", "noise_shape=[n and int(n) for n in noise_shape]"),
    ("dense_units", r"Dense\((np\.prod\(\w+\))", r"Dense(int(\1)"),
    # A dot is missing: these never worked.
    ("missing_dot", r"tf\.keras(regularizers|models)\b", r"tf.keras.\1"),
    # Keras 3 saves a Lambda but refuses to load it.
    ("softmax_lambda", r"KL\.Lambda\(softmax_lambda_fcn, ", "KL.Softmax("),
    ("identity_lambda", r"KL\.Lambda\(lambda x: x, ", "KL.Activation('linear', "),
    # Recurses for ever as soon as the class is subclassed.
    ("super_of_own_class", r"super\(self\.__class__, self\)", "super()"),
    # An environment variable would otherwise make the packages import torch.
    ("backend_choice", r"py\.utils\.get_backend\(\)", "'tensorflow'"),
    # That module no longer has them; importing from it would replace `keras.losses` in some versions.
    (
        "keras_losses_import",
        r"from tensorflow\.keras\.losses import (mean_\w+_error) as (\w+)",
        r"import keras; \2 = keras.losses.\1",
    ),
)


def rewrite(source: str) -> str:
    """`source` after all rules, every line where it was."""
    for _, pattern, replacement in RULES:
        source = re.sub(pattern, replacement, source)
    return source


def _single(ends):
    """The element of a list of one; anything else as it is. The rewritten modules call it."""
    return ends[0] if isinstance(ends, (list, tuple)) and len(ends) == 1 else ends


# -----------------------------------------------------------------------------------------------------------
# Loading
# -----------------------------------------------------------------------------------------------------------


class _Loader(SourceFileLoader):
    """Loads a module from its rewritten source; reads and writes no byte code."""

    def get_source(self, fullname: str) -> str:
        return rewrite(super().get_source(fullname))

    def get_code(self, fullname: str) -> CodeType:
        # A file name that does not exist makes `inspect` ask this loader for the source, and so does TensorFlow's
        # AutoGraph, which compiles functions anew from what `inspect` returns.
        with warnings.catch_warnings():  # of invalid escapes in docstrings, which is nobody's business here
            warnings.simplefilter("ignore")
            return compile(self.get_source(fullname), f"{self.path}@hetmorph", "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        package, _, part = module.__name__.partition(".")
        if not part:
            _drop_leftovers(package)
        module._single = _single
        super().exec_module(module)
        if part == "tf.layers":
            _complete_layers(module)
        elif module.__name__ == "neurite.tf.models":
            _replace_synthesis(module)


class _Finder(MetaPathFinder):
    """Finds neurite and voxelmorph, where they are what the rules are for, their submodules, and nothing else."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package not in PACKAGES.values() or _obstacle(package):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder())


def __getattr__(name: str) -> ModuleType:
    """`ne` and `vxm`, imported when they are first asked for."""
    if name not in PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for obstacle in map(_obstacle, PACKAGES.values()):
        if obstacle:
            raise ImportError(obstacle)
    importlib.import_module("hetmorph.backend")
    return importlib.import_module(PACKAGES[name])


def _is_rewritten(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), _Loader)


def _drop_leftovers(package: str) -> None:
    """Forget the modules that are left of an import without hetmorph, which failed."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and not _is_rewritten(module):
            del sys.modules[name]


def _complete_layers(module: ModuleType) -> None:
    """Make the originals the bases of hetmorph's layers of the same name, and let Keras find neurite's in files.

    The core's layers need nothing of the originals, but are instances of them for code that asks.
    """
    import keras

    from hetmorph import layers

    for name, original in list(vars(module).items()):
        if not (isinstance(original, type) and original.__module__ == module.__name__) or name.startswith("_"):
            continue
        own = vars(layers).get(name)
        if own is not None and not issubclass(own, original):
            own.__bases__ = (original,)
        if module.__name__ == "neurite.tf.layers" and issubclass(original, keras.layers.Layer):
            keras.saving.register_keras_serializable("neurite")(original)


def _replace_synthesis(module: ModuleType) -> None:
    """Code that does `import neurite as ne` gets the two that work; no small rule repairs neurite's own."""
    del module.labels_to_image, module.SynthStrip

    def __getattr__(name: str):
        if name in ("labels_to_image", "SynthStrip"):
            return getattr(importlib.import_module("hetmorph.voxelmorph.networks"), name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = __getattr__


# -----------------------------------------------------------------------------------------------------------
# Refusals
# -----------------------------------------------------------------------------------------------------------


def _obstacle(package: str) -> str | None:
    """Why the rules do not fit a package as it is installed, or None."""
    if package in sys.modules:
        if _is_rewritten(sys.modules[package]):
            return None
        return f"{package} was imported before hetmorph, which has to be there to make it work under Keras 3"
    version = _installed_version(package)
    if version is None:
        return f"hetmorph needs {package} 0.2, which is not installed. Install it with: {FIX}"
    if not re.match(r"0\.2(\.|$|[a-z+])", version):
        return (
            f"hetmorph builds on the TensorFlow line of voxelmorph, which ended with {package} 0.2, but found "
            f"{package} {version} (0.3 and later are PyTorch-only). Install both together with: {FIX}"
        )
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        return (
            "hetmorph needs Keras 3, but TF_USE_LEGACY_KERAS asks TensorFlow for Keras 2. "
            "Unset the variable: unset TF_USE_LEGACY_KERAS"
        )
    return None


def _installed_version(package: str) -> str | None:
    """Version of an installed package, found without importing it; None where there is no such package."""
    spec = PathFinder.find_spec(package)
    if spec is None:
        return None
    source = Path(spec.origin).read_text(encoding="utf-8") if spec.origin else ""
    stated = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", source, re.MULTILINE)
    return stated.group(1) if stated else "of another version"
