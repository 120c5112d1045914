"""What a client may expect of a server, over both protocols; on a TensorFlow Serving where one can be started."""

import json
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
import yaml

from hetmorph.serving import Client, ServedPredictor, ServingError, check
from hetmorph.serving.warmup import signature_defs
from tests.evaluation.fakes import evaluate
from tests.serving.conftest import pair, small_model

NAMES = ("displacement", "moved", "log_variance", "weight")


# Answers


@pytest.mark.parametrize("shape", [(32, 32), (21, 37)])
@pytest.mark.parametrize("choice", ["", "/versions/1", "/labels/stable"])
def test_register_equals_the_local_model(heart, server, protocol, shape, choice):
    moving, fixed = pair(shape)
    expected = heart[0](moving, fixed)
    assert np.abs(expected.displacement).max() > 0.1  # else the comparison would say nothing
    with Client(server.address(protocol, choice)) as client:
        result = client.register(moving, fixed)
    for name in NAMES:
        value = getattr(result, name)
        assert value.dtype == np.float32 and value.shape == getattr(expected, name).shape
        np.testing.assert_allclose(value, getattr(expected, name), atol=1e-5, err_msg=name)


def test_rows_are_columns_in_another_form(server):
    moving, fixed = (np.stack([image, image[::-1]])[..., None] for image in pair((8, 9)))
    inputs = {"moving": moving, "fixed": fixed}
    with Client(server.address("http")) as columns, Client(server.address("http"), rows=True) as rows:
        first, second = (client.predict(inputs, "register") for client in (columns, rows))
        assert set(first) == set(second) == {"displacement", "moved"}
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
        for client in (columns, rows):  # one output: its name is not in the answer
            still = np.zeros((2, 8, 9, 2), np.float32)
            result = client.predict({"image": moving, "displacement": still}, "warp")
            np.testing.assert_array_equal(result["moved"], moving)


def test_numbers_survive_either_protocol_to_the_last_bit(server):
    image = np.float32([[[[1 / 3], [1e-30]], [[16777217.0], [-0.0]]]])
    still = np.zeros((1, 2, 2, 2), np.float32)
    for protocol in ("grpc", "http"):
        with Client(server.address(protocol)) as client:
            moved = client.predict({"image": image, "displacement": still}, "warp_nearest")["moved"]
        np.testing.assert_array_equal(moved, image)


def test_answers_above_the_four_mebibytes_that_grpc_allows_by_default(server):
    with Client(server.address("grpc")) as client:
        result = client.predict(dict.fromkeys(("moving", "fixed"), np.zeros((1, 600, 600, 1), np.float32)), "register")
    assert sum(value.nbytes for value in result.values()) > 4 * 2**20


def test_the_health_check_of_compose(heart, server):
    service = yaml.safe_load((heart[1] / "compose.yaml").read_text())["services"]["heart"]
    *shell, script = service["healthcheck"]["test"][1:]
    script = script.replace("8501", str(server.ports[1])).replace("localhost", "127.0.0.1")
    assert subprocess.run([*shell, script], check=False).returncode == 0
    assert subprocess.run([*shell, script.replace("models/heart", "models/brain")], check=False).returncode != 0


def test_state_and_signatures(heart, server, protocol):
    with Client(server.address(protocol)) as client:
        assert client.status() == {1: "AVAILABLE"}
        signatures = client.signatures()
    assert set(signatures) == set(signature_defs(heart[1] / "1"))
    assert str(signatures["register"].inputs["moving"]) == "float32 [any, any, any, 1]"
    assert set(signatures["variance"].outputs) == set(NAMES)


@pytest.mark.slow
def test_a_served_model_can_be_evaluated(heart, server, protocol):
    from hetmorph import data

    pairs = data.load("phantom", split="test").pairs[:1]
    with Client(server.address(protocol)) as client:
        rows = evaluate(ServedPredictor(client), pairs)
    expected = evaluate(heart[0], pairs)
    for name in ("registered_mse", "registered_dice_mean"):
        assert rows[0][name] == pytest.approx(expected[0][name], abs=1e-4), name


@pytest.mark.slow
def test_evaluate_takes_an_endpoint(server, tmp_path, capsys):
    from hetmorph.cli import evaluate

    common = ["--data", "phantom", "--size", "32", "32", "--out", str(tmp_path / "out")]
    assert evaluate.main([*common, "--model", server.address("grpc", "/labels/stable")]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["model"].startswith("grpc://")
    assert evaluate.main([*common, "--model", server.address("grpc", "/labels/canary")]) == 2
    assert "Unrecognized servable version label" in capsys.readouterr().err
    assert evaluate.main([*common, "--model", server.address("grpc"), "--passes", "2"]) == 2


def test_files(server, protocol, tmp_path):
    import nibabel as nib

    moving, fixed = pair((24, 20))
    for name, image in (("moving", 100 * moving), ("fixed", fixed)):
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(fixed, np.diag([2, 1, 1, 1])), tmp_path / "elsewhere.nii.gz")
    with Client(server.address(protocol)) as client:
        result = client.register(tmp_path / "moving.nii.gz", str(tmp_path / "fixed.nii.gz"))
        with pytest.raises(ValueError, match="different grids"):
            client.register(tmp_path / "moving.nii.gz", tmp_path / "elsewhere.nii.gz")
    assert result.displacement.shape == (24, 20, 2)
    assert result.moved.min() >= 0 and result.moved.max() <= 1


# Refusals


def test_check_finds_nothing_wrong(heart, server, protocol):
    results = check(server.address(protocol), heart[0])
    assert [result for result in results if not result.passed] == []
    assert {"refuses NaN", "equals the local model", "available afterwards"} <= {result.name for result in results}


def test_check_finds_another_model(server, protocol):
    results = {result.name: result for result in check(server.address(protocol), small_model(seed=5))}
    assert not results["equals the local model"].passed
    assert "allowed is 0.001" in results["equals the local model"].detail


def test_the_server_says_what_is_wrong_and_lives(server, protocol):
    moving, fixed = (image[None, ..., None] for image in pair((16, 16)))
    nan = fixed.copy()
    nan[0, 3, 3] = np.nan
    wrong = {
        "fixed has NaN": {"moving": moving, "fixed": nan},
        "moving and fixed must have the same": {"moving": moving, "fixed": fixed[:, :9]},
        "feed|shape|rank|dimension": {"moving": moving[0], "fixed": fixed},
        "input": {"moving": moving},
    }
    if protocol == "grpc":  # JSON has one type of number
        wrong["to be float but double"] = {"moving": moving.astype(np.float64), "fixed": fixed}
    with Client(server.address(protocol)) as client:
        for words, inputs in wrong.items():
            with pytest.raises(ServingError, match=words) as refused:
                client._send(inputs, "register")  # past the checks of the client
            assert refused.value.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
            assert "sent: register(moving float" in str(refused.value)
        with pytest.raises(ServingError, match='signature (key|name): ?"register_all"|"register_all" not found'):
            client._send({"moving": moving, "fixed": fixed}, "register_all")
        assert client.status() == {1: "AVAILABLE"}
        assert client.predict({"moving": moving, "fixed": fixed}, "register")["moved"].shape == moving.shape
    assert server.alive()


def test_a_model_version_or_label_that_is_not_there(server, protocol):
    moving, fixed = pair((8, 8))
    for address, words in {
        server.address(protocol).replace("heart", "brain"): "brain",
        server.address(protocol, "/versions/9"): "9",
        server.address(protocol, "/labels/canary"): "Unrecognized servable version label: canary",
    }.items():
        with Client(address) as client, pytest.raises(ServingError, match=words) as refused:
            client.register(moving, fixed)
        assert refused.value.code in ("NOT_FOUND", "INVALID_ARGUMENT")


def post(url, body):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as answer:
        return answer.code, json.loads(answer.read())["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "JSON"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"inputs": {"moving": [[[["a"]]]], "fixed": [[[[0.5]]]]}}', "not of expected type: float"),
        (b'{"inputs": {"moving": [[[[1], [2]], [[1]]]], "fixed": [[[[0.5]]]]}}', "list at unexpected size"),
    ],
)
def test_what_is_no_request_is_refused(server, body, words):
    code, message = post(f"http://127.0.0.1:{server.ports[1]}/v1/models/heart:predict", body)
    assert code == 400 and words in message
    assert server.alive()


# The rest


def test_warm_up_requests_are_replayed(heart, server):
    metrics = server.get("/monitoring/prometheus/metrics")
    lines = [line for line in metrics.splitlines() if "warmup_records_read" in line and 'status="OK"' in line]
    assert [line.split()[-1] for line in lines] == [str(2 * len(signature_defs(heart[1] / "1")))]


def test_a_server_elsewhere(elsewhere):
    results = check(elsewhere)
    assert [result for result in results if result.passed is False] == []
