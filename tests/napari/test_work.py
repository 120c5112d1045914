"""What the plug-in does with two images, without a viewer."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hetmorph import registration
from hetmorph.io import Grid
from hetmorph.napari.layers import KEY, layers_of
from hetmorph.napari.work import Found, Refusal, register
from hetmorph.networks import VxmDense
from tests import anatomy
from tests.io.worlds import GRIDS_3D, moving_of
from tests.networks.models import FEATURES, lively

pytestmark = pytest.mark.usefixtures("eager")
PLANE = Grid((24, 20), np.diag([-1.5, -2.0, 1.0, 1.0]))
STACK = Grid((20, 18, 3), GRIDS_3D["oblique"].affine @ np.diag([1, 1, 2, 1]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Path of a small 2-D model that moves voxels."""
    path = tmp_path_factory.mktemp("model") / "vxm.keras"
    lively(VxmDense((16, 16), FEATURES, int_steps=2), np.random.default_rng(0), 0.3).save(path)
    return str(path)


def images(grid):
    """Moving and fixed image of other voxels each."""
    shift = 0.08 * anatomy.extent(grid) * np.array([1.0, -0.5, 0])
    own = moving_of(grid)
    moving, fixed = anatomy.image(own, shift, about=grid), anatomy.image(grid)
    return [dataclasses.replace(image, oriented=True, path=Path(name)) for image, name in ((moving, "m"), (fixed, "f"))]


def done(moving, fixed, uncertain=False, **options):
    """What the steps return, and what they say."""
    said = []
    return register(moving, fixed, options, uncertain, said.append), said


@pytest.mark.parametrize("grid", [PLANE, STACK], ids=["image", "stack"])
def test_it_is_the_registration_of_the_command(model, grid, request):
    pair = images(grid)
    found, said = done(*pair, uncertain=True, model=model, draws=2)
    assert isinstance(found, Found) and said[0] == "loading the model" and "2 times more" in said[-1]
    expected = registration.register(*pair, model)
    np.testing.assert_allclose(found.transform.displacement, expected.transform.displacement, atol=1e-4)
    layers = layers_of(found, ("m", "f"), "mm")
    kinds = [kind for _, _, kind in layers]
    assert kinds == ["image", "image", "vectors", "vectors"] and found.bound_mm is None
    (moved, look, _), (std, *_), *_, (_, arrows, _) = layers
    np.testing.assert_array_equal(moved.T, found.moved)
    assert std.shape == moved.shape and np.nanmax(std) > 0
    assert look["metadata"] is arrows["metadata"] and look["metadata"][KEY]["transform"] is found.transform
    index = (2,) * grid.ndim
    kept = look["metadata"]["displacement"]
    np.testing.assert_array_equal(kept[index], found.transform.displacement[index][::-1])
    assert kept.shape == (*moved.shape, grid.ndim)
    assert {tuple(one["units"]) for _, one, _ in layers} == {("mm",) * grid.ndim}


@pytest.mark.slow
def test_an_affine_stage_and_an_optimisation_need_no_model():
    pytest.importorskip("SimpleITK")
    found, said = done(*images(PLANE), model="undeformed", affine="rigid", instance_optimise=3)
    assert said[1] == "looking for the rigid transform"
    assert found.notes[0].startswith("rigid stage, from") and any(
        "optimised on this pair" in one for one in found.notes
    )
    assert found.about["settings"]["affine"] == "rigid" and found.flag in ("accept", "review", "reject")


@pytest.mark.slow
def test_a_calibration_beside_the_model_bounds_the_error():
    """That of a shipped model, with its own number of draws."""
    pytest.importorskip("SimpleITK")
    found, said = done(*images(Grid((32, 32), PLANE.affine)), uncertain=True, model="acdc_vxm_ncc", draws=2)
    assert said[-1] == "bounding the error" and "bound of the error" in found.reason
    assert found.bound_mm.shape == (32, 32) and np.nanmin(found.bound_mm) > 0
    names = [look["name"].split(",")[0] for _, look, kind in layers_of(found, ("m", "f")) if kind == "image"]
    assert names == ["moved: m → f", "uncertainty", "bound of the error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nobody"}, "no model 'nobody'"),
        ({"model": "undeformed", "instance_optimise": -1}, "must be 0 or more iterations"),
    ],
)
def test_what_is_wrong_is_told_in_the_line_of_the_command(options, message):
    found, _ = done(*images(PLANE), **options)
    assert isinstance(found, Refusal) and message in found.line and "\n" not in found.line


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(registration, "register", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        done(*images(PLANE), model="undeformed")


def test_what_the_data_make_one_doubt_is_a_note():
    moving, fixed = images(PLANE)
    found, _ = done(dataclasses.replace(moving, array=np.ones_like(moving.array)), fixed, model="undeformed")
    assert any("the moving image is constant" in note for note in found.notes)
