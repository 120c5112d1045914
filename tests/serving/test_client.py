"""The client without a server: addresses, what is refused before it is sent, repetition."""

import http.server
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent import futures

import numpy as np
import pytest

from hetmorph.evaluation import wrap
from hetmorph.serving import Client, ServedPredictor, ServingError, client, is_endpoint
from hetmorph.serving.client import parse_endpoint
from hetmorph.serving.transport import Failure, Signature, Tensor, Transport, _signatures

IMAGE = np.full((1, 4, 5, 1), 0.5, np.float32)


def signatures(ndims=2):
    image = Tensor(np.dtype(np.float32), (*(None,) * (ndims + 1), 1))
    flow = Tensor(np.dtype(np.float32), (*(None,) * (ndims + 1), ndims))
    inputs = {"moving": image, "fixed": image}
    return {"register": Signature(inputs, {"displacement": flow, "moved": image})}


class Fake(Transport):
    """Fails as told, then answers."""

    def __init__(self, failures=(), known=None):
        self.failures, self.known, self.sent = list(failures), known or signatures(), []

    def encode(self, inputs, signature):
        return (inputs, signature), sum(value.nbytes for value in inputs.values())

    def predict(self, body, timeout):
        self.sent.append((*body, timeout))
        if self.failures:
            raise self.failures.pop(0)
        flow = np.zeros((*body[0]["moving"].shape[:-1], 2), np.float32)
        return {"displacement": flow, "moved": body[0]["moving"]}

    def signatures(self, timeout):
        return self.known


@pytest.fixture
def connect(monkeypatch):
    """Makes (client, fake transport, list of pauses)."""

    def make(failures=(), known=None, **arguments):
        fake, pauses = Fake(failures, known), []
        monkeypatch.setattr(client, "_transport", lambda *_: fake)
        monkeypatch.setattr(time, "sleep", pauses.append)
        return Client("grpc://host:8500/heart", **arguments), fake, pauses

    return make


# Addresses


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("grpc://host:8500/heart", ("grpc", "host:8500", "", "heart", None, None)),
        ("grpcs://host:8500/heart/versions/12", ("grpcs", "host:8500", "", "heart", 12, None)),
        ("http://10.0.0.1:8501/heart/labels/stable", ("http", "10.0.0.1:8501", "", "heart", None, "stable")),
        ("http://host:8501/v1/models/heart/labels/stable", ("http", "host:8501", "", "heart", None, "stable")),
        ("https://host/a/b/v1/models/heart", ("https", "host", "/a/b", "heart", None, None)),
        ("grpc://[::1]:8500/heart/", ("grpc", "[::1]:8500", "", "heart", None, None)),
    ],
)
def test_addresses(text, parts):
    endpoint = parse_endpoint(text)
    found = (endpoint.scheme, endpoint.host, endpoint.prefix, endpoint.model, endpoint.version, endpoint.label)
    assert found == parts and is_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "host:8500/heart",
        "grpc://host:8500",
        "grpc://host:8500/",
        "http://host:8501/heart/label/stable",
        "http://host:8501/heart/versions/two",
        "grpc://host:8500/proxy/v1/models/heart",
        "http://host:8501/heart:predict",
        "ftp://host/heart",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="expected grpc://host:port/model"):
        Client(text)


def test_a_path_is_no_endpoint():
    assert not any(map(is_endpoint, ["runs/het/model.keras", "C:/models/heart", "demons", None]))


# Before sending


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fixed": np.where(IMAGE == IMAGE, np.nan, IMAGE)}, "fixed holds NaN"),
        ({"fixed": IMAGE.astype(np.float64) * 1e300}, "fixed holds NaN or infinity"),
        ({"fixed": IMAGE[0]}, r"fixed must be float32 \[any, any, any, 1\], received float32 \[4, 5, 1\]"),
        ({"fixed": np.repeat(IMAGE, 2, -1)}, r"received float32 \[1, 4, 5, 2\]"),
        ({"fixed": (255 * IMAGE).astype(np.uint8)}, "fixed must be float32 .* received uint8"),
        ({"fixed": IMAGE.astype(complex)}, "received complex128"),
        ({"fixed": np.full(IMAGE.shape, "a")}, "received <U1"),
        ({"fixed": IMAGE[:0]}, "holds no voxel"),
        ({"target": IMAGE}, r"register takes \['fixed', 'moving'\]"),
    ],
)
def test_what_must_fail_is_not_sent(connect, change, words):
    connected, fake, _ = connect()
    with pytest.raises(ValueError, match=words):
        connected.predict({"moving": IMAGE, "fixed": IMAGE} | change, "register")
    assert fake.sent == []


def test_a_request_that_is_too_large_is_not_sent(connect):
    connected, fake, _ = connect(max_bytes=2 * IMAGE.nbytes - 1)
    with pytest.raises(ValueError, match=r"larger than max_bytes=159, nothing was sent: register\(moving float32"):
        connected.predict({"moving": IMAGE, "fixed": IMAGE}, "register")
    assert fake.sent == []


def test_register_checks_the_pair(connect):
    connected, fake, _ = connect()
    image = IMAGE[0, ..., 0]
    for wrong, words in [
        ((image, image[:2]), "same shape"),
        ((image, image * np.inf), "NaN or infinity"),
        ((IMAGE, IMAGE), "2-D images without channel axis"),
    ]:
        with pytest.raises(ValueError, match=words):
            connected.register(*wrong)
    assert fake.sent == []
    assert connected.register(image.astype(np.float64), image.tolist()).displacement.shape == (4, 5, 2)
    assert all(value.dtype == np.float32 for value in fake.sent[0][0].values())


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"retries": -1}, {"max_bytes": 0}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match="expected timeout > 0"):
        Client("grpc://host:8500/heart", **arguments)


@pytest.mark.parametrize(
    ("address", "module", "words"),
    [
        ("grpc://host:8500/heart", "grpc", r'pip install "\.\[serving\]"'),
        ("grpc://host:8500/heart", "tensorflow_serving.apis.prediction_service_pb2_grpc", "--no-deps"),
        ("http://host:8501/heart", "requests", r'pip install "\.\[serving\]"'),
    ],
)
def test_missing_packages(monkeypatch, address, module, words):
    if not address.startswith("http"):
        pytest.importorskip("tensorflow_serving")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=words):
        Client(address)


# Repetition


def busy(count):
    return [Failure("UNAVAILABLE", "connection refused", True) for _ in range(count)]


def test_a_server_that_is_away_is_asked_again(connect):
    connected, fake, pauses = connect(busy(4))
    result = connected.predict({"moving": IMAGE, "fixed": IMAGE}, "register")
    np.testing.assert_array_equal(result["moved"], IMAGE)
    assert len(fake.sent) == 5
    assert all(0.05 * 2**i <= pause <= 0.1 * 2**i for i, pause in enumerate(pauses))
    assert all(sent[0]["moving"] is fake.sent[0][0]["moving"] for sent in fake.sent), "encoded once"


def test_it_is_not_asked_for_ever(connect):
    connected, fake, _ = connect(busy(99), retries=3)
    with pytest.raises(ServingError, match="UNAVAILABLE after 4 attempts: connection refused") as error:
        connected.predict({"moving": IMAGE, "fixed": IMAGE}, "register")
    assert len(fake.sent) == 4
    assert (error.value.code, error.value.reason) == ("UNAVAILABLE", "connection refused")
    assert "grpc://host:8500/heart" in str(error.value)
    assert "moving float32 [1, 4, 5, 1] in 0.5 … 0.5" in str(error.value)


def test_nor_beyond_the_time_given(connect, monkeypatch):
    connected, fake, pauses = connect(busy(99), timeout=2, retries=99)
    now = iter(np.arange(0, 100, 0.1))
    monkeypatch.setattr(time, "monotonic", lambda: next(now) + sum(pauses))
    with pytest.raises(ServingError, match="UNAVAILABLE after"):
        connected.predict({"moving": IMAGE, "fixed": IMAGE}, "register")
    assert sum(pauses) < 2 and 2 < len(fake.sent) < 9
    timeouts = [sent[2] for sent in fake.sent]
    assert timeouts == sorted(timeouts, reverse=True) and 0 < timeouts[-1] < timeouts[0] < 2


def test_a_refusal_is_final(connect):
    connected, fake, pauses = connect([Failure("INVALID_ARGUMENT", "fixed has NaN", False)])
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: fixed has NaN"):
        connected.predict({"moving": IMAGE, "fixed": IMAGE}, "register")
    assert len(fake.sent) == 1 and pauses == []


def test_no_server_at_all(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, but nobody listens
        port = free.getsockname()[1]
        for scheme in ("grpc", "http"):
            pytest.importorskip({"grpc": "tensorflow_serving", "http": "requests"}[scheme])
            with Client(f"{scheme}://127.0.0.1:{port}/heart", timeout=20, retries=1) as connected:
                with pytest.raises(ServingError, match="UNAVAILABLE after 2 attempts") as error:
                    connected.status()
                assert "sent: status" in str(error.value)


def test_a_server_that_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("grpc", "http"):
            pytest.importorskip({"grpc": "tensorflow_serving", "http": "requests"}[scheme])
            address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/heart"
            with Client(address, timeout=0.5) as connected, pytest.raises(ServingError) as error:
                connected.status()
            assert error.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")


# TLS


class Loaded:
    """What the handlers of the test double ask for."""

    @staticmethod
    def status(spec):
        from tensorflow_serving.apis import get_model_status_pb2

        return get_model_status_pb2.GetModelStatusResponse(model_version_status=[{"version": 7, "state": "AVAILABLE"}])


@pytest.fixture
def encrypted(tmp_path):
    """(ports by scheme, certificate) of servers that talk TLS only."""
    grpc, _ = pytest.importorskip("grpc"), pytest.importorskip("tensorflow_serving")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    from tests import reference_server

    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    key, certificate = ((tmp_path / name).read_bytes() for name in ("key.pem", "certificate.pem"))
    secure = grpc.server(futures.ThreadPoolExecutor(1))
    service = reference_server.Status(Loaded)
    reference_server.model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, secure)
    port = secure.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    secure.start()
    web = http.server.ThreadingHTTPServer(("localhost", 0), reference_server.handler_of(Loaded))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield {"grpcs": port, "https": web.server_port}, tmp_path / "certificate.pem"
    web.shutdown()
    web.server_close()
    secure.stop(None).wait()


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_tls(encrypted, scheme):
    ports, certificate = encrypted
    address = f"{scheme}://localhost:{ports[scheme]}/heart"
    with Client(address, certificate=certificate) as connected:
        assert connected.status() == {7: "AVAILABLE"}
    for untrusted in (address, address.replace("s://", "://")):
        with Client(untrusted, retries=1) as connected, pytest.raises(ServingError, match="UNAVAILABLE"):
            connected.status()


# What servers say about their models


def test_signatures_in_either_spelling():
    tensor = {"dtype": "DT_FLOAT", "name": "x:0"}
    dims = {"dim": [{"size": "-1", "name": ""}, {"size": "1"}], "unknown_rank": False}
    for outer, inner in (("signature_def", "tensor_shape"), ("signatureDef", "tensorShape")):
        found = _signatures({outer: {"register": {"inputs": {"moving": {**tensor, inner: dims}}}}})
        assert str(found["register"].inputs["moving"]) == "float32 [any, 1]"


def test_a_model_that_registers_nothing(connect):
    image = Tensor(np.dtype(np.float32), (None, None))
    connected, *_ = connect(known={"serving_default": Signature({"x": image}, {"y": image})})
    with pytest.raises(ValueError, match="expected signature 'register', found \\['serving_default'\\]"):
        ServedPredictor(connected)


def test_volumes(connect):
    connected, *_ = connect(known=signatures(ndims=3))
    assert ServedPredictor(connected).ndims == 3
    with pytest.raises(ValueError, match="3-D images"):
        connected.register(IMAGE[0, ..., 0], IMAGE[0, ..., 0])


def test_a_client_is_wrapped_as_a_predictor(connect):
    connected, fake, _ = connect()
    predictor = wrap(connected)
    assert isinstance(predictor, ServedPredictor) and predictor.ndims == 2
    assert predictor.displacements(IMAGE[..., 0], IMAGE[..., 0]).shape == (1, 4, 5, 2)
    assert [signature for _, signature, _ in fake.sent] == ["register"]


def test_an_older_export_is_asked_twice(connect):
    image = Tensor(np.dtype(np.float32), (None, None, None, 1))
    known = signatures()
    for outputs, requests in [
        (("log_variance", "weight"), ["register", "variance"]),
        (("displacement", "moved", "log_variance", "weight"), ["variance"]),
    ]:
        variance = Signature(known["register"].inputs, dict.fromkeys(outputs, image))
        connected, fake, _ = connect(known=known | {"variance": variance})
        connected.register(IMAGE[0, ..., 0], IMAGE[0, ..., 0])
        assert [signature for _, signature, _ in fake.sent] == requests
