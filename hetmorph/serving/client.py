"""A registration model on a server, as if it were here."""

import itertools
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hetmorph.data.normalise import minmax
from hetmorph.evaluation.predictor import NAMES, Prediction, Predictor
from hetmorph.io import matched_grid, read_image
from hetmorph.serving.transport import Endpoint, Failure, Grpc, Rest, Signature, Transport

_ADDRESS = re.compile(
    r"(?P<scheme>grpcs?|https?)://(?P<host>[^/\s]+)((?P<prefix>(/[^/\s]+)*?)/v1/models)?/(?P<model>[^/:\s]+)"
    r"(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:\s]+))?/?"
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class ServingError(RuntimeError):
    """A server refused a request, or did not answer; the message has its reason and what was sent.

    Attributes:
        code: name of a gRPC status, over REST too: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, DEADLINE_EXCEEDED …
        reason: the server's own words.

    Args:
        message: what to show.
        code, reason: kept as attributes.
    """

    def __init__(self, message: str, code: str, reason: str):
        super().__init__(message)
        self.code, self.reason = code, reason


def is_endpoint(text) -> bool:
    """Whether a text has the form of an address of `Client`, rather than of a path.

    Args:
        text: anything; what is no text is none.
    """
    return isinstance(text, str) and re.match(r"(grpcs?|https?)://", text) is not None


class Client:
    """Registers images with a model on a TensorFlow Serving. Threads may share one client.

    What can be known to fail is refused before it is sent: unknown names, wrong shapes and types, NaN, too many bytes.
    Where a server cannot be reached or is overloaded, the request is sent again, after pauses that double from 0.1 to
    2 s: a prediction changes nothing on the server.

    Args:
        endpoint: `grpc://host:8500/model` (gRPC) or `http://host:8501/model` (REST, five times the bytes), either with
            `/versions/2` or `/labels/stable` behind it; `grpcs` and `https` for a server with TLS. A server takes the
            largest version it has loaded where neither is named. REST behind a proxy: `https://host/prefix/v1/models/model`.
        timeout: seconds for a request, repetitions included.
        retries: repetitions of a request at most.
        max_bytes: bytes that a request may have (default: 1 GiB).
        certificate: file with the certificates to trust, PEM; None takes those of the system.
        rows: over REST, send `instances` rather than `inputs`, the form that servers other than TensorFlow's take.

    Raises:
        ValueError: an endpoint of another form.
        ImportError: grpcio and tensorflow-serving-api, or requests, are missing.

    Example:
        >>> with Client("grpc://localhost:8500/heart/labels/stable") as client:
        ...     result = client.register("moving.nii.gz", "fixed.nii.gz")
        >>> result.displacement.shape
        (128, 128, 2)
    """

    def __init__(
        self,
        endpoint: str,
        timeout: float = 60.0,
        retries: int = 20,
        max_bytes: int = 2**30,
        certificate: str | os.PathLike | None = None,
        rows: bool = False,
    ):
        if timeout <= 0 or retries < 0 or max_bytes < 1:
            raise ValueError(
                f"expected timeout > 0, retries >= 0 and max_bytes > 0, received {timeout}, {retries}, {max_bytes}"
            )
        self.endpoint = parse_endpoint(endpoint)
        self.timeout, self.retries, self.max_bytes = timeout, retries, max_bytes
        self._transport = _transport(self.endpoint, certificate, rows)
        self._signatures = None

    def register(self, moving, fixed) -> Prediction:
        """Register one pair.

        Args:
            moving: `[*S]`, intensities in [0, 1]; or the path of a NIfTI file, whose range is stretched to [0, 1].
            fixed: likewise. Two files must be of one grid.

        Returns:
            A `Prediction`: `displacement` `[*S, N]` in voxels on the grid of the fixed image, pulling from moving;
            `moved` `[*S]`; `log_variance` and `weight` where the model has them.

        Raises:
            ValueError: images that do not fit the model or each other, or hold NaN or infinity; nothing was sent.
            hetmorph.io.DataError: a file that cannot be read.
            ServingError: the server refused, or did not answer.
        """
        paths = [image for image in (moving, fixed) if isinstance(image, (str, Path))]
        if len(paths) == 2:
            _check_one_grid(*(read_image(path) for path in paths))
        return self.predictor()(_image(moving), _image(fixed))

    def predictor(self) -> "ServedPredictor":
        """The model as a predictor, for everything that evaluates one."""
        return ServedPredictor(self)

    def predict(self, inputs: Mapping[str, np.ndarray], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Run any signature of the model.

        Args:
            inputs: arrays by name, with batch and channel axes: `[B, *S, C]`.
            signature: one of `signatures()`.

        Returns:
            Arrays by name.

        Raises:
            ValueError, ServingError: as `register`.
        """
        inputs = {name: np.asarray(value) for name, value in inputs.items()}
        known = self._known_signatures()
        if known:
            inputs = _checked(inputs, signature, known)
        for name, value in inputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"{name} holds NaN or infinity; nothing was sent")
        return self._send(inputs, signature)

    def _send(self, inputs: dict[str, np.ndarray], signature: str) -> dict[str, np.ndarray]:
        """Send what `predict` would check first."""
        body, size = self._transport.encode(inputs, signature)
        sent = f"{signature}({', '.join(_described(name, value) for name, value in inputs.items())}), {size} bytes"
        if size > self.max_bytes:
            raise ValueError(f"the request is larger than max_bytes={self.max_bytes}, nothing was sent: {sent}")
        outputs = self._call(lambda seconds: self._transport.predict(body, seconds), sent)
        if set(outputs) == {""}:  # REST leaves the name of a single output out
            known = self._known_signatures().get(signature)
            outputs = {next(iter(known.outputs)) if known else signature: outputs[""]}
        return outputs

    def status(self) -> dict[int, str]:
        """{version: state}: AVAILABLE, LOADING, UNLOADING, END …, with the reason where a version did not load."""
        return self._call(self._transport.status, "status")

    def signatures(self) -> dict[str, Signature]:
        """The functions of the model, with types and shapes of their inputs and outputs."""
        return self._call(self._transport.signatures, "metadata")

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _known_signatures(self) -> dict[str, Signature]:
        """Those of the version that answered first; none of a server that does not tell."""
        if self._signatures is None:
            try:
                self._signatures = self.signatures()
            except ServingError as error:
                if error.code not in ("NOT_FOUND", "UNIMPLEMENTED"):
                    raise
                return {}  # an unknown model, too: its name is in the answer to the request itself
        return self._signatures

    def _call(self, request: Callable[[float], object], sent: str):
        """Send a request until it succeeds, cannot succeed, or its time is up."""
        end = time.monotonic() + self.timeout
        for attempt in itertools.count(1):
            try:
                return request(max(end - time.monotonic(), 0.001))
            except Failure as failure:
                pause = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1)
                if not failure.retry or attempt > self.retries or time.monotonic() + pause > end:
                    times = "" if attempt == 1 else f" after {attempt} attempts"
                    message = f"{self.endpoint}: {failure.code}{times}: {failure}\nsent: {sent}"
                    raise ServingError(message, failure.code, str(failure)) from failure
            time.sleep(pause)


class ServedPredictor(Predictor):
    """A served model as a predictor, for everything that evaluates one.

    Args:
        client: a `Client`, or an endpoint to make one for.

    Raises:
        ServingError: the server does not answer, or does not know the model.
        ValueError: a model without signature `register`.

    Example:
        >>> prediction = ServedPredictor("grpc://localhost:8500/heart")(moving, fixed)
    """

    compiles = False  # graphs are made when a version is loaded

    def __init__(self, client: Client | str):
        self.client = Client(client) if isinstance(client, str) else client
        signatures = self.client._known_signatures() or self.client.signatures()
        if "register" not in signatures:
            raise ValueError(f"{self.client.endpoint}: expected signature 'register', found {sorted(signatures)}")
        super().__init__(len(signatures["register"].inputs["moving"].shape) - 2)
        variance = signatures.get("variance", Signature({}, {})).outputs
        # One request where one will do: a second might meet another version.
        self._requests = ["variance"] if set(NAMES) <= set(variance) else ["register", *(["variance"] * bool(variance))]

    def _run(self, moving, fixed):
        inputs = {"moving": moving.numpy(), "fixed": fixed.numpy()}
        results = {}
        for signature in self._requests:
            results |= self.client.predict(inputs, signature)
        return {name: results[name] for name in NAMES if name in results}

    def _fields(self, moving, fixed):
        return self.client.predict({"moving": moving.numpy(), "fixed": fixed.numpy()}, "register")["displacement"]


def parse_endpoint(text: str) -> Endpoint:
    """The parts of an address; see `Client`. ValueError for another form."""
    found = _ADDRESS.fullmatch(text)
    if found is None or (found["prefix"] and found["scheme"].startswith("grpc")):
        raise ValueError(
            "expected grpc://host:port/model or http://host:port/model, with /versions/N or /labels/NAME behind it "
            f"or not, received {text!r}"
        )
    version = None if found["version"] is None else int(found["version"])
    return Endpoint(found["scheme"], found["host"], found["prefix"] or "", found["model"], version, found["label"])


def _transport(endpoint: Endpoint, certificate, rows: bool) -> Transport:
    if endpoint.scheme.startswith("http"):
        return Rest(endpoint, None if certificate is None else str(certificate), rows)
    return Grpc(endpoint, None if certificate is None else Path(certificate).read_bytes())


def _checked(inputs: dict, signature: str, known: dict[str, Signature]) -> dict[str, np.ndarray]:
    """The inputs in the types that the signature takes."""
    if signature not in known:
        raise ValueError(f"the model has no signature {signature!r}, only {sorted(known)}")
    expected = known[signature].inputs
    if set(inputs) != set(expected):
        raise ValueError(f"{signature} takes {sorted(expected)}, received {sorted(inputs)}")
    checked = {}
    for name, value in inputs.items():
        tensor = expected[name]
        sizes = zip(tensor.shape, value.shape, strict=False)
        fits = value.ndim == len(tensor.shape) and all(n in (None, size) for n, size in sizes)
        if not fits or value.dtype.kind != tensor.dtype.kind:
            raise ValueError(f"{signature}: {name} must be {tensor}, received {value.dtype} {list(value.shape)}")
        if 0 in value.shape:
            raise ValueError(f"{signature}: {name} holds no voxel, shape {list(value.shape)}")
        with np.errstate(over="ignore"):  # becomes infinity, which is refused
            checked[name] = value.astype(tensor.dtype, copy=False)
    return checked


def _described(name: str, value: np.ndarray) -> str:
    values = f" in {value.min():.4g} … {value.max():.4g}" if value.size and value.dtype.kind in "fiu" else ""
    return f"{name} {value.dtype} {list(value.shape)}{values}"


def _image(image):
    return minmax(read_image(image).array) if isinstance(image, (str, Path)) else image


def _check_one_grid(moving, fixed) -> None:
    if not np.allclose(matched_grid(moving, fixed).affine, fixed.grid.affine, atol=1e-3):
        raise ValueError(
            f"{moving.path} and {fixed.path} are on different grids (affines differ), so voxels of one are not those "
            "of the other; resample the moving image onto the grid of the fixed one first"
        )
