"""Laws of refining one pair: a known motion is found, nothing gets worse, the model stays as it was."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter, map_coordinates

from hetmorph import config
from hetmorph.cli import options
from hetmorph.cli.models import INSTANCE_LAMBDA, Optimisation
from hetmorph.evaluation import POINTS_WEIGHT, Guide, wrap
from hetmorph.evaluation.predictor import Predictor
from hetmorph.instance import SIMILARITIES, LocalCorrelation, Refined, RefinementWarning, window_of
from hetmorph.losses import LNCC, MSE, NCC, Grad, MutualInformation
from hetmorph.metrics import endpoint_error, folds_percent
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.networks.build import build
from hetmorph.objectives import Smoothness
from hetmorph.ops import fields
from hetmorph.ops.warp import warp
from tests.graphs import eagerly
from tests.networks.models import FEATURES, lively


class Rest(Predictor):
    """Leaves every image where it is, and says which half of it counts."""

    def __init__(self, weighted=False):
        super().__init__(None)
        self.weighted = weighted

    def _run(self, moving, fixed):
        shape = tuple(moving.shape)
        results = {"displacement": np.zeros((*shape[:-1], len(shape) - 2)), "moved": moving}
        if self.weighted:
            half = np.zeros(shape)
            half[:, : shape[1] // 2] = 2.0
            results |= {"weight": half, "log_variance": np.zeros(shape)}
        return results


def smooth(rng, shape, sigma=3.0):
    image = gaussian_filter(rng.standard_normal(shape), sigma)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


def shifted(image, voxels):
    """image(x + voxels) along the first axis; the last rows repeat."""
    return np.concatenate([image[voxels:], np.repeat(image[-1:], voxels, 0)])


def known_warp(rng, shape, voxels):
    """A smooth displacement of up to so many voxels that does not fold, nought at the border."""
    bend = gaussian_filter(rng.standard_normal((*shape, len(shape))), (*(6.0 for _ in shape), 0), mode="constant")
    return fields.integrate((voxels * bend / np.abs(bend).max())[None].astype(np.float32)).numpy()[0]


def warped(image, displacement):
    return warp(image[None, ..., None], displacement[None]).numpy()[0, ..., 0]


@pytest.mark.quick("shape0-lbfgs")
@pytest.mark.parametrize(("shape", "optimizer"), [((32, 27), "lbfgs"), ((32, 27), "adam"), ((16, 18, 15), "lbfgs")])
def test_a_translation_is_found(rng, shape, optimizer):
    moving = smooth(rng, shape)
    refined = Refined(Rest(), 60, loss=MSE().loss, smoothness=1e-4, optimizer=optimizer)
    result = refined.refine(moving, shifted(moving, 2))
    inner = tuple(slice(4, -5) for _ in shape)
    assert min(result.losses) < 0.1 * result.losses[0]
    if optimizer == "lbfgs":  # Adam steps along the contours as far as across them
        expected = [2.0] + [0.0] * (len(shape) - 1)
        middle = np.median(result.displacement[inner].reshape(-1, len(shape)), 0)
        np.testing.assert_allclose(middle, expected, atol=0.15)
        np.testing.assert_allclose(result.moved[inner], shifted(moving, 2)[inner], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(56, 48), (28, 30, 26)])
def test_a_smooth_warp_of_several_voxels_is_undone_by_the_defaults(rng, shape):
    """Farther than the window of a voxel sees at full resolution, and without folds."""
    moving = smooth(rng, shape, 1.5)
    truth = known_warp(rng, shape, 4)
    fixed = warped(moving, truth)
    result = Refined(Rest()).refine(moving, 0.3 + 0.5 * fixed)  # another contrast and brightness
    inner = np.zeros(shape, bool)
    inner[tuple(slice(4, -4) for _ in shape)] = True
    before = endpoint_error(np.zeros_like(truth), truth, inner)
    assert before > 0.8 and endpoint_error(result.displacement, truth, inner) < 0.25 * before
    assert folds_percent(result.displacement) == 0 and result.loss < 0.3 * result.losses[0]


@pytest.mark.slow
def test_a_stack_of_few_slices(rng):
    """Windows and resolutions fit each axis; a single slice is a 2-D image."""
    assert (
        window_of((64, 64)) == [15, 15]
        and window_of((36, 36)) == [9, 9]
        and window_of((64, 64, 10)) == [7, 7, 3]
        and window_of((64, 64, 1), 8)[2] == 1
    )
    moving = smooth(rng, (24, 22, 3), (1.5, 1.5, 0.5))
    for count in (3, 1):
        pair = moving[..., :count], shifted(moving, 2)[..., :count]
        result = Refined(Rest(), 20).refine(*pair)
        assert np.median(result.displacement[6:-6, 6:-6, :, 0]) == pytest.approx(2, abs=0.2)


@pytest.mark.slow
def test_what_folds_is_shortened_and_said(rng):
    """Without smoothness, images that have nothing in common ask for folds."""
    images = [gaussian_filter(rng.random((32, 32)), 0.7).astype(np.float32) for _ in range(2)]
    refined = Refined(Rest(), 40, loss=lambda fixed, moved: 1e4 * MSE().loss(fixed, moved), smoothness=0.0)
    with pytest.warns(RefinementWarning, match=r"folded \d"):
        result = refined.refine(*images)
    assert folds_percent(result.displacement) <= 0.1 and result.loss <= result.losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [MSE().loss, NCC(win=5).loss, MutualInformation(nb_bins=16).loss])
def test_any_image_loss(rng, loss):
    moving = smooth(rng, (15, 15))  # no resolution but its own
    losses = Refined(Rest(), 10, loss=loss, smoothness=1e-3).refine(moving, shifted(moving, 2)).losses
    assert min(losses) < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("learning_rate", [50.0, 1e-3])
def test_never_worse_than_the_start(rng, learning_rate):
    """Steps far too long raise the loss at every turn: the answer is then the model's own."""
    moving = smooth(rng, (15, 15))
    fixed = shifted(moving, 1)
    refined = Refined(Rest(), 8, loss=MSE().loss, optimizer="adam", learning_rate=learning_rate, smoothness=1.0)
    with pytest.warns(RefinementWarning, match="is kept") if learning_rate > 1 else contextlib.nullcontext():
        result = refined.refine(moving, fixed)
    residual = np.mean((result.moved - fixed) ** 2)
    roughness = 2 * np.mean([np.mean(np.diff(result.displacement, axis=a) ** 2) for a in (0, 1)])
    assert residual + roughness == pytest.approx(result.loss, rel=1e-4)
    assert result.loss <= result.losses[0]
    if learning_rate > 1:
        assert not result.displacement.any()


@pytest.mark.usefixtures("eager")
def test_equal_images_stay_and_stop_at_once(rng):
    image = smooth(rng, (24, 24))
    result = Refined(Rest(), 50).refine(image, image)
    assert not result.displacement.any() and len(result.losses) < 5


@pytest.mark.usefixtures("eager")
def test_smoothness_is_that_of_training(rng):
    """λ·2‖∇u‖², the mean over voxels, components and axes."""
    moving, fixed = smooth(rng, (24, 24)), smooth(rng, (24, 24))
    model = lively(VxmDense((24, 24), FEATURES, int_steps=2), rng)
    for smoothness in (0.0, 0.7):
        refined = Refined(model, 1, loss=MSE().loss, smoothness=smoothness)
        start = refined.predictor(moving, fixed)
        rough = np.mean([np.mean(np.diff(start.displacement, axis=a) ** 2) for a in (0, 1)])
        expected = np.mean((start.moved - fixed) ** 2) + smoothness * 2 * rough
        assert refined.refine(moving, fixed).losses[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.quick("lbfgs")
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_network_is_refined_in_a_copy(rng, optimizer):
    model = lively(VxmDense((24, 20), FEATURES, int_steps=2), rng, 0.1)
    before = [w.copy() for w in model.get_weights()]
    moving = smooth(rng, (24, 20))
    fixed = shifted(moving, 2)
    refined = Refined(
        model, 10, of="network", loss=MSE().loss, optimizer=optimizer, learning_rate=1e-3, smoothness=0.01
    )
    first = refined.refine(moving, fixed)
    assert min(first.losses) < 0.95 * first.losses[0]
    refined.refine(fixed, moving)
    again = refined.refine(moving, fixed)  # a pair does not depend on those before it
    np.testing.assert_allclose(again.losses[0], first.losses[0], rtol=1e-5)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.quick("mse")
@pytest.mark.parametrize("objective", ["mse", "gradicon", "het-gradicon"])
def test_a_network_goes_on_with_what_it_was_trained_by(rng, objective):
    """The first loss is the one that `evaluate` reports; the model itself stays as it was."""
    network = {"features": FEATURES, "int_steps": 2}
    settings = {"network": network, "objective": {"name": objective}, "optimizer": {"decay": "none"}}
    with eagerly():
        model = build(config.from_dict(settings), (32, 32))
        moving = smooth(rng, (32, 32))
        pair = [image[None, ..., None] for image in (moving, shifted(moving, 2))]
        if objective != "het-gradicon":  # whose loss of a network's image is weighted by the voxels' variance
            expected = model.evaluate(tuple(pair), verbose=0)
        before = [w.copy() for w in model.get_weights()]
        refined = Refined(model, 8, of="network", loss="own", optimizer="adam", learning_rate=1e-3)
        result = refined.refine(moving, shifted(moving, 2))
    if objective != "het-gradicon":
        assert result.losses[0] == pytest.approx(np.ravel(expected)[0], rel=1e-4)
    assert result.loss < result.losses[0]
    np.testing.assert_allclose(refined.predictor(moving, shifted(moving, 2)).displacement, result.start.displacement)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def trained():
    """A small network of each method, with what it was trained by."""

    @functools.cache
    def of(objective):
        network = {"features": FEATURES, "int_steps": 2}
        settings = {"network": network, "objective": {"name": objective}, "optimizer": {"decay": "none"}}
        with eagerly():
            model, rng = build(config.from_dict(settings), (24, 24)), np.random.default_rng(3)
        model.set_weights([w + 0.03 * rng.standard_normal(w.shape) for w in model.get_weights()])
        return model

    return of


def own(model, pair, guide=None, **how):
    """The first loss of what a model was trained by."""
    with eagerly():
        return Refined(model, 1, of="network", loss="own", **how).refine(*pair, guide).losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["lncc2", "mind", LocalCorrelation(5).loss])
@pytest.mark.parametrize("objective", ["mse", "gradicon"])
def test_another_image_loss_takes_the_place_of_the_models_own(rng, trained, objective, similarity):
    """Alone: what else the model was trained by stays, with its weight."""
    pair, model = (smooth(rng, (24, 24)), smooth(rng, (24, 24))), trained(objective)
    moving, fixed = images = [tf.constant(image[None, ..., None]) for image in pair]
    moved = model(images, training=False)[:-1]
    views = list(zip((fixed, moving), moved, strict=False))
    before = MSE().loss if objective == "mse" else LNCC().loss
    after = SIMILARITIES[similarity][0] if isinstance(similarity, str) else similarity
    expected = sum(np.mean(after(*view)) - np.mean(before(*view)) for view in views)
    assert own(model, pair, similarity=similarity) - own(model, pair) == pytest.approx(expected, rel=1e-3)
    assert len(views) == (2 if objective == "gradicon" else 1) and abs(expected) > 0.01


@pytest.mark.slow
def test_what_a_model_was_trained_by_knows_masks_points_and_labels(rng, trained):
    """Of both directions the mean, as the terms of a training have it; what no mask holds adds nothing."""
    pair, model = (smooth(rng, (24, 24)), smooth(rng, (24, 24))), trained("gradicon")
    there, back = (wrap(model)(*images).displacement for images in (pair, pair[::-1]))
    spacing, points = np.array([2.0, 0.5]), rng.uniform(5, 18, (2, 3, 2))
    missed = [
        (a + np.stack([map_coordinates(axis, a.T, order=1) for axis in np.moveaxis(u, -1, 0)], -1) - b) * spacing
        for u, a, b in ((there, *points), (back, *points[::-1]))
    ]
    labels = [np.kron(np.eye(2, dtype=int), np.full((8, 8), 3)).repeat(3, 0)[at : at + 24, :16] for at in (6, 12)]
    labels = [np.pad(one, ((0, 0), (4, 4))) for one in labels]
    dice = [
        2 * np.sum(moved * target) / np.sum(moved + target)
        for moved, target in (
            (warped(np.float32(labels[1] == 3), there), labels[0] == 3),
            (warped(np.float32(labels[0] == 3), back), labels[1] == 3),
        )
    ]
    guide = Guide(
        points_fixed=points[0],
        points_moving=points[1],
        weight=0.3,
        spacing=spacing,
        labels_fixed=labels[0],
        labels_moving=labels[1],
        dice_weight=0.7,
    )
    expected = 0.3 * np.mean(np.sum(np.square(missed), -1)) + 0.7 * np.mean(1 - np.array(dice))
    assert own(model, pair, guide) - own(model, pair) == pytest.approx(expected, rel=1e-3)
    model, mask = trained("mse"), np.zeros((24, 24))
    mask[3:15, 4:20] = 1
    moved = wrap(model)(*pair).moved
    expected = np.mean((mask - 1) * (moved - pair[1]) ** 2)
    assert own(model, pair, Guide(mask)) - own(model, pair) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_labels_are_brought_together(rng):
    """Structures with smooth edges on flat images; slices know those of the whole, and others pull nothing."""
    labels = np.zeros((2, 28, 26), np.uint8)
    labels[0, 9:19, 8:18], labels[1, 12:22, 8:18], labels[1, :3, :3] = 2, 2, 7
    guide, flat = Guide(labels_fixed=labels[0], labels_moving=labels[1], dice_weight=1.0), np.zeros((28, 26))
    assert guide.structures == [2] and not guide.idle
    result = Refined(Rest(), 25, loss="mse").refine(flat, flat, guide)
    moved = warped(np.float32(labels[1] == 2), result.displacement) > 0.5
    a, b = (gaussian_filter(np.float64(one == 2), 1.0, truncate=3.0, mode="constant") for one in labels)
    assert result.losses[0] == pytest.approx(1 - 2 * np.sum(a * b) / np.sum(a**2 + b**2), abs=1e-4)
    assert 2 * np.sum(moved & (labels[0] == 2)) / np.sum(moved + np.float32(labels[0] == 2)) > 0.95
    stack = Guide(labels_fixed=labels[0][..., None], labels_moving=labels[1][..., None], dice_weight=2.0).slices(1)[0]
    assert stack.structures == [2] and stack.dice_weight == 2 and np.array_equal(stack.labels_moving, labels[1])


@pytest.mark.slow
def test_weighted_refinement_sees_what_counts(rng):
    """Only the upper half counts, so what differs in the lower one moves nothing there."""
    moving = smooth(rng, (32, 32))
    fixed = shifted(moving, 2)
    fixed[:16] = moving[:16]
    plain, weighted = (
        Refined(Rest(weighted=True), 30, loss=MSE().loss, smoothness=0.01, weighted=w).refine(moving, fixed)
        for w in (0, 1)
    )
    assert np.abs(plain.displacement[20:28]).mean() > 0.5
    assert np.abs(weighted.displacement[20:28]).mean() < 0.1


@pytest.mark.slow
def test_a_batch_is_its_pairs(rng):
    model = lively(HetVxmDense((24, 24), FEATURES, variance_features=FEATURES, int_steps=2), rng, 0.1)
    images = [smooth(rng, (24, 24)) for _ in range(4)]
    refined = Refined(model, 5, smoothness=0.01)
    batch = refined.predict_batch(images[:2], images[2:])
    for k in range(2):
        single = refined(images[k], images[k + 2])
        np.testing.assert_allclose(batch[k].displacement, single.displacement, atol=1e-3)
        np.testing.assert_allclose(batch[k].log_variance, model_variance(model, images[k], images[k + 2]), atol=1e-4)


def model_variance(model, moving, fixed):
    images = (tf.constant(x[None, ..., None]) for x in (moving, fixed))
    return model.predict_all(*images)["log_variance"][0, ..., 0]


@pytest.mark.usefixtures("eager")
def test_mistakes_are_named(rng):
    image = smooth(rng, (15, 15))
    with pytest.raises(ValueError, match="of to be one of"):
        Refined(Rest(), of="weights")
    with pytest.raises(ValueError, match="loss='own' goes with of='network'"):
        Refined(Rest(), loss="own")
    with pytest.raises(ValueError, match="needs a model that is compiled"):
        Refined(VxmDense((16, 16), FEATURES), of="network", loss="own")
    with pytest.raises(ValueError, match="similarity goes with loss='own'"):
        Refined(Rest(), similarity="mind")
    with pytest.raises(ValueError, match="similarity to be one of .*lncc2.*received 'pet'"):
        Refined(Rest(), loss="own", similarity="pet")
    (terms_alone := VxmDense((16, 16), FEATURES)).compile("adam", terms=[Smoothness(Grad("l2"))])
    with pytest.raises(ValueError, match="vxm_dense.* was not trained by an image loss of its own"):
        Refined(terms_alone, of="network", loss="own", similarity="mind")
    with pytest.raises(ValueError, match="needs a live model"):
        Refined(Rest(), of="network")
    with pytest.raises(ValueError, match="iterations >= 1"):
        Refined(Rest(), 0)
    with pytest.raises(ValueError, match="predicts a weight"):
        Refined(Rest(), weighted=True).refine(image, image)
    with pytest.raises(ValueError, match="count all voxels alike, received weighted=True"):
        volume = np.zeros((4, 4, 4))
        Refined(Rest(weighted=True), weighted=True).refine(volume, volume, Guide(volume=volume + 1))
    with pytest.raises(ValueError, match="mean over voxels"):
        Refined(Rest(), weighted=True, loss=MutualInformation().loss)
    with pytest.raises(ValueError, match="NaN"):
        Refined(Rest()).refine(np.full((15, 15), np.nan), image)
    asked = []
    with pytest.raises(ValueError, match="not finite"):
        Refined(Rest(), loss=lambda a, b: asked.append(1) or np.nan * tf.reduce_sum(b)).refine(image, image)
    assert asked == [1], "said at once"


def test_no_iterations_are_the_models_own_answer():
    assert Optimisation(0).after(predictor := Rest()) is predictor
    with pytest.raises(ValueError, match="0 or more iterations, received -1"):
        Optimisation(-1).after(predictor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hetmorph.instance.RefinementWarning")  # mean squares fold
@pytest.mark.parametrize("loss", ["mind", "ngf", "mi", "mse"])
def test_images_of_another_modality(rng, loss):
    """Of inverted contrast and another gamma: what looks for equal intensities fails, the others find the warp."""
    moving, truth = smooth(rng, (31, 30), 1.5), known_warp(rng, (31, 30), 3)
    result = Refined(Rest(), 25, loss=loss).refine(moving, 1 - warped(moving, truth) ** 0.6)
    inner = np.zeros(moving.shape, bool)
    inner[4:-4, 4:-4] = True
    before, after = (endpoint_error(u, truth, inner) for u in (np.zeros_like(truth), result.displacement))
    assert after > before if loss == "mse" else after < 0.35 * before


@pytest.mark.quick("mse")
@pytest.mark.parametrize("loss", ["ncc", "mse", "mi"])
def test_what_no_mask_holds_counts_nothing(rng, loss):
    """Whatever stands there, at every resolution, in windows and histograms, and where the moving mask is moved to."""
    moving, truth = smooth(rng, (31, 30), 1.5), known_warp(rng, (31, 30), 2)
    fixed, masks = warped(moving, truth), np.zeros((2, 31, 30))
    masks[0, 3:-8, 3:-3] = masks[1, 3:-3, 3:-10] = 1
    guide = Guide(*masks)
    refined = Refined(Rest(), 15, loss=loss)
    plain = refined.refine(moving, fixed, guide)
    spoilt = [np.where(mask, image, rng.random(image.shape)) for image, mask in ((moving, masks[1]), (fixed, masks[0]))]
    result = refined.refine(*spoilt, guide)
    assert np.abs(plain.displacement).max() > 0.5 and min(plain.losses) < plain.losses[0]
    np.testing.assert_allclose(result.displacement, plain.displacement, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("loss", [None, "mse", "mind", "ngf", MutualInformation().loss])
def test_a_mask_of_everything_is_none(rng, loss):
    moving, fixed = smooth(rng, (16, 15)), smooth(rng, (16, 15))
    whole = np.ones(moving.shape)
    refined = Refined(Rest(), 1, loss=loss)
    values = [refined.refine(moving, fixed, guide).losses[0] for guide in (None, Guide(whole, whole))]
    assert values[1] == pytest.approx(values[0], rel=1e-4)


@pytest.mark.usefixtures("eager")
def test_where_nothing_counts_the_models_own_answer_stays(rng):
    image, model = smooth(rng, (24, 20)), lively(VxmDense((24, 20), FEATURES, int_steps=2), rng)
    refined, guide = Refined(model, 5), Guide(np.zeros(image.shape))
    result = refined.refine(image, image, guide)
    np.testing.assert_array_equal(result.displacement, refined.predictor(image, image).displacement)
    assert guide.idle and result.displacement.any()


@pytest.mark.quick("3-shape1")
@pytest.mark.parametrize(("count", "shape"), [(1, (31, 28)), (3, (15, 14, 13))])
def test_points_are_brought_together(rng, count, shape):
    """φ takes those of the fixed image to those of the moving one, by the unit of the spacing, against equal images."""
    image, spacing = smooth(rng, shape), np.arange(1, len(shape) + 1) / 2
    points = rng.uniform(4, np.array(shape) - 7, (count, len(shape)))
    there = points + 2.5
    refined = Refined(Rest(), 25, smoothness=0.05)
    guide = Guide(points_fixed=points, points_moving=there, weight=1.0, spacing=spacing)
    result = refined.refine(image, image, guide)
    assert result.losses[0] == pytest.approx(np.sum((2.5 * spacing) ** 2), rel=1e-3)
    u = np.stack([map_coordinates(axis, points.T, order=1) for axis in np.moveaxis(result.displacement, -1, 0)], -1)
    missed = np.linalg.norm((points + u - there) * spacing, axis=-1)
    assert missed.mean() < 0.25 * np.linalg.norm(2.5 * spacing)


def test_the_points_of_a_stack_go_to_their_slices():
    fixed, moving = np.array([[1.0, 2.0, 0.2], [3.0, 4.0, 2.0]]), np.array([[1.5, 2.0, 0.0], [3.0, 5.0, 2.4]])
    slices = Guide(np.ones((6, 6, 3)), None, fixed, moving, spacing=(1, 2, 8)).slices(3)
    np.testing.assert_array_equal(slices[2].points_moving, [[3, 5]])
    assert slices[1].points_fixed is None and slices[0].mask_fixed.shape == (6, 6) and slices[0].spacing == (1, 2)
    with pytest.raises(ValueError, match="point 2 lies at slice 2.0 of the fixed image and 2.6 of the moving one"):
        Guide(points_fixed=fixed, points_moving=moving + [0, 0, 0.2]).slices(3)
    with pytest.raises(ValueError, match="point 2 lies at slice 2.0 of the fixed image, which has 0 to 1"):
        Guide(points_fixed=fixed, points_moving=moving).slices(2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hetmorph.instance.RefinementWarning")  # mean squares fold
def test_a_breath_is_found_by_its_mass(rng):
    """What is compressed becomes denser, which mean squares take for another place unless mass is conserved."""
    shape = (20, 22, 18)
    moving, truth = 0.3 + 0.7 * smooth(rng, shape, 1.5), known_warp(rng, shape, 2)
    fixed = warped(moving, truth) * fields.jacobian_determinant(truth[None]).numpy()[0]
    refined, inner = Refined(Rest(), 30, loss="mse"), np.pad(np.ones(np.subtract(shape, 8), bool), 4)
    plain, conserved = (
        endpoint_error(refined.refine(moving, fixed, guide).displacement, truth, inner)
        for guide in (None, Guide(volume=np.ones(shape)))
    )
    assert conserved < 0.7 * min(plain, endpoint_error(np.zeros_like(truth), truth, inner))


def labelled(fixed, moving):
    return Guide(labels_fixed=fixed, labels_moving=moving, dice_weight=1.0)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (lambda: Guide(np.ones((4, 4)), np.ones((4, 5))), r"masks of one shape, received \(4, 4\) and \(4, 5\)"),
        (lambda: Guide(points_fixed=np.ones((2, 2))), r"points \[P, N\] of either image, received \(2, 2\) and None"),
        (lambda: Guide(points_fixed=np.ones((0, 2)), points_moving=np.ones((0, 2))), r"received \(0, 2\) and \(0, 2\)"),
        (lambda: Guide(weight=-1.0), "0 or more, received -1"),
        (lambda: Guide(labels_fixed=np.ones((4, 4))), "labels of both images, received those of one"),
        (lambda: labelled(np.ones((4, 4)), np.ones((4, 5))), r"labels of one shape, received \(4, 4\) and \(4, 5\)"),
        (lambda: labelled(np.ones((8, 8)), np.full((8, 8), 2)), "labels with a structure in common"),
        (lambda: labelled(*np.ones((2, 4, 5))), r"labels of the images' shape \(8, 8\), received \(4, 5\)"),
        (lambda: Guide(volume=np.ones((8, 8))), r"volumes of two slices or more, received \(8, 8\)"),
        (lambda: Guide(volume=np.ones((8, 8, 1))), "volumes of two slices or more"),
        (lambda: Guide(volume=np.ones((8, 8, 8))), r"volumes of the images' shape \(8, 8\), received \(8, 8, 8\)"),
        (lambda: Guide(volume=np.ones((8, 8, 8))).slices(8), "mass is conserved by models of volumes; this one"),
        (lambda: Guide(np.ones((4, 5))), r"mask of the images' shape \(8, 8\), received \(4, 5\)"),
        (
            lambda: Guide(points_fixed=np.ones((2, 3)), points_moving=np.ones((2, 3))),
            r"points \[P, 2\], received \(2, 3",
        ),
    ],
)
def test_a_guide_that_does_not_fit(guide, message):
    with pytest.raises(ValueError, match=message):
        Refined(Rest(), 1).refine(np.zeros((8, 8)), np.zeros((8, 8)), guide())


def test_the_command_lets_a_models_own_image_loss_be_another(trained):
    refined = Optimisation(2, of="network", similarity="ncc", window=5).after(wrap(trained("gradicon")))
    assert refined._criterion.image_loss.__self__.side == 5
    Refined(trained("gradicon"), 2, of="network", loss="own", recompute=True)
    for how, message in (
        ({"window": 5}, "--instance-window has no effect with --instance-of network without --instance-similarity ncc"),
        ({"smoothness": 1.0}, "--instance-lambda has no effect with --instance-of network"),
        ({"similarity": "lncc", "window": 5}, "--instance-window 5 has no effect with --instance-similarity lncc"),
    ):
        with pytest.raises(ValueError, match=message):
            Optimisation(2, of="network", **how).check()


def test_what_the_command_says_of_the_optimisation_is_so():
    assert {name: smoothness for name, (_, smoothness) in SIMILARITIES.items()} == INSTANCE_LAMBDA
    assert options.POINTS_WEIGHT == POINTS_WEIGHT
