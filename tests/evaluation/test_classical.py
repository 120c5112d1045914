"""Classical programs: the sign, the axes and the unit of what they return."""

import importlib.util
import sys

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.evaluation import PROGRAMS, RegistrationFailed, load
from hetmorph.evaluation.classical import EXTRA, BSpline, Demons
from tests.reference import smooth_field, warp

NEEDS = {"demons": "SimpleITK", "bspline": "SimpleITK", "undeformed": None}
REGISTERING = [name for name in PROGRAMS if name != "undeformed"]


def program(name):
    package = NEEDS.get(name, "ants")
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} needs the package {package}")
    return load(name)


def texture(shape, seed=0):
    """A smooth random object in the middle of the image, [0, 1]."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 3)
    values = (values - values.min()) / np.ptp(values)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return (values * np.exp(-3 * sum(x**2 for x in grid))).astype(np.float32)


def moved_by(image, displacement):
    """The fixed image that this displacement registers exactly, sampled by scipy."""
    return warp(image[..., None], displacement)[..., 0].astype(np.float32)


@pytest.mark.quick(
    *(f"shape{i}-shift{i}-{name}" for i in (0, 1) for name in REGISTERING if (i, name) != (1, "bspline"))
)
@pytest.mark.parametrize("name", REGISTERING)
@pytest.mark.parametrize(("shape", "shift"), [((48, 40), (2.5, -1.5)), ((24, 22, 20), (1.5, -1.0, 0.5))])
def test_a_translation_is_found_with_its_sign_on_every_axis(name, shape, shift):
    moving = texture(shape)
    fixed = moved_by(moving, np.broadcast_to(shift, (*shape, len(shape))))
    prediction = program(name)(moving, fixed)
    assert prediction.displacement.shape == (*shape, len(shape))
    bright = fixed > 0.15
    found = [prediction.displacement[..., axis][bright].mean() for axis in range(len(shape))]
    np.testing.assert_allclose(found, shift, atol=0.5)
    assert np.mean((prediction.moved - fixed) ** 2) < 0.1 * np.mean((moving - fixed) ** 2)


@pytest.mark.parametrize("name", REGISTERING)
def test_a_warp_is_found_on_an_image_that_is_not_square(name):
    moving = texture((64, 48), seed=1)
    truth = smooth_field(np.random.default_rng(2), (64, 48), 3.0, sigma=10)
    fixed = moved_by(moving, truth)
    prediction = program(name)(moving, fixed)
    bright = fixed > 0.15
    before, after = (np.linalg.norm(u, axis=-1)[bright].mean() for u in (truth, prediction.displacement - truth))
    assert after < 0.6 * before
    np.testing.assert_allclose(prediction.moved, moved_by(moving, prediction.displacement), atol=1e-4)


def test_splines_are_composed_in_the_order_they_were_found():
    moving = texture((64, 48), seed=1)
    fixed = moved_by(moving, smooth_field(np.random.default_rng(4), (64, 48), 8.0, sigma=10))
    moved = program("bspline")(moving, fixed).moved
    assert np.mean((moved - fixed) ** 2) < 0.01 * np.mean((moving - fixed) ** 2), "0.026 in the other order"


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_images_same_result(name):
    moving, fixed = texture((32, 40)), texture((32, 40), seed=1)
    one, other = program(name)(moving, fixed), program(name)(moving, fixed)
    np.testing.assert_array_equal(one.displacement, other.displacement)
    assert one.log_variance is None and one.weight is None


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_constant_image_leaves_everything_where_it_is(name):
    flat, image = np.full((32, 40), 0.5, np.float32), texture((32, 40))
    for moving, fixed in ((flat, image), (image, flat), (flat, flat)):
        assert not program(name)(moving, fixed).displacement.any()


@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_images_are_refused_as_by_any_model(name):
    image = texture((32, 40))
    with pytest.raises(ValueError, match="2-D or 3-D images"):
        program(name)(image[0], image[0])
    with pytest.raises(ValueError, match="same shape"):
        program(name)(image, image.T)
    with pytest.raises(ValueError, match="moving image holds NaN"):
        program(name)(np.full((32, 40), np.nan), image)


def test_undeformed_moves_nothing():
    image = texture((8, 6, 4))
    prediction = load("undeformed")(image, image[::-1])
    assert not prediction.displacement.any()
    np.testing.assert_array_equal(prediction.moved, image)


def test_small_images_are_not_shrunk_away():
    for predictor in (program("demons"), program("bspline")):
        image = texture((17, 20))
        assert np.isfinite(predictor(image, np.roll(image, 1, 0)).displacement).all()


@pytest.mark.parametrize("name", REGISTERING)
def test_a_missing_package_names_the_extra(name, monkeypatch):
    for package in ("SimpleITK", "ants"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="classical"):
        load(name)
    assert '".[classical]"' in EXTRA


@pytest.mark.parametrize(
    ("said", "reason"), [("line one\nITK ERROR: no luck", "ITK ERROR: no luck"), ("", "no reason given")]
)
def test_a_failure_of_the_program_names_it(monkeypatch, said, reason):
    def fail(self, moving, fixed):
        raise RuntimeError(said)

    program("demons")
    monkeypatch.setattr(Demons, "displacement", fail)
    with pytest.raises(RegistrationFailed, match=f"Demons: {reason}"):
        load("demons")(texture((32, 40)), texture((32, 40), 1))


def test_threads_are_for_programs(tmp_path):
    program("bspline")
    assert load("bspline", threads=2).threads == 2 and BSpline().threads == 1
    with pytest.raises(ValueError, match="at least 1, got 0"):
        load("bspline", threads=0)
    with pytest.raises(ValueError, match="threads are for classical programs"):
        load(tmp_path, threads=2)
