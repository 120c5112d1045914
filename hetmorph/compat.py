"""The original voxelmorph 0.2 and neurite 0.2, importable under Keras 3.

Both packages were written for Keras 2 and fail on import, or later, because names and behaviours they rely
on are gone. Nothing outside them is changed to help: while one of their modules is loaded, its source is
rewritten by the rules below, each of which says what broke. The files on disk stay as they were installed, no
byte code is cached, and `keras`, `tensorflow`, `numpy` and `inspect` are never touched, so that every other
Keras code in the program behaves as if hetmorph had not been imported.

This is the only file of the library that imports the two packages:

>>> from hetmorph.compat import ne, vxm
>>> vxm.__version__, ne.__version__
('0.2', '0.2')
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import itertools
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ne", "vxm"]

PACKAGES = ("neurite", "voxelmorph")
FIX = 'pip install "voxelmorph==0.2" "neurite==0.2"'

# -----------------------------------------------------------------------------------------------------------
# What the rewritten modules call instead. It reaches them as the module global `_k3`.
# -----------------------------------------------------------------------------------------------------------


def shape_of(tensor):
    """Static shape of a tensor. Keras 3 symbolic tensors have no `get_shape()`."""
    return tensor.shape


def as_list(shape) -> list:
    """A shape as a list. Keras 3 shapes are plain tuples, which have no `as_list()`."""
    return shape.as_list() if hasattr(shape, "as_list") else list(shape)


def argspec(function: Callable) -> tuple:
    """`(args, varargs, varkw, defaults)`; `inspect.getargspec` left Python in 3.11."""
    return tuple(inspect.getfullargspec(function))[:4]


def image_data(image):
    """The voxels of a nibabel image in their own type; nibabel 5 removed `get_data()`."""
    import numpy as np

    return np.asanyarray(image.dataobj)


def is_integer(dtype) -> bool:
    """Whether a type is integral. The dtype of a Keras 3 symbolic tensor is a string."""
    import tensorflow as tf

    return tf.as_dtype(dtype).is_integer


def single(ends):
    """The element of a list of one; anything else as it is."""
    return ends[0] if isinstance(ends, (list, tuple)) and len(ends) == 1 else ends


def python_ints(sizes) -> list:
    """Sizes as Python integers or None."""
    return [None if size is None else int(size) for size in sizes]


def is_file(path) -> bool:
    """Whether `path` is the path of a file; False for what is no path."""
    return isinstance(path, (str, os.PathLike)) and os.path.isfile(path)


def keras_losses(*names: str) -> tuple[Callable, ...]:
    """Losses of `keras.losses` by name. Importing from that module would replace `keras.losses` in some versions."""
    import keras

    return tuple(getattr(keras.losses, name) for name in names)


def learning_phase() -> bool:
    """Keras 3 passes `training` down by itself; where nobody said anything, it is inference."""
    return False


_SHIMS = types.SimpleNamespace(
    shape_of=shape_of,
    as_list=as_list,
    argspec=argspec,
    image_data=image_data,
    is_integer=is_integer,
    keras_losses=keras_losses,
    is_file=is_file,
    single=single,
    python_ints=python_ints,
    learning_phase=learning_phase,
)


# -----------------------------------------------------------------------------------------------------------
# The rules. Each takes a node and returns its replacement, or None where it does not apply.
# -----------------------------------------------------------------------------------------------------------


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of names and attributes, or the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _helper(name: str, *args: ast.expr) -> ast.Call:
    function = ast.Attribute(ast.Name("_k3", ast.Load()), name, ast.Load())
    return ast.Call(function, list(args), [])


def _is_method_call(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        and not node.args
        and not node.keywords
    )


def get_shape(node):
    """`x.get_shape()`: KerasTensor lost the method."""
    return _helper("shape_of", node.func.value) if _is_method_call(node, "get_shape") else None


def shape_as_list(node):
    """`shape.as_list()`: the shape of a KerasTensor is a tuple."""
    return _helper("as_list", node.func.value) if _is_method_call(node, "as_list") else None


def nibabel_get_data(node):
    """`image.get_data()`: raises since nibabel 5."""
    return _helper("image_data", node.func.value) if _is_method_call(node, "get_data") else None


def getargspec(node):
    """`inspect.getargspec`: gone in Python 3.11."""
    return _helper("argspec", *node.args) if _called(node) == "inspect.getargspec" else None


def learning_phase_call(node):
    """`K.learning_phase()`: gone in Keras 3."""
    return _helper("learning_phase") if _called(node) == "K.learning_phase" else None


def numpy_inf(node):
    """`np.Inf`: gone in numpy 2."""
    return ast.Attribute(node.value, "inf", ast.Load()) if _dotted(node) == "np.Inf" else None


def compute_dtype(node):
    """`self._compute_dtype`: Keras 3 layers have the public `compute_dtype` only."""
    return ast.Attribute(node.value, "compute_dtype", ast.Load()) if _dotted(node) == "self._compute_dtype" else None


def dtype_is_integer(node):
    """`x.dtype.is_integer`: the dtype of a KerasTensor is a string."""
    if isinstance(node, ast.Attribute) and node.attr == "is_integer" and isinstance(node.value, ast.Attribute):
        return _helper("is_integer", node.value) if node.value.attr == "dtype" else None
    return None


def optimizer_lr(node):
    """`optimizer.lr`: Keras 3 optimisers have `learning_rate` only."""
    if isinstance(node, ast.Attribute) and node.attr == "lr" and _dotted(node.value).endswith(".optimizer"):
        return ast.Attribute(node.value, "learning_rate", ast.Load())
    return None


def scipy_ndimage(node):
    """`scipy.ndimage.interpolation.zoom` and `.morphology.…`: the inner modules are gone from scipy."""
    if isinstance(node, ast.Attribute) and _dotted(node.value) in (
        "scipy.ndimage.interpolation",
        "scipy.ndimage.morphology",
    ):
        return ast.Attribute(node.value.value, node.attr, ast.Load())
    return None


def is_file_of_array(node):
    """`os.path.isfile(filename)`: raises for an array, so that volumes in memory never were accepted."""
    return _helper("is_file", *node.args) if _called(node) == "os.path.isfile" else None


def model_ends(node):
    """`model.output`: Keras 3 gives a list of one where the model was built with a list of one."""
    if isinstance(node, ast.Attribute) and node.attr in ("input", "output") and isinstance(node.ctx, ast.Load):
        return _helper("single", node)
    return None


def dropout_noise_shape(node):
    """`Dropout(noise_shape=[…])` with numpy integers: Keras 3 takes Python integers only."""
    if isinstance(node, ast.keyword) and node.arg == "noise_shape":
        return ast.keyword(node.arg, _helper("python_ints", node.value))
    return None


def missing_dot(node):
    """`tf.kerasregularizers`, `tf.kerasmodels`: misspelt, and so never worked."""
    if _dotted(node) in ("tf.kerasregularizers", "tf.kerasmodels"):
        keras = ast.Attribute(node.value, "keras", ast.Load())
        return ast.Attribute(keras, node.attr.removeprefix("keras"), ast.Load())
    return None


def dense_units(node):
    """`Dense(np.prod(shape))`: Keras 3 takes Python integers only."""
    if isinstance(node, ast.Call) and _called(node).endswith(".Dense") and node.args:
        units = node.args[0]
        if _called(units) == "np.prod":
            whole = ast.Call(ast.Name("int", ast.Load()), [units], [])
            return ast.Call(node.func, [whole, *node.args[1:]], node.keywords)
    return None


def softmax_lambda(node):
    """`KL.Lambda(softmax_lambda_fcn)`: Keras 3 saves a Lambda but refuses to load it."""
    if _called(node) == "KL.Lambda" and _dotted(node.args[0]) == "softmax_lambda_fcn":
        return ast.Call(ast.Attribute(node.func.value, "Softmax", ast.Load()), [], node.keywords)
    return None


def identity_lambda(node):
    """`KL.Lambda(lambda x: x)`: as above."""
    if _called(node) != "KL.Lambda" or not isinstance(node.args[0], ast.Lambda):
        return None
    function = node.args[0]
    if isinstance(function.body, ast.Name) and function.body.id == function.args.args[0].arg:
        activation = ast.Attribute(node.func.value, "Activation", ast.Load())
        return ast.Call(activation, [ast.Constant("linear")], node.keywords)
    return None


def super_of_own_class(node):
    """`super(self.__class__, self)`: recurses for ever as soon as the class is subclassed."""
    if _called(node) == "super" and len(node.args) == 2 and _dotted(node.args[0]) == "self.__class__":
        return ast.Call(ast.Name("super", ast.Load()), [], [])
    return None


def backend_choice(node):
    """`py.utils.get_backend()`: an environment variable would otherwise make the packages import torch."""
    return ast.Constant("tensorflow") if _called(node).endswith("py.utils.get_backend") else None


def keras_losses_import(node):
    """`from tensorflow.keras.losses import mean_…_error`: that module no longer has them; `keras.losses` does."""
    if isinstance(node, ast.ImportFrom) and node.module == "tensorflow.keras.losses":
        targets = [ast.Name(alias.asname or alias.name, ast.Store()) for alias in node.names]
        losses = _helper("keras_losses", *(ast.Constant(alias.name) for alias in node.names))
        return ast.Assign([ast.List(targets, ast.Store())], losses)
    return None


def _called(node: ast.AST) -> str:
    return _dotted(node.func) if isinstance(node, ast.Call) else ""


RULES: tuple[Callable, ...] = (
    get_shape,
    shape_as_list,
    nibabel_get_data,
    getargspec,
    learning_phase_call,
    numpy_inf,
    compute_dtype,
    dtype_is_integer,
    optimizer_lr,
    scipy_ndimage,
    is_file_of_array,
    model_ends,
    dropout_noise_shape,
    missing_dot,
    dense_units,
    softmax_lambda,
    identity_lambda,
    super_of_own_class,
    backend_choice,
    keras_losses_import,
)


class _Rewriter(ast.NodeTransformer):
    """Applies every rule to every node, innermost first, and remembers the replaced nodes."""

    def __init__(self):
        self.replaced: list[ast.AST] = []

    def visit(self, node: ast.AST) -> ast.AST:
        node = original = self.generic_visit(node)
        for rule in RULES:
            replacement = rule(node)
            if replacement is not None:
                node = ast.copy_location(replacement, original)
        if node is not original:
            self.replaced.append(node)
        return node


def rewrite(source: str) -> str:
    """`source` after all rules, with every other character, and every line number, where it was."""
    rewriter = _Rewriter()
    with _no_warnings():
        rewriter.visit(ast.parse(source))
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    starts = [0, *itertools.accumulate(len(line) for line in lines)]
    text = b"".join(lines)

    def span(node: ast.AST) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    # Last first, so that earlier positions stay valid; a replaced node inside another comes with the outer one.
    limit = len(text)
    for node in sorted(rewriter.replaced, key=lambda node: (-span(node)[1], span(node)[0])):
        start, end = span(node)
        if end <= limit:
            text = text[:start] + _code(node) + text[end:]
            limit = start
    return text.decode()


def _code(node: ast.AST) -> bytes:
    """Source of a replacement, over as many lines as what it replaces."""
    code = ast.unparse(ast.fix_missing_locations(node))
    further_lines = node.end_lineno - node.lineno
    return (f"({code}" + "\n" * further_lines + ")" if further_lines else code).encode()


@contextmanager
def _no_warnings() -> Iterator[None]:
    """The packages' docstrings hold invalid escapes, which is not the business of whoever imports hetmorph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# -----------------------------------------------------------------------------------------------------------
# Loading
# -----------------------------------------------------------------------------------------------------------


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its rewritten source; reads and writes no byte code."""

    def get_source(self, fullname: str) -> str:
        return rewrite(super().get_source(fullname))

    def get_code(self, fullname: str) -> types.CodeType:
        # A file name that does not exist makes `inspect` ask this loader for the source, and so does TensorFlow's
        # AutoGraph, which compiles functions anew from what `inspect` returns.
        with _no_warnings():
            return compile(self.get_source(fullname), f"{self.path}@hetmorph", "exec", dont_inherit=True)

    def exec_module(self, module: types.ModuleType) -> None:
        module._k3 = _SHIMS
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds neurite and voxelmorph, their submodules, and nothing else."""

    def find_spec(self, fullname, path=None, target=None):
        if not _ours(fullname):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def _ours(module_name: str) -> bool:
    return module_name.partition(".")[0] in PACKAGES


@contextmanager
def _finder() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _set_aside() -> dict[str, types.ModuleType]:
    """Takes the packages' modules out of `sys.modules`; an import that failed leaves some of them behind."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _ours(name)}


def _load() -> tuple[types.ModuleType, types.ModuleType]:
    """Imports the packages rewritten. A program that got one of them to import by itself keeps its own."""
    _check_environment()
    earlier = _set_aside()
    try:
        with _finder():
            loaded = tuple(importlib.import_module(name) for name in PACKAGES)
    except BaseException:
        _set_aside()
        raise
    for package in PACKAGES:
        if package in earlier:
            own = {name: module for name, module in earlier.items() if name.partition(".")[0] == package}
            sys.modules.update(own)
    return loaded


# -----------------------------------------------------------------------------------------------------------
# Refusals
# -----------------------------------------------------------------------------------------------------------


def _installed_version(package: str) -> str | None:
    """Version of an installed package, found without importing it; None where there is no such package."""
    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None:
        return None
    if spec.origin and os.path.isfile(spec.origin):
        with open(spec.origin, encoding="utf-8") as file:
            stated = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", file.read(), re.MULTILINE)
        if stated:
            return stated.group(1)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _check_environment() -> None:
    for package in PACKAGES:
        _check_package(package, _installed_version(package))
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise ImportError(
            "hetmorph needs Keras 3, but TF_USE_LEGACY_KERAS asks TensorFlow for Keras 2. "
            "Unset the variable: unset TF_USE_LEGACY_KERAS"
        )
    _check_keras()


def _check_package(package: str, version: str | None) -> None:
    if version is None:
        raise ImportError(f"hetmorph needs {package} 0.2, which is not installed. Install it with: {FIX}")
    if not re.match(r"0\.2(\.|$|[a-z+])", version):
        raise ImportError(
            f"hetmorph builds on the TensorFlow line of voxelmorph, which ended with {package} 0.2, but found "
            f"{package} {version} (0.3 and later are PyTorch-only). Install both together with: {FIX}"
        )


def _check_keras() -> None:
    import keras

    version = str(keras.__version__)
    if int(version.split(".")[0]) < 3:
        raise ImportError(f'hetmorph needs Keras 3, but found {version}. Install it with: pip install "keras>=3"')
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"hetmorph runs Keras on TensorFlow, but the backend is {keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=tensorflow before Python starts."
        )


ne, vxm = _load()
