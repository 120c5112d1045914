"""TensorFlow Serving's two protocols: what a request becomes on the wire, and what comes back."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from hetmorph.serving import protos

_UNLIMITED = 2**31 - 1  # of a protobuf message; gRPC would refuse answers above 4 MiB
_HTTP_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "TOO_LARGE",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True)
class Endpoint:
    """A model on a server; see `Client` for the forms of its address."""

    scheme: str
    host: str
    prefix: str
    model: str
    version: int | None = None
    label: str | None = None

    def __str__(self):
        choice = "" if self.version is None else f"/versions/{self.version}"
        choice = choice if self.label is None else f"/labels/{self.label}"
        return f"{self.scheme}://{self.host}{self.prefix}/{self.model}{choice}"


@dataclass(frozen=True)
class Tensor:
    """Type and shape of a named input or output; None where any size will do."""

    dtype: np.dtype
    shape: tuple[int | None, ...]

    def __str__(self):
        return f"{self.dtype.name} [{', '.join('any' if n is None else str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """Named inputs and outputs of one function of a model."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Failure(Exception):
    """One attempt that brought no answer.

    Attributes:
        code: name of a gRPC status.
        retry: whether the same request may succeed later; predictions change nothing, so they can be repeated.
    """

    def __init__(self, code: str, reason: str, retry: bool):
        super().__init__(reason)
        self.code, self.retry = code, retry


class Transport:
    """One protocol. `encode` makes the body of a request, `predict` sends it; each raises `Failure`."""

    def encode(self, inputs: dict[str, np.ndarray], signature: str) -> tuple[Any, int]:
        """The body, and its size in bytes."""
        raise NotImplementedError

    def predict(self, body: Any, timeout: float) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def status(self, timeout: float) -> dict[int, str]:
        """{version: state}, with the server's reason where it failed to load."""
        raise NotImplementedError

    def signatures(self, timeout: float) -> dict[str, Signature]:
        raise NotImplementedError

    def close(self) -> None:
        """Free the connections."""


class Grpc(Transport):
    """gRPC with the stubs of tensorflow-serving-api; tensors travel as bytes."""

    def __init__(self, endpoint: Endpoint, certificate: bytes | None):
        self._endpoint, self._grpc = endpoint, protos.grpc()
        services = protos.tensorflow_serving("prediction_service_pb2_grpc", "model_service_pb2_grpc")
        self._predict_pb2, self._metadata_pb2, self._status_pb2 = protos.tensorflow_serving(
            "predict_pb2", "get_model_metadata_pb2", "get_model_status_pb2"
        )
        options = {
            "grpc.max_send_message_length": _UNLIMITED,
            "grpc.max_receive_message_length": _UNLIMITED,
            # By default a channel waits up to two minutes before it looks again for a server that was restarted.
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.min_reconnect_backoff_ms": 100,
            "grpc.max_reconnect_backoff_ms": 1000,
        }
        options = list(options.items())
        if endpoint.scheme == "grpcs":
            credentials = self._grpc.ssl_channel_credentials(certificate)
            self._channel = self._grpc.secure_channel(endpoint.host, credentials, options)
        else:
            self._channel = self._grpc.insecure_channel(endpoint.host, options)
        self._prediction = services[0].PredictionServiceStub(self._channel)
        self._model = services[1].ModelServiceStub(self._channel)

    def encode(self, inputs, signature):
        request = self._addressed(self._predict_pb2.PredictRequest())
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return request, request.ByteSize()

    def predict(self, body, timeout):
        response = self._call(self._prediction.Predict, body, timeout)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def status(self, timeout):
        request = self._addressed(self._status_pb2.GetModelStatusRequest())
        response = self._call(self._model.GetModelStatus, request, timeout)
        names = self._status_pb2.ModelVersionStatus.State
        return {
            int(v.version): _state(names.Name(v.state), v.status.error_message) for v in response.model_version_status
        }

    def signatures(self, timeout):
        from google.protobuf import json_format

        request = self._addressed(self._metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
        response = self._call(self._prediction.GetModelMetadata, request, timeout)
        found = self._metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return _signatures(json_format.MessageToDict(found, preserving_proto_field_name=True))

    def close(self):
        self._channel.close()

    def _addressed(self, request):
        request.model_spec.name = self._endpoint.model
        if self._endpoint.version is not None:
            request.model_spec.version.value = self._endpoint.version
        if self._endpoint.label is not None:
            request.model_spec.version_label = self._endpoint.label
        return request

    def _call(self, method: Callable, request, timeout: float):
        try:
            return method(request, timeout=timeout)
        except self._grpc.RpcError as error:
            code, reason = error.code().name, error.details() or "no reason given"
            full = code == "RESOURCE_EXHAUSTED" and "larger than max" not in reason
            raise Failure(code, reason, code == "UNAVAILABLE" or full) from error


class Rest(Transport):
    """HTTP with JSON in the column form, or, with `rows`, the row form that other servers share."""

    def __init__(self, endpoint: Endpoint, certificate: str | None, rows: bool):
        self._requests, self._rows, self._certificate = protos.requests(), rows, certificate
        choice = "" if endpoint.version is None else f"/versions/{endpoint.version}"
        choice = choice if endpoint.label is None else f"/labels/{quote(endpoint.label)}"
        address = f"{endpoint.scheme}://{endpoint.host}{endpoint.prefix}"
        self._url = f"{address}/v1/models/{quote(endpoint.model)}{choice}"
        self._local = threading.local()

    def encode(self, inputs, signature):
        if self._rows:
            images = zip(*(value.tolist() for value in inputs.values()), strict=True)
            content = {"instances": [dict(zip(inputs, row, strict=True)) for row in images]}
        else:
            content = {"inputs": {name: value.tolist() for name, value in inputs.items()}}
        body = json.dumps({"signature_name": signature, **content}, separators=(",", ":")).encode()
        return body, len(body)

    def predict(self, body, timeout):
        answer = self._call("POST", ":predict", timeout, body)
        if "predictions" in answer:
            rows = answer["predictions"]
            named = isinstance(rows[0], dict)
            outputs = {name: [row[name] for row in rows] for name in rows[0]} if named else rows
        else:
            outputs = answer["outputs"]
        # With a single output the server leaves its name out.
        outputs = outputs if isinstance(outputs, dict) else {"": outputs}
        return {name: np.asarray(value, np.float32) for name, value in outputs.items()}

    def status(self, timeout):
        found = self._call("GET", "", timeout)["model_version_status"]
        return {int(v["version"]): _state(v["state"], v.get("status", {}).get("error_message", "")) for v in found}

    def signatures(self, timeout):
        return _signatures(self._call("GET", "/metadata", timeout)["metadata"]["signature_def"])

    def close(self):
        if hasattr(self._local, "session"):
            self._local.session.close()

    def _session(self):
        if not hasattr(self._local, "session"):  # sessions are not made for several threads
            self._local.session = self._requests.Session()
        return self._local.session

    def _call(self, verb: str, path: str, timeout: float, body: bytes | None = None) -> dict:
        errors = self._requests.exceptions
        # `verify` with each request: that of a session gives way to REQUESTS_CA_BUNDLE.
        options = {"headers": {"Content-Type": "application/json"}, "verify": self._certificate, "timeout": timeout}
        try:
            response = self._session().request(verb, self._url + path, data=body, **options)
        except errors.Timeout as error:
            raise Failure("DEADLINE_EXCEEDED", f"no answer within {timeout:.1f} s", False) from error
        except (errors.ConnectionError, errors.ChunkedEncodingError) as error:
            untrusted = isinstance(error, errors.SSLError)
            raise Failure("UNAVAILABLE", _innermost(error), not untrusted) from error
        except errors.RequestException as error:
            raise Failure("UNKNOWN", str(error), False) from error
        if response.status_code == 200:
            return _json(response)
        code = _HTTP_CODES.get(response.status_code, "UNKNOWN")
        raise Failure(code, _reason(response), response.status_code in (429, 502, 503))


def _json(response) -> dict:
    try:
        answer = response.json()
    except ValueError as error:
        raise Failure("UNKNOWN", f"the answer is not JSON: {response.text[:200]!r}", False) from error
    if isinstance(answer, dict) and ({"outputs", "predictions", "metadata", "model_version_status"} & set(answer)):
        return answer
    raise Failure("UNKNOWN", f"not an answer of TensorFlow Serving: {response.text[:200]!r}", False)


def _reason(response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code} {response.reason}: {response.text[:200].strip()}"


def _innermost(error: BaseException) -> str:
    """What the system said; requests and urllib3 each wrap it in text of their own."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


def _state(state: str, message: str) -> str:
    return f"{state}: {message}" if message else state


def _signatures(found: dict) -> dict[str, Signature]:
    """From the JSON form of a SignatureDefMap; servers differ in how they write the names of its fields."""
    signatures = _field(found, "signature_def", {})
    return {
        name: Signature(_tensors(content.get("inputs", {})), _tensors(content.get("outputs", {})))
        for name, content in signatures.items()
        if name != "__saved_model_init_op"
    }


def _tensors(infos: dict) -> dict[str, Tensor]:
    tensors = {}
    for name, info in infos.items():
        dims = _field(info, "tensor_shape", {}).get("dim", [])
        sizes = [int(dim.get("size", 0)) for dim in dims]
        dtype = tf.as_dtype(types_pb2.DataType.Value(info["dtype"])).as_numpy_dtype
        tensors[name] = Tensor(np.dtype(dtype), tuple(n if n >= 0 else None for n in sizes))
    return tensors


def _field(message: dict, name: str, default):
    head, *rest = name.split("_")
    return message.get(name, message.get(head + "".join(word.title() for word in rest), default))
