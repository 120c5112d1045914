"""The widget and the layers of a viewer, without its window, which needs OpenGL."""

import os
import time

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
napari = pytest.importorskip("napari", reason='no napari: pip install "hetmorph[napari]" "napari[pyqt6]"')
pytest.importorskip("qtpy.QtWidgets", reason='no Qt: pip install "napari[pyqt6]"')
npe2 = pytest.importorskip("npe2")

from napari.components import ViewerModel  # noqa: E402

from hetmorph.io import read_transform  # noqa: E402
from hetmorph.napari import widget as module  # noqa: E402
from hetmorph.napari import work  # noqa: E402

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(scope="module")
def application():
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


@pytest.fixture
def viewer(application):
    return ViewerModel()


@pytest.fixture
def told(monkeypatch):
    """What the user is notified of, by its kind."""
    said = []
    for kind in ("error", "warning", "info"):
        monkeypatch.setattr(module, f"show_{kind}", lambda text, kind=kind: said.append((kind, text)))
    return said


def opened(viewer, **options):
    """The widget in the dock, the phantom chosen."""
    found = work.phantom()
    place = {"scale": found.pop("spacing")[::-1], "translate": (48, 60), "units": ["mm", "mm"]}
    for name, array in found.items():
        viewer.add_image(array.T[32:96, 40:88], name=name, **place)
    made = module.RegisterWidget(viewer)
    made.reset_choices()
    made._moving.value, made._fixed.value = viewer.layers[0], viewer.layers[1]
    for name, value in ({"model": "undeformed"} | options).items():
        getattr(made, f"_{name}").value = value
    return made


def run(made, application):
    made.register()
    end = time.monotonic() + 300
    while not made._register.enabled and time.monotonic() < end:
        application.processEvents()
        time.sleep(0.01)
    assert made._register.enabled, "the worker has not come back"


def test_the_manifest_is_valid():
    manifest = npe2.PluginManifest.from_file(module.__file__.replace("widget.py", "napari.yaml"))
    manifest.validate_imports()
    assert manifest.name == "hetmorph" and manifest.contributions.widgets


def test_two_layers_are_registered_and_saved(viewer, application, told, tmp_path):
    made = opened(viewer, iterations=2)
    viewer.layers[0].scale = (3.0, 3.0)  # voxels twice as large, at another place
    viewer.layers[0].data = viewer.layers[0].data[::2, ::2]
    run(made, application)
    assert not [text for kind, text in told if kind == "error"]
    names = [layer.name.split(":")[0] for layer in viewer.layers[2:]]
    assert names == ["moved", "deformation grid", "displacement"]
    moved, fixed = viewer.layers[2], viewer.layers[1]
    assert moved.data.shape == fixed.data.shape
    np.testing.assert_allclose(moved.extent.world, fixed.extent.world)
    assert "verdict: " in made._status.value
    for name in ("u.nii.gz", "u.tfm"):
        if name.endswith("tfm"):
            pytest.importorskip("SimpleITK")
        made.save(tmp_path / name)
        assert told[-1] == ("info", f"wrote {tmp_path / name}")
        theirs = read_transform(tmp_path / name)
        kept = moved.metadata["displacement"].swapaxes(0, 1)[..., ::-1]
        np.testing.assert_allclose(theirs.displacement, kept, atol=1e-3)


def test_what_is_wrong_is_a_notification_of_one_line(viewer, application, told, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "steps", work.steps)  # in this process
    made = opened(viewer)
    made.save(tmp_path / "u.nii.gz")
    assert told == [("error", "no layer of this viewer holds a displacement: register two first")]
    viewer.add_image(np.zeros((4, 4, 3)), rgb=True, name="colours")
    made.reset_choices()
    made._moving.value = viewer.layers["colours"]
    made.register()
    assert told[-1] == ("error", "colours: expected grey voxels of one resolution, received an image of colours")
    made._moving.value, made._model.value, made._path.value = viewer.layers[0], module.OF_A_FILE, tmp_path / "no.keras"
    run(made, application)
    kind, text = told[-1]
    assert kind == "error" and "no such file" in text and "\n" not in text
    assert len(viewer.layers) == 3
