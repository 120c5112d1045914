"""What stands beside the versions: files that TensorFlow Serving's own descriptions of them accept."""

import json
import os
import shlex
import sys

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from hetmorph.serving import check, deploy, export_savedmodel, read_warmup, write_warmup
from hetmorph.serving import deploy as deploy_function
from hetmorph.serving.deploy import flags, labels_in
from hetmorph.serving.warmup import FILE, signature_defs
from hetmorph.stored import version_folders
from tests.serving.conftest import small_model

WRITTEN = {"models.config", "batching.config", "monitoring.config", "Dockerfile", "compose.yaml"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The version folder of a small model without warm-up requests."""
    return export_savedmodel(small_model(), tmp_path_factory.mktemp("exported"))


@pytest.fixture
def folder(tmp_path):
    """A model folder in which versions are files of a name only, which is all that `deploy` looks at."""

    def add(*numbers):
        for number in numbers:
            (tmp_path / "heart" / str(number)).mkdir(parents=True)
            (tmp_path / "heart" / str(number) / "saved_model.pb").touch()
        return tmp_path / "heart"

    return add


def served(config):
    """ModelConfig of the one model in a models.config, read with the official description."""
    package = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    parsed = text_format.Parse(config.read_text(), package.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    return model


# models.config


def test_the_largest_version_is_stable_at_first(folder):
    deployment = deploy(folder(1, 2, 10))
    assert (deployment.name, deployment.labels, deployment.unserved) == ("heart", {"stable": 10}, [1, 2])
    assert {path.name for path in deployment.files} == WRITTEN
    model = served(folder() / "models.config")
    assert (model.name, model.base_path, model.model_platform) == ("heart", "/models/heart", "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [10]
    assert dict(model.version_labels) == {"stable": 10}


def test_a_new_version_goes_live_in_two_steps(folder):
    deploy(folder(1))
    folder(2)
    assert deploy(folder()).labels == {"stable": 1}, "what is exported is not served until somebody says so"
    assert deploy(folder(), canary=2).labels == {"stable": 1, "canary": 2}
    model = served(folder() / "models.config")
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2} == labels_in(folder() / "models.config")
    assert deploy(folder(), stable=2).labels == {"stable": 2}


@pytest.mark.parametrize(
    ("before", "now", "advice"),
    [
        ({"stable": 1}, {"stable": 2}, "First deploy with canary=2"),
        ({"stable": 2}, {"stable": 1}, "First deploy with canary=1"),
        ({"stable": 1, "canary": 2}, {"canary": 3}, "First deploy with no canary"),
    ],
)
def test_a_label_does_not_move_to_a_version_that_is_not_loaded(folder, before, now, advice):
    deploy(folder(1, 2, 3), **before)
    text = (folder() / "models.config").read_text()
    with pytest.raises(ValueError, match=advice):
        deploy(folder(), **now)
    assert (folder() / "models.config").read_text() == text


def test_a_stable_version_that_is_gone(folder):
    deploy(folder(1, 2), stable=1)
    os.remove(folder() / "1" / "saved_model.pb")
    with pytest.raises(FileNotFoundError, match="no version 1 .*where none runs, it can be deleted"):
        deploy(folder())
    (folder() / "models.config").unlink()
    assert deploy(folder()).labels == {"stable": 2}


def test_versions_are_counted_as_numbers_and_only_complete_ones(folder):
    (folder(9, 10) / "11").mkdir()
    (folder() / ".unfinished-x").mkdir()
    assert list(version_folders(folder())) == [9, 10]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"stable": 7}, FileNotFoundError, r"no version 7 .*there are \[1\]"),
        ({"canary": 7}, FileNotFoundError, "no version 7"),
        ({"name": "heart/ES"}, ValueError, "model name"),
        ({"name": ""}, ValueError, "model name"),
    ],
)
def test_what_cannot_be_served_is_refused(folder, arguments, error, words):
    with pytest.raises(error, match=words):
        deploy(folder(1), **arguments)
    assert {path.name for path in folder().iterdir()} == {"1"}


def test_a_folder_without_versions(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected folders 1, 2"):
        deploy(tmp_path)


def test_a_stopped_deploy_leaves_the_old_configuration(folder, monkeypatch):
    deploy(folder(1, 2), stable=1)
    text = (folder() / "models.config").read_text()
    real = os.replace

    def stopped(source, target):
        if str(target).endswith("models.config"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        deploy(folder(), canary=2)
    assert (folder() / "models.config").read_text() == text


# The other files


def message(name, **fields):
    """An empty message of a type that tensorflow-serving-api leaves out, described by hand: field → (number, type)."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="described", syntax="proto3", dependency=["google/protobuf/wrappers.proto"]
    )
    described = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
        added = described.field.add(name=field, number=number, label=1)
        if kind.startswith("."):
            added.type, added.type_name = 11, kind
        else:
            added.type = {"bool": 8, "string": 9}[kind]
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"described.{name}"))()


def test_batching_and_monitoring(folder):
    deploy(folder(1))
    integer = f".{wrappers_pb2.Int64Value.DESCRIPTOR.full_name}"
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    batching = message("Batching", **{name: (i, integer) for i, name in enumerate(names, 1)})
    text_format.Parse((folder() / "batching.config").read_text(), batching)
    assert all(getattr(batching, name).value > 0 for name in names)
    message("Prometheus", enable=(1, "bool"), path=(2, "string"))
    monitoring = message("Monitoring", prometheus_config=(1, ".described.Prometheus"))
    text_format.Parse((folder() / "monitoring.config").read_text(), monitoring)
    assert monitoring.prometheus_config.enable and monitoring.prometheus_config.path.startswith("/monitoring")


@pytest.mark.parametrize("batching", [False, True])
def test_compose_and_dockerfile_say_the_same(folder, batching):
    deploy(folder(1), batching=batching, image="tensorflow/serving:2.20.0-gpu")
    service = yaml.safe_load((folder() / "compose.yaml").read_text())["services"]["heart"]
    assert service["image"] == "tensorflow/serving:2.20.0-gpu"
    assert service["volumes"] == [".:/models/heart:ro"]
    assert service["command"] == flags("/models/heart", batching)
    assert ("--enable_batching=true" in service["command"]) == batching
    lines = (folder() / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM tensorflow/serving:2.20.0-gpu"]
    assert json.loads(lines[-1].removeprefix("CMD ")) == service["command"]
    for flag in service["command"]:
        if "/models/heart/" in flag:
            assert (folder() / flag.split("/models/heart/")[1]).exists(), flag
    _, _, script = service["healthcheck"]["test"][1:]
    assert "/v1/models/heart" in script and "$" not in script and shlex.split(script)


# Warm-up


def test_without_the_package_the_message_says_what_to_install(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.predict_pb2", None)
    with pytest.raises(ImportError, match='pip install --no-deps "tensorflow-serving-api==2'):
        write_warmup(exported, [(32, 32)])
    with pytest.raises(ImportError, match='pip install --no-deps "tensorflow-serving-api==2'):
        export_savedmodel(small_model(), tmp_path, warmup=[(32, 32)])
    assert list(tmp_path.iterdir()) == [], "said before anything is written"


def test_warm_up_has_every_signature_and_size(heart):
    folder = heart[1] / "1"
    requests = read_warmup(folder)
    found = {(r.model_spec.signature_name, tuple(shape(r, "fixed") or shape(r, "image"))) for r in requests}
    sizes = [(1, 32, 32, 1), (1, 21, 37, 1)]
    assert found == {(name, size) for name in signature_defs(folder) for size in sizes}
    for request in requests:
        assert all(np.isfinite(tf.make_ndarray(value)).all() for value in request.inputs.values())


def shape(request, name):
    return [dim.size for dim in request.inputs[name].tensor_shape.dim] if name in request.inputs else []


def test_warm_up_of_a_size_the_model_does_not_take(exported):
    pytest.importorskip("tensorflow_serving")
    for sizes in ([(32, 32, 32)], [(32,)], [], [(32, 32)] * 1001):
        with pytest.raises(ValueError, match="images of size|1 to 1000"):
            write_warmup(exported, sizes)
    assert not (exported / FILE).exists() and read_warmup(exported) == []


# check, of a folder


def test_check_of_a_good_folder(heart):
    results = check(heart[1], heart[0])
    assert [result for result in results if not result.passed] == []
    assert [result.detail for result in results if result.name == "models.config"] == ["stable is version 1"]
    assert "ok   refuses NaN" in "\n".join(map(str, results))


def test_check_says_what_there_is_not(exported):
    results = {result.name: result for result in check(exported)}
    assert {name for name, result in results.items() if result.passed is None} == {"warm-up", "models.config"}
    assert not [result for result in results.values() if result.passed is False]


def test_check_finds_faults(tmp_path):
    pytest.importorskip("tensorflow_serving")
    first = export_savedmodel(small_model(), tmp_path / "heart", warmup=[(32, 32)])
    deploy_function(tmp_path / "heart")
    with (first / FILE).open("r+b") as file:
        file.truncate(100)
    config = tmp_path / "heart" / "models.config"
    config.write_text(config.read_text().replace("value: 1", "value: 3"))
    renamed = first.rename(first.with_name("newest"))
    faults = {result.name for result in check(renamed, small_model(seed=4)) if result.passed is False}
    assert faults == {"version folder", "equals the local model", "warm-up", "models.config"}


def test_check_of_what_is_no_registration_model(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.double})
    (result,) = check(tmp_path)
    assert result.passed is False and "no signature 'register'" in result.detail
