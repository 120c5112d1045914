"""A server whose versions change, that is killed, or has limits: what its clients notice. Both protocols at once."""

import contextlib
import time

import numpy as np
import pytest

from hetmorph.evaluation import wrap
from hetmorph.serving import Client, ServingError, deploy, export_savedmodel
from tests import servers
from tests.serving.conftest import pair, small_model, start

LIMIT = 100_000  # bytes of a gRPC message


@pytest.fixture(scope="module")
def changing(kind, tmp_path_factory):
    """(server, folder, models); version 1 of two is there."""
    folder, models = tmp_path_factory.mktemp("changing") / "heart", [small_model(seed) for seed in (1, 2)]
    export_savedmodel(models[0], folder)
    deploy(folder, base_path=folder)
    with start(kind, folder, f"--grpc_channel_arguments=grpc.max_receive_message_length={LIMIT}") as server:
        yield server, folder, models


class Load(servers.Callers):
    """Threads that send one pair over and over, and keep every answer."""

    def __init__(self, address, threads=2):
        self.images, self.answers = pair((32, 32)), []
        self._client = Client(address, timeout=60, retries=30)
        super().__init__(self._send, threads, pause=0.02)

    def _send(self):
        inputs = dict(zip(("moving", "fixed"), self.images[..., None][:, None], strict=True))
        self.answers.append(self._client.predict(inputs, "register")["displacement"][0])

    def wait_for(self, count):
        """Until so many more answers have come."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted)

    def __exit__(self, *_):
        super().__exit__()
        self._client.close()


@contextlib.contextmanager
def loads(server):
    """Load over either protocol, on the stable version."""
    with (
        Load(server.address("grpc", "/labels/stable")) as grpc,
        Load(server.address("http", "/labels/stable")) as rest,
    ):
        yield grpc, rest


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_request_above_the_servers_limit(changing):
    with Client(changing[0].address("grpc")) as client:
        with pytest.raises(ServingError, match="larger than max") as refused:
            client.register(*pair((200, 200)))
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert "attempts" not in str(refused.value)  # it would be as large the next time
        assert client.register(*pair((32, 32))).displacement.shape == (32, 32, 2)


@pytest.mark.slow
def test_versions_switch_without_a_lost_request(changing):
    server, folder, models = changing
    with loads(server) as (grpc, rest), Client(server.address("grpc")) as client:
        for load in (grpc, rest):
            load.wait_for(3)
        export_savedmodel(models[1], folder)
        deploy(folder, canary=2, base_path=folder)
        wait_until(lambda: client.status().get(2) == "AVAILABLE")
        before = [len(load.answers) for load in (grpc, rest)]
        deploy(folder, stable=2, base_path=folder)
        wait_until(lambda: client.status().get(1) != "AVAILABLE")
        for load in (grpc, rest):
            load.wait_for(3)
    expected = [wrap(model)(*grpc.images).displacement for model in models]
    for load, count in zip((grpc, rest), before, strict=True):
        assert load.errors == []
        of = [[np.allclose(answer, value, atol=1e-4) for value in expected] for answer in load.answers]
        assert all(first != second for first, second in of)  # every answer is of one version, whole
        assert all(first for first, _ in of[:count])  # the label counts, not the largest version
        assert of[-1] == [False, True]


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(changing):
    server, _, models = changing
    with loads(server) as both:
        for load in both:
            load.wait_for(3)
        server.kill()
        server.start()
        for load in both:
            load.wait_for(5)
    expected = [wrap(model)(*both[0].images).displacement for model in models]
    for load in both:
        assert load.errors == []
        assert all(any(np.allclose(answer, value, atol=1e-4) for value in expected) for answer in load.answers)
