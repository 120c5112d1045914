"""Models that move voxels, and servers."""

import os

import numpy as np
import pytest

from hetmorph.evaluation import wrap
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.serving import deploy, export_savedmodel
from tests import servers

SMALL = {"nb_unet_features": [[4], [4, 4]], "int_steps": 1}


def random_weights(model, seed=0, scale=0.2):
    """Weights large enough for displacements of about a voxel, unlike the initial ones."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * scale)
    return model


def small_model(seed=0):
    return random_weights(VxmDense((32, 32), **SMALL), seed)


def pair(shape, seed=0):
    """Two random images of a size."""
    return np.random.default_rng(seed).random((2, *shape), np.float32)


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    """(predictor, folder) of a HetVxmDense: one version with warm-up requests, and what a server needs."""
    pytest.importorskip("tensorflow_serving", reason="pip install --no-deps tensorflow-serving-api")
    model = random_weights(HetVxmDense((32, 32), **SMALL, variance_features=SMALL["nb_unet_features"]))
    folder = tmp_path_factory.mktemp("models") / "heart"
    export_savedmodel(model, folder, warmup=[(32, 32), (21, 37)])
    deploy(folder, base_path=folder)
    return wrap(model), folder


def skip_without(kind):
    """Skip where a kind of server cannot be started; before a model is made for it."""
    pytest.importorskip("tensorflow_serving", reason="pip install --no-deps tensorflow-serving-api")
    pytest.importorskip("requests")
    if kind == "TF Serving" and servers.real("/", 0) is None:
        pytest.skip(servers.NONE)


def start(kind, folder, *flags):
    """A server of a kind on a folder."""
    return servers.Server(servers.double if kind == "test double" else servers.real, folder, *flags)


@pytest.fixture(scope="module", params=["test double", "TF Serving"])
def kind(request):
    skip_without(request.param)
    return request.param


@pytest.fixture(scope="module")
def server(kind, heart):
    """A running server of `heart`."""
    with start(kind, heart[1]) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.fixture(params=["GRPC", "REST"])
def elsewhere(request):
    """Endpoint of a server that somebody runs."""
    endpoint = os.environ.get(f"HETMORPH_TFS_{request.param}")
    if endpoint is None:
        pytest.skip(f"{servers.NONE}; set HETMORPH_TFS_{request.param} to an endpoint of one")
    return endpoint
