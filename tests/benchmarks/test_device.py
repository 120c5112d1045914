"""What the benchmarks do on a device, with made-up contenders and without a GPU."""

import argparse
import sys
import textwrap

import pytest
import tensorflow as tf

from tests.documentation import ROOT

sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "contenders")]
import exactness  # noqa: E402
import first_update  # noqa: E402
import hardware  # noqa: E402
import train_command  # noqa: E402
import train_step  # noqa: E402
import volume  # noqa: E402
import worker  # noqa: E402
from common import command, report, rounds  # noqa: E402


@pytest.fixture
def contender(tmp_path):
    """A contender of a body of `build(case)`, which the tests' own interpreter runs."""

    def made(body: str, name: str = "made up"):
        path = tmp_path / f"{name.replace(' ', '_')}.py"
        body = textwrap.indent(textwrap.dedent(body), "    ")
        path.write_text(
            f"import sys\nsys.path.insert(0, {str(rounds.CONTENDERS)!r})\nimport worker\n\n"
            f"def build(case):\n{body}\n\nworker.serve(build)\n"
        )
        return rounds.Contender(name, "own", str(path))

    return made


def compete(contenders, device="cpu", **options):
    with rounds.workers(contenders, {"own": sys.executable}, 1, device) as running:
        return rounds.compete(running, {}, 2, 3, **options)


class Counted:
    """A device that works on its own, and is told what was asked of it."""

    waits = True

    def __init__(self):
        self.asked = []

    def wait(self):
        self.asked.append("wait")


def test_a_turn_on_a_device_ends_when_the_device_is_done():
    device = Counted()
    assert len(worker._turn(lambda: device.asked.append("run"), 3, device)) == 1
    assert device.asked == ["run"] * 3 + ["wait"]


def test_every_repetition_is_timed_on_the_processor():
    assert len(worker._turn(lambda: None, 3, hardware.Host())) == 3


def test_contenders_take_turns_and_say_when_they_were_first_done(contender):
    timing = compete([contender("return lambda: None")])["made up"]
    assert len(timing.seconds) == 6 and timing.device_mib is None
    assert 0 < min(timing.seconds) < timing.first


def test_who_cannot_use_a_gpu_says_so_in_one_line(contender):
    with pytest.raises(SystemExit) as error:
        compete([contender("return lambda: None")], "gpu")
    assert str(error.value) == (
        "--device gpu: expected a contender that can use a GPU, received one that cannot (made up)"
    )


@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_a_framework_without_a_gpu_is_named(framework, monkeypatch):
    if framework == "torch":
        pytest.importorskip("torch", reason="of the contenders on PyTorch")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(hardware.Missing, match="expected a GPU, received none: .* sees only the processor"):
        hardware.of("gpu", framework)


def test_one_who_fails_is_left_out_if_asked_for(contender):
    both = [contender("raise ValueError('too large')", "broken"), contender("return lambda: None")]
    with pytest.raises(rounds.Failed, match="(?s)broken failed:.*too large"):
        compete(both)
    assert list(compete(both, keep_going=True)) == ["made up"]


def test_all_may_be_built_at_once(contender):
    sleepers = [contender("import time; time.sleep(0.3); return lambda: None", name) for name in "abc"]
    with rounds.workers(sleepers, {"own": sys.executable}, 1) as running:
        rounds.begin([(running, {})])
        assert all(one.process is not None for one in running)
        assert set(rounds.compete(running, {}, 1, 1)) == set("abc")


def test_a_gpu_is_shared_and_its_host_not_held_back():
    assert rounds.settings(2)["CUDA_VISIBLE_DEVICES"] == "-1"
    assert rounds.settings(2, "gpu") == {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


@pytest.mark.parametrize("benchmark", [train_step, volume])
def test_each_device_has_its_contenders(benchmark):
    labels = {device: {c.label for c in command.chosen(benchmark.CONTENDERS, [], device)} for device in ("cpu", "gpu")}
    assert {"voxelmorph 0.3.4, same network", "voxelmorph 0.3.4, same network, torch.compile"} <= labels["gpu"]
    assert "voxelmorph 0.2, TF 2.15" in labels["cpu"] - labels["gpu"]  # whose environment has no GPU


def test_another_clone_competes_in_what_hetmorph_does(tmp_path):
    (tmp_path / "before" / "hetmorph").mkdir(parents=True)
    twins = train_step.of_clone(train_step.CONTENDERS, tmp_path / "before")
    assert {twin.script for twin in twins} == {"hetmorph_tf.py"}
    assert twins[0].label == "hetmorph mse, before"
    assert all(twin.variables["HETMORPH_CLONE"] == str(tmp_path / "before") for twin in twins)
    assert [twin.options for twin in twins] == [c.options for c in train_step.CONTENDERS if c.script == twins[0].script]
    with pytest.raises(SystemExit, match="--against: expected a clone of hetmorph, received"):
        train_step.of_clone(train_step.CONTENDERS, tmp_path)


def test_sizes_of_the_cases():
    assert command.size("160x192x224:1") == {"shape": [160, 192, 224], "batch": 1}
    for text in ("128x128", "axb:1", "128x128:8:2"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected sizes and a batch as in 128x128:8"):
            command.size(text)


def test_the_table_of_a_gpu_has_its_memory_and_the_first_update(monkeypatch):
    monkeypatch.setattr(report, "graphics", lambda: "a GPU")
    case = {"shape": [8, 8], "batch": 4, "threads": 2, "peak_mib": 900.0, "contender": "hetmorph mse"}
    measured = [{**case, "seconds": 0.002, "first_seconds": 3.0, "device_mib": 70.0}]
    args = train_step.arguments().parse_args(["--device", "gpu"])
    header, _, row = train_step._table(measured, command.size("8x8:4"), 2, args).splitlines()[-3:]
    assert "| first update, s | device MiB | peak MiB |" in header
    assert row == "| hetmorph mse | 2.00 | 2000.00 | 1.00 | 3.0 | 70 | 900 |"
    args = train_step.arguments().parse_args([])
    assert train_step._table(measured, command.size("8x8:4"), 2, args).endswith("| 2 | 2000.00 | 1.00 | 900 |")


def test_a_page_without_the_section_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    page = tmp_path / "page.md"
    for text in ("a\n", "a\n<!-- x: written by the command below -->\nold\n<!-- end of x -->\nb\n"):
        page.write_text(text)
        report.save("x", [], "new", "python x.py", page)
        assert page.read_text() == text if "old" not in text else "new" in page.read_text()
        assert (capsys.readouterr().err == "page.md has no section of x: left as it is\n") == ("old" not in text)


def test_a_partial_run_leaves_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "save", lambda *told: pytest.fail("wrote the page"))
    args = train_step.arguments().parse_args(["--cases", "8x8:1"])
    command.save("train_step", args, [], "table")
    args = train_step.arguments().parse_args(["--device", "gpu", "--out", str(tmp_path)])
    command.save("train_step", args, [], "table")
    assert (tmp_path / "train_step-gpu.json").exists()


def test_the_compiled_functions_of_a_graph_are_counted():
    compiled = tf.function(lambda x: x * 2, jit_compile=True, input_signature=[tf.TensorSpec([3])])
    nested = tf.function(lambda x: compiled(x) + 1, autograph=False)
    graph = tf.function(lambda x: nested(compiled(x)), autograph=False)
    assert first_update.compiled_functions(graph.get_concrete_function(tf.TensorSpec([3]))) == (2, 1)


def test_a_variant_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="expected --only to name some of as it is, .*, received quickly"):
        first_update.chosen(first_update.VARIANTS["cpu"], ["quickly"])
    assert list(first_update.chosen(first_update.VARIANTS["gpu"], ["as it is"])) == ["as it is"]


def test_a_folder_of_golden_files_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["exactness.py", "--golden", str(tmp_path)])
    with pytest.raises(SystemExit, match="expected --golden to hold NAME.h5 with NAME.npz, received"):
        exactness.main()


@pytest.mark.usefixtures("eager")
def test_golden_files_by_precision(golden_dir):
    assert exactness.differences(golden_dir / "d2.h5", "exact") < 1e-4
    assert tf.config.experimental.tensor_float_32_execution_enabled() is False
    assert exactness.differences(golden_dir / "d2.h5", "bfloat16") > 1e-4
    assert tf.config.experimental.tensor_float_32_execution_enabled() is True


def test_data_sets_of_the_command():
    assert train_command.words_of("phantom") == ["--data", "phantom"]
    assert train_command.words_of("acdc=/data/ACDC") == ["--data", "acdc", "--data-dir", "/data/ACDC"]


def test_a_machine_without_a_driver_has_a_gpu_without_a_name(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert report.graphics() == "a GPU"
