"""Laws of the equivariance map, on registrations whose answer is known."""

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.data.transforms import FAMILIES, Composition, Family, Rotation, Scale, Shear, Translation
from hetmorph.networks import VxmDense
from hetmorph.serving import export_savedmodel
from hetmorph.uncertainty import equivariance_uncertainty
from tests.uncertainty.fakes import Equivariant, Linear, Recorded, blob, by_centre_of_mass, smooth_map

pytestmark = pytest.mark.usefixtures("eager")

SHAPES = [(20, 24), (9, 10, 12)]
SILENT = {"progress": False}


def pair_of(shape):
    return np.random.default_rng(1).random((2, *shape), np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["translation", "shear", "scale", "rotation", "affine"])
def test_an_exactly_equivariant_registration_has_no_uncertainty(shape, name):
    family = Recorded(FAMILIES[name])
    result = equivariance_uncertainty(
        Equivariant(family, smooth_map(shape)), *pair_of(shape), family, n=8, batch=3, **SILENT
    )
    assert result.valid_share > 0.7
    assert np.nanmax(result.std) < 1e-5
    points = np.moveaxis(np.indices(shape), 0, -1)
    np.testing.assert_allclose((points + result.mean)[result.valid], smooth_map(shape)[result.valid], atol=1e-5)


def test_a_registration_by_images_alone_that_is_equivariant_to_translations():
    moving, fixed = blob((32, 36), (14, 18)), blob((32, 36), (17.3, 15.2))
    found = equivariance_uncertainty(by_centre_of_mass, moving, fixed, Translation(0.1), n=20, **SILENT)
    assert found.std[found.valid].max() < 1e-4
    np.testing.assert_allclose(found.mean[16, 18], (-3.3, 2.8), atol=0.01)
    scaled = equivariance_uncertainty(by_centre_of_mass, moving, fixed, Scale(0.9, 1.1), n=20, **SILENT)
    assert np.nanmax(scaled.std) > 0.5, "but not to scaling"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_is_applied_after_the_answer(shape):
    """g = τ∘φ; the other order, φ∘τ, has a large spread for the same registration."""
    family = Recorded(Composition((Rotation(10), Scale(), Shear(0.1))))
    register = Equivariant(family, smooth_map(shape))
    assert np.nanmax(equivariance_uncertainty(register, *pair_of(shape), family, n=6, **SILENT).std) < 1e-5
    points = np.moveaxis(np.indices(shape).astype(float), 0, -1)
    register.calls, wrong = 0, []
    for transform in family.maps:
        field = register(*pair_of(shape))
        where = np.moveaxis(transform(points), -1, 0)
        wrong.append(
            transform(points)
            + np.stack([ndimage.map_coordinates(f, where, order=1) for f in np.moveaxis(field, -1, 0)], -1)
        )
    assert np.std(wrong, axis=0).max() > 0.5


def test_the_moving_image_is_pulled_through_the_transform():
    """The network sees A∘τ, A at τ(x), and the fixed image as it is."""
    seen, (moving, fixed) = [], pair_of((16, 18))
    matrix, offset = np.array([[1.0, 0.2], [0.0, 0.9]]), np.array([0.5, 1.5])

    def register(image, target):
        seen.append(image)
        np.testing.assert_array_equal(target, fixed)
        return np.zeros((*image.shape, 2))

    equivariance_uncertainty(register, moving, fixed, Linear(matrix, offset), n=2, **SILENT)
    where = np.einsum("ij,jxy->ixy", matrix, np.indices((16, 18))) + offset[:, None, None]
    np.testing.assert_allclose(seen[0], ndimage.map_coordinates(moving, where, order=1, mode="nearest"), atol=1e-5)


@pytest.mark.parametrize("matrix", [np.eye(2), np.array([[1.1, 0.2], [0.0, 0.9]])])
def test_additive_noise_gives_its_covariance_in_the_frame_of_the_transform(rng, matrix):
    """Intrinsic spread J Σ Jᵀ; with translations J = 1."""
    root = np.array([[0.3, 0.0], [0.1, 0.2]])
    shape = (30, 30)
    family = Recorded(Linear(matrix))
    register = Equivariant(family, smooth_map(shape), lambda _: rng.normal(size=(*shape, 2)) @ root.T)
    result = equivariance_uncertainty(register, *pair_of(shape), family, n=60, **SILENT)
    expected = matrix @ root @ root.T @ matrix.T
    mean = result.covariance[result.valid].mean(0)
    # 30 × 30 voxels of 59 degrees of freedom: the standard error is below 1 %.
    np.testing.assert_allclose(mean, expected, rtol=0.05, atol=0.001)
    np.testing.assert_allclose(result.std[result.valid] ** 2, result.variances[result.valid].sum(-1), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_bias_under_scaling_gives_the_jitter_of_the_formula(shape):
    """Cov[J μ] = Var[s] μ μᵀ, for the scales that were drawn."""
    family, bias = Recorded(Scale(0.9, 1.1)), np.array([0.7, -0.4, 0.2])[: len(shape)]
    register = Equivariant(family, smooth_map(shape), lambda _: bias)
    result = equivariance_uncertainty(register, *pair_of(shape), family, n=12, **SILENT)
    scales = [(one(np.ones((1, len(shape)))) - one(np.zeros((1, len(shape)))))[0, 0] for one in family.maps]
    expected = np.var(scales, ddof=1) * np.outer(bias, bias)
    always = result.count == 12
    assert always.sum() > 20
    difference = result.covariance[always] - expected
    assert np.abs(difference).max() < 1e-6


def test_samples_tell_the_two_terms_apart(rng):
    shape, bias, sigma, samples = (24, 24), np.array([3.0, 4.0]), 0.6, 4
    family = Recorded(Scale(0.8, 1.2))
    register = Equivariant(
        family, smooth_map(shape), lambda _: bias + sigma * rng.normal(size=(*shape, 2)), samples=samples
    )
    result = equivariance_uncertainty(register, *pair_of(shape), family, n=30, samples=samples, batch=7, **SILENT)
    scales = np.array([(one(np.ones((1, 2))) - one(np.zeros((1, 2))))[0, 0] for one in family.maps])
    inner = (slice(8, 16), slice(8, 16))
    assert register.calls == result.passes == 120 and (result.count[inner] == 30).all()
    assert result.intrinsic[inner].mean() == pytest.approx(np.mean(scales**2) * 2 * sigma**2, rel=0.05)
    assert result.jitter[inner].mean() == pytest.approx(np.var(scales, ddof=1) * 25, rel=0.12)
    whole = result.intrinsic + result.jitter
    np.testing.assert_allclose(whole[inner], result.std[inner] ** 2, rtol=1e-4)


def test_without_noise_there_is_jitter_only():
    family = Recorded(Scale())
    register = Equivariant(family, smooth_map((20, 20)), lambda _: 1.0, samples=3)
    result = equivariance_uncertainty(register, *pair_of((20, 20)), family, n=5, samples=3, **SILENT)
    assert np.nanmax(result.intrinsic) < 1e-8
    np.testing.assert_allclose(result.jitter[result.valid], result.std[result.valid] ** 2, rtol=1e-4, atol=1e-9)


@pytest.fixture(scope="module")
def model():
    network = VxmDense((16, 24), [[4, 4], [4, 4]], int_steps=2)
    rng = np.random.default_rng(0)
    network.set_weights([w + 0.1 * rng.normal(size=w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


def test_identity_transforms_give_zero(model):
    result = equivariance_uncertainty(model, *pair_of((16, 24)), Linear(np.eye(2)), n=4, batch=2, **SILENT)
    assert np.nanmax(result.std) < 1e-6
    expected = model.register(*(image[None, ..., None] for image in pair_of((16, 24))))[0]
    np.testing.assert_allclose(result.mean[result.valid], expected[result.valid], atol=1e-6)


def test_the_map_moves_with_the_images(rng):
    """Of a registration that does not care where things are, under translations, which have no centre."""
    image = np.zeros((2, 48, 48), np.float32)
    image[:, 16:28, 16:28] = rng.random((2, 12, 12))

    def register(moving, fixed):
        difference = ndimage.gaussian_filter(np.float64(moving - fixed), 1.0, truncate=2, mode="constant")
        return 3 * np.stack([difference, difference**2], -1)

    here, there = (
        equivariance_uncertainty(register, *np.roll(image, (k, -k), (1, 2)), Translation(0.05), n=10, **SILENT)
        for k in (0, 5)
    )
    inner = (slice(10, 38), slice(10, 38))
    assert here.std[inner].max() > 0.1
    np.testing.assert_allclose(np.roll(here.std, (5, -5), (0, 1))[inner], there.std[inner], atol=1e-5)


@pytest.mark.slow
@pytest.mark.graph
def test_every_form_of_a_model_gives_the_same_map(model, tmp_path):
    import tensorflow as tf

    model.save(tmp_path / "model.keras")
    exported = export_savedmodel(model, tmp_path / "exported")

    class Client:
        """As a program that asks a server would have it."""

        def register(self, moving, fixed):
            return {"displacement": model.register(moving, fixed)}

    def one_pair(moving, fixed):
        return model.register(moving[None, ..., None], fixed[None, ..., None])[0]

    forms = [tmp_path / "model.keras", str(exported), tf.saved_model.load(str(exported)), Client(), one_pair]
    first = equivariance_uncertainty(model, *pair_of((16, 24)), n=5, **SILENT)
    assert np.nanmax(first.std) > 0.01
    for form in forms:
        other = equivariance_uncertainty(form, *pair_of((16, 24)), n=5, **SILENT)
        np.testing.assert_allclose(other.std, first.std, atol=1e-4, err_msg=str(form))


def test_the_batch_is_immaterial_and_the_seed_is_not(model):
    results = [
        equivariance_uncertainty(model, *pair_of((16, 24)), "bspline", n=7, batch=batch, seed=seed, **SILENT).std
        for batch, seed in ((1, 3), (4, 3), (50, 3), (4, 4))
    ]
    for one in results[1:3]:
        np.testing.assert_allclose(one, results[0], atol=1e-4)
    assert np.nanmax(np.abs(results[3] - results[0])) > 0.01


def test_voxels_that_leave_the_image_are_masked_and_counted():
    """Scaled to a half, the moving image's points return from twice as far: half of each axis stays inside."""
    family = Recorded(Linear(0.5 * np.eye(2)))
    points = np.moveaxis(np.indices((16, 16)).astype(float), 0, -1)
    result = equivariance_uncertainty(Equivariant(family, points), *pair_of((16, 16)), family, n=4, **SILENT)
    inside = (points <= 7.75).all(-1)
    np.testing.assert_array_equal(result.valid, inside)
    np.testing.assert_array_equal(result.count, 4 * inside)
    assert np.isnan(result.std[~inside]).all() and np.isfinite(result.std[inside]).all()
    assert np.isnan(result.mean[~inside]).all() and result.valid_share == pytest.approx(0.25)


def test_voxels_that_come_from_beyond_the_moving_image_are_masked():
    """φ* lies three voxels further: every answer is inside the perturbed image, but not every g in the moving one."""
    points = np.moveaxis(np.indices((16, 16)).astype(float), 0, -1)
    family = Recorded(Linear(np.eye(2), 3.0))
    result = equivariance_uncertainty(Equivariant(family, points + 3), *pair_of((16, 16)), family, n=4, **SILENT)
    np.testing.assert_array_equal(result.valid, (points <= 12).all(-1))


def test_half_of_the_draws_must_stay():
    class Alternating(Family):
        """Every third map is far away."""

        drawn = 0

        def draw(self, rng, shape):
            self.drawn += 1
            return lambda points, far=100 * (self.drawn % 3 == 0): points + far

    def still(moving, fixed):
        return np.zeros((*moving.shape, 2))

    assert equivariance_uncertainty(still, *pair_of((8, 8)), Alternating(), n=9, **SILENT).count.max() == 6
    with pytest.raises(ValueError, match="every voxel is masked"):
        equivariance_uncertainty(still, *pair_of((8, 8)), Linear(np.eye(2), 100.0), n=4, **SILENT)


def test_the_diagonal_alone_is_the_diagonal(model):
    whole, lean = (
        equivariance_uncertainty(model, *pair_of((16, 24)), n=4, covariance=flag, **SILENT) for flag in (True, False)
    )
    assert lean.covariance is None
    np.testing.assert_allclose(lean.variances, whole.variances, rtol=1e-6)
    np.testing.assert_allclose(lean.std_mm((2, 3)), whole.std_mm((2, 3)), rtol=1e-5)


def test_a_progress_bar_counts_the_passes(model, capsys):
    equivariance_uncertainty(model, *pair_of((16, 24)), n=4)
    assert "equivariance: 100%" in (text := capsys.readouterr().err) and "4/4" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "at least 2 transforms"),
        ({"samples": 0}, "samples of at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"transforms": "wobble"}, "transforms must be a Family"),
        ({"moving": np.full((16, 24), np.nan)}, "moving image holds NaN"),
        ({"fixed": np.full((16, 24), np.inf)}, "fixed image holds NaN or infinity"),
        ({"fixed": np.zeros((16, 20))}, r"same shape.*16, 24\) and .*16, 20\)"),
        ({"moving": np.zeros((1, 16, 24, 1)), "fixed": np.zeros((1, 16, 24, 1))}, "without channel axis"),
        ({"model": lambda m, f: np.full((*m.shape, 2), np.nan)}, "displacement that holds NaN"),
        ({"model": lambda m, f: np.zeros((*m.shape, 3))}, r"shape \(16, 24, 2\).*got \(16, 24, 3\)"),
        ({"model": 3}, "expected a registration model"),
        ({"samples": 2}, "always answers the same"),
    ],
)
def test_bad_input_is_told(model, change, message):
    moving, fixed = pair_of((16, 24))
    arguments = {"model": model, "moving": moving, "fixed": fixed, "n": 3} | change
    with pytest.raises(ValueError, match=message):
        equivariance_uncertainty(**arguments, **SILENT)


def test_a_transform_must_keep_the_shape():
    class Broken(Family):
        def draw(self, rng, shape):
            return lambda points: points[..., :1]

    with pytest.raises(ValueError, match=r"must take points \(8, 8, 2\)"):
        equivariance_uncertainty(lambda m, f: np.zeros((8, 8, 2)), *pair_of((8, 8)), Broken(), **SILENT)
