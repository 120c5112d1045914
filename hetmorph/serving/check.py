"""Does an export, or a server, do what a client will expect of it?"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from hetmorph.evaluation import wrap
from hetmorph.evaluation.predictor import NAMES, Prediction, SavedModelPredictor, unmentioned
from hetmorph.serving.client import Client, ServingError, is_endpoint
from hetmorph.serving.deploy import labels_in
from hetmorph.serving.warmup import FILE, LIMIT, meta_graph, read_warmup
from hetmorph.stored import savedmodel_folder, version_folders

TOLERANCE = 1e-3  # voxels, and as much of the other outputs: servers may use other kernels
_SIZE = 32


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        passed: None where there was nothing to look at.
        detail: what was found, in one line.
    """

    name: str
    passed: bool | None
    detail: str

    def __str__(self):
        return f"{ {True: 'ok  ', False: 'FAIL', None: '-   '}[self.passed] } {self.name}: {self.detail}"


class _Nothing(Exception):
    """There is nothing to check; the message says why."""


def check(target: str | os.PathLike, model=None, size: tuple[int, ...] | None = None) -> list[Check]:
    """Look at a SavedModel, or at a running server, as a client would meet it.

    A folder is loaded as TensorFlow Serving does it (session and C++ loader, not Keras): signatures, operations,
    numbers, warm-up requests, `models.config`. A server is asked for its state, registers a pair, and gets requests
    that it has to refuse and to survive.

    Args:
        target: an endpoint, see `Client`; or a folder, of one version or of all (the largest is taken).
        model: what to compare the numbers with, as `evaluation.wrap` takes it: a live model, a path …
        size: voxels of the random pair along each axis; None takes 32, or what the model was built for.

    Returns:
        Every check, in order; all passed if none has `passed` False.

    Raises:
        ValueError, FileNotFoundError: `target` is neither, or `model` is none.

    Example:
        >>> for result in check("grpc://localhost:8500/heart", "saved_models/heart"):
        ...     print(result)
    """
    model = None if model is None else wrap(model)
    if is_endpoint(target):
        with Client(target, timeout=120) as client:
            return _server(client, model, size)
    folder = savedmodel_folder(target)
    return _folder(folder, model, size)


def _folder(folder: Path, model, size) -> list[Check]:
    opened = _attempt("loads in a session", lambda: _Session(folder))
    if not opened.passed:
        return [opened.result]
    session = opened.value
    return [
        opened.result,
        _attempt("version folder", lambda: _version(folder)).result,
        _attempt("stock operations", lambda: _operations(folder)).result,
        *_requests(session, model or SavedModelPredictor(folder), size),
        _attempt("warm-up", lambda: _warmup(folder, session)).result,
        _attempt("models.config", lambda: _configuration(folder)).result,
    ]


def _server(client: Client, model, size) -> list[Check]:
    state = _attempt("available", lambda: _available(client))
    if not state.passed:
        return [state.result]
    opened = _attempt("signatures", lambda: _Remote(client))
    if not opened.passed:
        return [state.result, opened.result]
    answers = _requests(opened.value, model, size)
    again = _attempt("available afterwards", lambda: _available(client))
    return [state.result, opened.result, *answers, again.result]


def _requests(runner, model, size) -> list[Check]:
    """Good and bad requests, to whatever runs signatures."""
    size = runner.size if size is None else tuple(size)
    moving, fixed = np.random.default_rng(0).random((2, 1, *size, 1), np.float32)
    nan, small = fixed.copy(), fixed[:, : size[0] // 2]
    nan[0, ..., 0].flat[0] = np.nan
    registered = _attempt("registers a pair", lambda: _registered(runner, moving, fixed))
    refusals = {
        "refuses NaN": {"moving": moving, "fixed": nan},
        "refuses images of different sizes": {"moving": moving, "fixed": small},
        "refuses an image without batch and channel": {"moving": moving[0, ..., 0], "fixed": fixed[0, ..., 0]},
    }
    return [
        registered.result,
        _attempt("equals the local model", lambda: _equal(registered.value, model, moving, fixed)).result,
        *(_attempt(name, lambda inputs=inputs: _refused(runner, inputs)).result for name, inputs in refusals.items()),
    ]


class _Session:
    """A SavedModel in a TensorFlow 1 session, which is what TensorFlow Serving runs."""

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        # Deprecated in Python, whose other loader is not the one that a server has.
        with self._session.graph.as_default(), unmentioned("deprecated"):
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        self._signatures = loaded.signature_def
        if "register" not in self._signatures:
            raise ValueError(f"no signature 'register', found {sorted(self._signatures)}")
        wrong = [n for n in NAMES[:2] if n not in self._signatures["register"].outputs]
        if wrong:
            raise ValueError(f"signature 'register' has no output {', '.join(wrong)}")
        dims = self._signatures["register"].inputs["moving"].tensor_shape.dim
        self.size = tuple(dim.size if dim.size > 0 else _SIZE for dim in dims)[1:-1]

    def __str__(self):
        return ", ".join(sorted(name for name in self._signatures if not name.startswith("__")))

    def run(self, inputs: dict, signature: str) -> dict[str, np.ndarray]:
        definition = self._signatures[signature]
        feed = {definition.inputs[name].name: value for name, value in inputs.items()}
        return self._session.run({name: info.name for name, info in definition.outputs.items()}, feed)

    refusals = (tf.errors.InvalidArgumentError, ValueError)


class _Remote:
    """A server; requests reach it unchecked."""

    refusals = (ServingError,)

    def __init__(self, client: Client):
        self._client, signatures = client, client.signatures()
        if "register" not in signatures:
            raise ValueError(f"no signature 'register', found {sorted(signatures)}")
        shape = signatures["register"].inputs["moving"].shape[1:-1]
        self.size = tuple(_SIZE if n is None else n for n in shape)
        self._names = sorted(signatures)

    def __str__(self):
        return ", ".join(self._names)

    def run(self, inputs: dict, signature: str) -> dict[str, np.ndarray]:
        return self._client._send(inputs, signature)


def _registered(runner, moving, fixed):
    start = time.perf_counter()
    outputs = runner.run({"moving": moving, "fixed": fixed}, "register")
    seconds = time.perf_counter() - start
    displacement, size = outputs["displacement"], moving.shape[1:-1]
    if displacement.shape != (1, *size, len(size)):
        raise ValueError(f"displacement has shape {displacement.shape} for images of {moving.shape}")
    if not all(np.isfinite(value).all() for value in outputs.values()):
        raise ValueError("an output holds NaN or infinity")
    longest = np.linalg.norm(displacement, axis=-1).max()
    prediction = Prediction(displacement[0], outputs["moved"][0, ..., 0])
    return _Answer(prediction, f"{list(size)} voxels in {1e3 * seconds:.0f} ms, moves up to {longest:.3g} voxels")


class _Answer:
    def __init__(self, prediction: Prediction, text: str):
        self.prediction, self._text = prediction, text

    def __str__(self):
        return self._text


def _equal(answer, model, moving, fixed) -> str:
    if model is None:
        raise _Nothing("no local model given")
    if answer is None:
        raise _Nothing("no answer to compare")
    expected = model(moving[0, ..., 0], fixed[0, ..., 0])
    differences = {n: np.abs(getattr(answer.prediction, n) - getattr(expected, n)).max() for n in NAMES[:2]}
    text = ", ".join(f"{name} differs by at most {value:.1e}" for name, value in differences.items())
    if max(differences.values()) > TOLERANCE:
        raise ValueError(f"{text}; allowed is {TOLERANCE}")
    return text


def _refused(runner, inputs) -> str:
    try:
        runner.run(inputs, "register")
    except runner.refusals as error:
        if isinstance(error, ServingError) and error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            raise
        return f"says {_first_line(getattr(error, 'reason', error))!r}"
    raise ValueError("the request was answered")


def _available(client: Client) -> str:
    states = client.status()
    if "AVAILABLE" not in states.values():
        raise ValueError(f"no version is available: {states}")
    return ", ".join(f"version {version} {state}" for version, state in sorted(states.items()))


def _version(folder: Path) -> str:
    name = folder.resolve().name
    if not name.isdecimal():
        raise ValueError(f"expected an integer, found {name!r}: a server loads no other folders")
    return name


def _operations(folder: Path) -> str:
    graph = meta_graph(folder).graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    own = {function.signature.name for function in graph.library.function}
    types = {node.op for node in nodes} - own
    foreign = sorted(op for op in types if op_def_registry.get(op) is None or "PyFunc" in op)
    if foreign:
        raise ValueError(f"a stock server does not have {', '.join(foreign)}")
    if any(node.attr["_XlaMustCompile"].b for node in nodes if "_XlaMustCompile" in node.attr):
        raise ValueError("a part must be compiled by XLA, which a stock server does not do")
    return f"{len(types)} types, all TensorFlow's own"


def _warmup(folder: Path, session: _Session) -> str:
    if not (folder / FILE).exists():
        raise _Nothing("no warm-up requests: the first real request will be slow")
    requests = read_warmup(folder)
    if not 0 < len(requests) <= LIMIT:
        raise ValueError(f"{len(requests)} requests, allowed are 1 to {LIMIT}")
    for request in requests:
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        session.run(inputs, request.model_spec.signature_name)
    return f"{len(requests)} requests replayed"


def _configuration(folder: Path) -> str:
    config = folder.resolve().parent / "models.config"
    if not config.exists():
        raise _Nothing("there is none: a server started on the folder takes the largest version")
    labels, present = labels_in(config), list(version_folders(config.parent))
    missing = {label: version for label, version in labels.items() if version not in present}
    if missing or not labels:
        raise ValueError(f"labels {labels} do not fit the versions {present}")
    served = "" if int(folder.resolve().name) in labels.values() else "; this version is not among them"
    return ", ".join(f"{label} is version {version}" for label, version in labels.items()) + served


@dataclass(frozen=True)
class _Attempt:
    result: Check
    value: object = None

    @property
    def passed(self) -> bool | None:
        return self.result.passed


def _attempt(name: str, look: Callable) -> _Attempt:
    """The outcome of one check, whatever it raises: a check of a stranger's files must not end the others."""
    try:
        value = look()
    except _Nothing as nothing:
        return _Attempt(Check(name, None, str(nothing)))
    except Exception as error:  # noqa: BLE001
        return _Attempt(Check(name, False, _first_line(error)))
    return _Attempt(Check(name, True, str(value)), value)


def _first_line(error: BaseException | str) -> str:
    text = str(error).removeprefix("Graph execution error:")  # TensorFlow's headline; the reason is below it
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
