"""Image losses of the voxels that count: laws that hold for every one of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from hetmorph.losses import (
    LNCC,
    MIND,
    MSE,
    NCC,
    NGF,
    AdaFrame,
    GlobalNCC,
    MutualInformation,
    SquaredLNCC,
    TukeyBiweight,
)
from hetmorph.losses.adaptive import residual_scale
from hetmorph.losses.likelihood import beta_nll, relative_weight
from hetmorph.losses.within import InMask, counting, loss_within, within
from hetmorph.ops.masks import Counted, counted_mean, weighted_mean

SIZE = (14, 18)
LOSSES = [
    MSE(),
    MSE(smoothing=1.0),
    TukeyBiweight(0.2),
    NCC(win=5),
    NCC(win=[3, 4], signed=True),
    LNCC(1.5),
    SquaredLNCC(1.0),
    GlobalNCC(),
    AdaFrame(),
    MutualInformation(nb_bins=8),
    MIND(radius=1, dilation=1),
    NGF(),
]
REACH = {"MIND": 3, "NGF": 1}  # voxels beside one that such a loss looks at, mask or not
each = pytest.mark.parametrize("loss", LOSSES, ids=repr)


@pytest.fixture
def images(rng):
    smooth = gaussian_filter(rng.normal(size=(2, 2, *SIZE, 1)), (0, 0, 1, 1, 0))
    return [tf.constant((one - smooth.min()) / np.ptp(smooth), tf.float32) for one in smooth]


@pytest.fixture
def mask(rng):
    """Another region in each sample, some voxels counted by half."""
    there = np.zeros((2, *SIZE, 1), np.float32)
    there[0, 3:10, 4:15], there[1, :6, 2:9] = 1, 1
    there[0, 5, 6], there[1, 2, 3] = 0.5, 0.25
    return tf.constant(there)


@each
def test_a_mask_of_ones_is_none(loss, images):
    fixed, moved = images
    np.testing.assert_allclose(within(loss)(fixed, moved, tf.ones_like(fixed)), loss.loss(fixed, moved), atol=2e-6)


@each
def test_what_lies_outside_has_no_influence(loss, images, mask, rng):
    """On the value and on the gradient, which is 0 there; each sample has its own mask."""
    near = tf.constant(_dilated(mask.numpy(), REACH.get(type(loss).__name__, 0)))
    others = [tf.where(near, image, tf.constant(rng.uniform(-1, 2, image.shape), tf.float32)) for image in images]
    values, gradients = [], []
    for fixed, moved in (images, others):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            value = within(loss)(fixed, moved, mask)
        values.append(value)
        gradients.append(tape.gradient(value, moved))
    assert np.abs(values[0]).min() > 1e-5 and np.abs(gradients[0]).max() > 1e-5
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(*gradients, atol=1e-5)
    assert not np.any(gradients[0].numpy()[~near.numpy()])


@each
def test_an_empty_mask_gives_a_number(loss, images):
    fixed, moved = images
    with tf.GradientTape() as tape:
        tape.watch(moved)
        value = loss_within(loss, fixed, moved, Counted(tf.zeros_like(fixed), tf.zeros([2])))
    np.testing.assert_array_equal(value, 0)
    assert np.isfinite(tape.gradient(value, moved)).all()


@each
def test_a_sample_does_not_depend_on_its_batch(loss, images, mask):
    whole = within(loss)(*images, mask)
    alone = tf.concat([within(loss)(*(x[i : i + 1] for x in (*images, mask))) for i in range(2)], 0)
    assert whole.shape == (2,)
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-7)


def test_windows_hold_what_counts_alone(images, mask):
    """Of `NCC` in numpy, at one voxel of the rim; zeros beyond the image are in the window, as in VoxelMorph's."""
    fixed, moved = (image.numpy()[1, ..., 0].astype(float) for image in images)
    weight = mask.numpy()[1, ..., 0].astype(float)
    window = np.s_[0:3, 4:9]  # of voxel (0, 6), rows -2 and -1 lie outside
    outside = 10
    a, b, w = fixed[window].ravel(), moved[window].ravel(), weight[window].ravel()
    total = w.sum() + outside

    def covariance(x, y):
        return (w * x * y).sum() - (w * x).sum() * (w * y).sum() / total

    expected = covariance(a, b) ** 2 / (covariance(a, a) * covariance(b, b)) if covariance(a, b) > 1e-5 else None
    found = NCC(win=5).ncc(images[0], images[1], mask).numpy()[1, 0, 6, 0]
    assert expected is not None
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_smoothed_residual_is_that_of_what_counts(images, mask):
    residual, weight = (images[0] - images[1]).numpy()[0, ..., 0].astype(float), mask.numpy()[0, ..., 0].astype(float)
    smooth = [gaussian_filter(x, 1.0, mode="constant", radius=3) for x in (weight * residual, weight)]
    expected = np.divide(smooth[0], smooth[1], where=smooth[1] > 0.2, out=np.zeros(SIZE)) ** 2
    found = MSE(smoothing=1.0).voxelwise(*images, mask).numpy()[0, ..., 0]
    inner = np.s_[3:-4, 3:-3]  # at the border of the image zeros are smoothed in
    np.testing.assert_allclose(np.where(smooth[1] > 0.2, found, 0)[inner], expected[inner], atol=1e-5)


def test_means_of_what_counts(images, mask):
    values, weight = images[0].numpy(), mask.numpy()
    expected = (values * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    np.testing.assert_allclose(weighted_mean(images[0], mask), expected, rtol=1e-5)
    np.testing.assert_allclose(counted_mean(images[0], Counted(mask, tf.constant([0.5, 2.0]))), expected * [0.5, 2])
    np.testing.assert_allclose(counted_mean(images[0]), values.mean((1, 2, 3)), rtol=1e-6)


def test_the_weight_of_voxels_and_the_likelihood_are_of_what_counts(images, mask, rng):
    near = mask > 0
    ratio, squared = images
    other = tf.where(near, ratio, tf.constant(rng.uniform(5, 9, ratio.shape), tf.float32))
    weights = [relative_weight(x, "sample", mask, mask) for x in (ratio, other)]
    np.testing.assert_allclose(weighted_mean(weights[0], mask), 1, rtol=1e-5)
    for one in (0, 1):
        np.testing.assert_allclose(*(x.numpy()[one][near.numpy()[one]] for x in weights), rtol=1e-5)
    everywhere = tf.ones_like(ratio)
    np.testing.assert_allclose(relative_weight(ratio, "sample", None, everywhere), relative_weight(ratio), rtol=1e-6)
    counted = Counted(mask, tf.ones([2]))
    likelihoods = [beta_nll(squared, x, tf.math.log(x + 0.1), 0.5, counted) for x in (ratio, other)]
    np.testing.assert_allclose(*likelihoods, rtol=1e-5)
    scales = [residual_scale(x, squared, x, mask) for x in (ratio, other)]
    np.testing.assert_allclose(*scales, rtol=1e-5)


def test_losses_of_compile_learn_what_counts_when_they_are_computed(images, mask):
    losses = InMask.each([MSE().loss, "mse", None, NCC(win=5).loss], ["a", "b", "c", "field"])
    assert losses[2] is None and losses[3].owner.win == 5  # the last is no image
    np.testing.assert_array_equal(losses[0](*images), MSE().loss(*images))
    with counting([Counted(mask, tf.constant([0.3, 0.2])), None, None]):
        np.testing.assert_allclose(losses[0](*images), [0.3, 0.2] * within(MSE())(*images, mask), rtol=1e-6)
        np.testing.assert_array_equal(losses[1](*images), keras.losses.mean_squared_error(*images))
    np.testing.assert_array_equal(losses[0](*images), MSE().loss(*images))
    named = InMask.each({"b": MSE().loss, "field": None}, ["a", "b", "field"])
    assert named["b"].view == 1 and named["field"] is None


def test_a_loss_that_is_no_mean_over_voxels_is_refused(images, mask):
    with pytest.raises(ValueError, match="mean over voxels"):
        within(lambda fixed, moved: 0.0)(*images, mask)


def _dilated(mask, reach):
    there = np.pad(mask > 0, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    rows, columns = mask.shape[1:3]
    shifts = [(i, j) for i in range(2 * reach + 1) for j in range(2 * reach + 1)]
    return np.any([there[:, i : i + rows, j : j + columns] for i, j in shifts], 0)
