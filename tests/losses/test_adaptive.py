"""Losses of the adaptive baselines and of the velocity's posterior."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import AdaFrame, Grad, SmoothPosterior
from hetmorph.losses.adaptive import frame_weight, residual_scale
from tests.contract import check_loss


def images(ndims, batch, rng):
    return rng.random((2, batch, *[6] * ndims, 1))


def fields(ndims, batch, rng):
    return rng.normal(size=(2, batch, *[6] * ndims, 2 * ndims))


def test_contracts():
    check_loss(AdaFrame, {}, images, ndims=[1, 2, 3], differences=False)  # its weights are held fixed
    check_loss(SmoothPosterior, {"smoothness": 0.1, "alpha": 0.2, "loss_mult": 2}, fields, ndims=[1, 2, 3])


def test_outstanding_voxels_get_less_weight(rng):
    residual = np.full((1, 8, 8, 1), 0.1, "float32")
    residual[0, 3, 3] = 0.9
    weight = frame_weight(tf.constant(residual)).numpy()[0, ..., 0]
    assert weight[3, 3] < weight[0, 0]
    assert weight.argmin() == 3 * 8 + 3


def test_a_constant_residual_is_weighted_evenly():
    for value in (0.0, 0.3):
        weight = frame_weight(tf.fill((2, 4, 4, 1), value)).numpy()
        assert np.isfinite(weight).all() and np.ptp(weight) == 0


def test_the_weight_carries_no_gradient(rng):
    fixed, moved = (tf.constant(x, tf.float32) for x in images(2, 1, rng))
    with tf.GradientTape() as tape:
        tape.watch(moved)
        loss = AdaFrame().loss(fixed, moved)
    expected = 2 * frame_weight(fixed - moved) * (moved - fixed) / 36
    np.testing.assert_allclose(tape.gradient(loss, moved), expected, atol=1e-7)


@pytest.mark.parametrize("grid", [(8, 9), (4, 5), (2, 3)])
def test_the_field_keeps_its_penalty_where_the_images_agree(grid, rng):
    fixed = rng.random((1, 8, 9, 1)).astype("float32")
    moved = fixed.copy()
    moved[:, :4] += 0.5
    field = np.zeros((1, *grid, 2), "float32")
    scale = residual_scale(tf.constant(fixed), tf.constant(moved), tf.constant(field)).numpy()
    assert scale.shape == (1, *grid, 1)
    assert scale[0, -1].min() > 0.999 and scale[0, 0].max() < 0.01


def test_the_posterior_alone_is_least_at_one_voxel():
    loss = SmoothPosterior(1.0, 1.0)
    values = [float(loss.loss(None, tf.fill((1, 4, 4, 4), s))[0]) for s in (-0.5, 0.0, 0.5)]
    assert values[1] == pytest.approx(1.0) and values[1] == min(values)


def test_the_posteriors_mean_is_penalised_as_by_grad(rng):
    field = rng.normal(size=(2, 5, 4, 4)).astype("float32")
    field[..., 2:] = 0
    expected = 0.3 * Grad("l2", loss_mult=2).loss(None, field[..., :2]) + 0.7
    np.testing.assert_allclose(SmoothPosterior(0.3, 0.7, 2).loss(None, field), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="needs a field with 4 channels"):
        SmoothPosterior(0.3, 0.7).loss(None, field[..., :3])
