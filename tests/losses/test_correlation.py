"""Correlation in a Gaussian window and of whole images, self-similarity descriptors, and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.losses import LNCC, MIND, NGF, GlobalNCC, SquaredLNCC
from hetmorph.losses.voxelwise import voxelwise_loss
from tests.contract import check_loss

SIZE = 9


def images(ndims, batch, rng):
    return tuple(rng.uniform(size=(batch, *[SIZE] * ndims, 1)).astype("float32") for _ in range(2))


LOSSES = [
    (LNCC, {"sigma": 2.0}),
    (SquaredLNCC, {"sigma": 1.5, "eps": 1e-4}),
    (GlobalNCC, {}),
    (MIND, {"radius": 1, "dilation": 2}),
    (NGF, {"eta": 0.5}),
]
every_loss = pytest.mark.parametrize(("cls", "kwargs"), LOSSES)
WINDOWED = [LNCC, SquaredLNCC]


@every_loss
def test_keeps_the_contract(cls, kwargs):
    # The least of several distances has kinks.
    check_loss(cls, kwargs, images, differences=cls is not MIND)


@pytest.mark.quick("LNCC-kwargs0", "SquaredLNCC-kwargs1", "GlobalNCC-kwargs2")
@every_loss
def test_spatial_sizes_may_be_unknown(cls, kwargs, rng):
    loss, pair = cls(**kwargs).loss, images(2, 2, rng)
    graph = tf.function(
        lambda a, b: loss(a, b), input_signature=[tf.TensorSpec([None, None, None, 1])] * 2, autograph=False
    )
    np.testing.assert_allclose(graph(*pair), loss(*pair), rtol=1e-5)


def smooth_pair(rng, shape=(40, 36)):
    noise = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 2, 2))
    first, second = (noise - noise.min()) / np.ptp(noise)
    return [np.float32(x)[None, ..., None] for x in (first, 0.6 * first + 0.4 * second)]


def moments(a, b, sigma):
    """Covariance and variances by a Gaussian that is cut off at two standard deviations; zeros outside."""

    def mean(x):
        for axis in (0, 1):
            x = ndimage.gaussian_filter1d(x, sigma, axis, mode="constant", radius=int(np.ceil(2 * sigma)))
        return x

    return [mean(x * y) - mean(x) * mean(y) for x, y in ((a, b), (a, a), (b, b))]


@pytest.mark.parametrize("sigma", [1.5, 4.0])
def test_local_correlation_is_its_formula(sigma, rng):
    y_true, y_pred = smooth_pair(rng)
    cross, var_a, var_b = moments(*[x[0, ..., 0].astype(float) for x in (y_true, y_pred)], sigma)
    expected = cross / np.sqrt((var_a + 1e-5) * (var_b + 1e-5))
    np.testing.assert_allclose(LNCC(sigma).correlation(y_true, y_pred)[0, ..., 0], expected, atol=1e-4)
    assert float(LNCC(sigma).loss(y_true, y_pred)[0]) == pytest.approx(1 - expected.mean(), abs=1e-4)
    assert float(SquaredLNCC(sigma).loss(y_true, y_pred)[0]) == pytest.approx(1 - (expected**2).mean(), abs=1e-4)


@pytest.mark.parametrize("offset", [1024, -3e4])
@pytest.mark.parametrize("cls", [*WINDOWED, MIND, NGF, GlobalNCC])
def test_images_far_from_zero(cls, offset, rng):
    """CT + 1024: within, where no window meets zeros, as without the offset; a loss of the whole image, altogether."""
    y_true, y_pred = smooth_pair(rng)
    far = [x + np.float32(offset) for x in (y_true, y_pred)]
    # 1e-7 of the offset is all that float32 leaves of the images themselves, whose noise has a variance of its own.
    tolerance = 1e-3 + 3e-6 * abs(offset)
    if cls is GlobalNCC:
        np.testing.assert_allclose(cls().loss(*far), cls().loss(y_true, y_pred), atol=tolerance)
    else:
        loss = cls(2) if cls in WINDOWED else cls()
        within = (slice(None), slice(5, -5), slice(5, -5))
        np.testing.assert_allclose(loss.voxelwise(*far)[within], loss.voxelwise(y_true, y_pred)[within], atol=tolerance)


def test_of_opposite_contrast_only_squares_match(rng):
    image, _ = smooth_pair(rng)
    within = (slice(None), slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(LNCC(2).voxelwise(image, 2 - 3 * image)[within], 2, atol=0.05)
    np.testing.assert_allclose(SquaredLNCC(2).voxelwise(image, 2 - 3 * image)[within], 0, atol=0.05)
    np.testing.assert_allclose(GlobalNCC().loss(image, 2 - 3 * image), [2], atol=1e-4)
    np.testing.assert_allclose(MIND().loss(image, 2 - 3 * image), [0], atol=1e-5)
    # what lies in the floor is the same whatever the contrast
    np.testing.assert_allclose(NGF().loss(image, 2 - 3 * image), NGF().loss(image, image), atol=1e-4)


def test_global_correlation_is_numpys(rng):
    y_true, y_pred = (rng.normal(size=(2, 8, 7, 3)).astype("float32") for _ in range(2))
    expected = [
        1 - np.mean([np.corrcoef(a[..., c].ravel(), b[..., c].ravel())[0, 1] for c in range(3)])
        for a, b in zip(y_true, y_pred, strict=True)
    ]
    np.testing.assert_allclose(GlobalNCC().loss(y_true, y_pred), expected, atol=1e-5)


@pytest.mark.parametrize("cls", [LNCC, SquaredLNCC, GlobalNCC])
@pytest.mark.parametrize("value", [0.0, 1000.0])
def test_a_constant_image_correlates_with_none(cls, value, rng):
    image, constant = smooth_pair(rng)[0], np.full((1, 40, 36, 1), value, "float32")
    inner = slice(12, -12)
    if cls is GlobalNCC:
        np.testing.assert_allclose(cls().loss(constant, image), [1], atol=1e-3)
    else:
        np.testing.assert_allclose(cls(5).voxelwise(constant, image)[:, inner, inner], 1, atol=1e-3)


def naive_descriptor(image, radius, dilation):
    """As it is defined, patch by patch."""
    ndims = image.ndim
    clamped = np.pad(image, dilation, mode="edge")
    arms = [(axis, sign) for axis in range(ndims) for sign in (-1, 1)]
    pairs = [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :] if a[0] != b[0]]

    def seen(arm):
        starts = [dilation + (arm[1] * dilation if axis == arm[0] else 0) for axis in range(ndims)]
        return clamped[tuple(slice(s, s + n) for s, n in zip(starts, image.shape, strict=True))]

    squares = [(seen(a) - seen(b)) ** 2 for a, b in pairs]
    distances = np.stack([ndimage.uniform_filter(s, 2 * radius + 1, mode="nearest") for s in squares], -1)
    distances -= distances.min(-1, keepdims=True)
    scale = distances.mean(-1, keepdims=True)
    return np.exp(-distances / np.clip(scale, scale.mean() * 1e-3, scale.mean() * 1e3))


@pytest.mark.parametrize(("shape", "entries"), [((11, 9), 4), ((9, 8, 7), 12)])
def test_descriptors_are_their_definition(shape, entries, rng):
    image = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    found = MIND(radius=1, dilation=2).descriptor(np.float32(image)[None, ..., None])
    assert found.shape == (1, *shape, entries)
    np.testing.assert_allclose(found[0], naive_descriptor(image, 1, 2), atol=1e-4)


def test_descriptors_of_a_constant_image_are_ones_and_have_a_gradient():
    constant = tf.ones([1, 8, 8, 1])
    np.testing.assert_array_equal(MIND().descriptor(constant), 1)
    with tf.GradientTape() as tape:
        tape.watch(constant)
        value = MIND().loss(tf.reshape(tf.linspace(0.0, 1.0, 64), [1, 8, 8, 1]), constant)
    assert np.isfinite(tape.gradient(value, constant)).all()


@pytest.mark.parametrize("shape", [(11, 9), (7, 6, 5), (8, 7, 1)])
def test_gradients_are_compared_as_defined(shape, rng):
    """Of two images, one of another contrast: the squared cosine of the angle between them, where they are steep."""
    images = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 1, 1, 1)[: len(shape) + 1])
    padded = np.pad(images, [(0, 0)] + [(1, 1)] * len(shape), mode="edge")
    inner = [slice(1, -1)] * len(shape)
    edges = np.stack([(np.roll(padded, -1, i + 1) - np.roll(padded, 1, i + 1))[(slice(None), *inner)] / 2
                      for i in range(len(shape))], -1)  # fmt: skip
    squares = (edges**2).sum(-1)
    first, second = (one + 0.5**2 * one.mean() for one in squares)
    expected = 1 - (edges[0] * edges[1]).sum(-1) ** 2 / (first * second)
    a, b = (np.float32(x)[None, ..., None] for x in images)
    np.testing.assert_allclose(NGF(eta=0.5).voxelwise(a, b)[0, ..., 0], expected, atol=1e-5)
    assert float(NGF(eta=0.5).loss(a, 1 - 7 * b)[0]) == pytest.approx(expected.mean(), abs=1e-5)


def test_edges_that_cross_do_not_match_and_parallel_ones_do():
    x, y = (np.float32(axis)[None, ..., None] for axis in np.meshgrid(np.arange(9), np.arange(9), indexing="ij"))
    assert float(NGF(eta=1e-3).loss(x, y)[0]) == pytest.approx(1, abs=1e-5)
    assert float(NGF(eta=1e-3).loss(x, -5 * x)[0]) == pytest.approx(0, abs=1e-5)


def test_a_flat_image_has_no_edges_and_a_gradient():
    flat, ramp = tf.ones([1, 8, 8, 1]), tf.reshape(tf.linspace(0.0, 1.0, 64), [1, 8, 8, 1])
    with tf.GradientTape() as tape:
        tape.watch(flat)
        value = NGF().loss(ramp, flat)
    np.testing.assert_array_equal(value, [1])
    assert np.isfinite(tape.gradient(value, flat)).all()


def test_voxels_can_be_weighted(rng):
    pair = smooth_pair(rng)
    for loss in (LNCC(2), SquaredLNCC(2), MIND(), NGF()):
        voxels = voxelwise_loss(loss)(*pair)
        assert voxels.shape == pair[0].shape
        np.testing.assert_allclose(tf.reduce_mean(voxels), tf.reduce_mean(loss.loss(*pair)), rtol=1e-5)


BAD = [
    (lambda: LNCC(0), "sigma must be positive, got 0"),
    (lambda: LNCC(50), "sigma must be at most 32 voxels, got 50"),
    (lambda: SquaredLNCC(2, eps=0), "eps must be positive, got 0"),
    (lambda: LNCC().loss(np.zeros((4, 4)), np.zeros((4, 4))), r"LNCC.*\(4, 4\)"),
    (lambda: NGF(eta=0), "eta must be positive, got 0"),
    (lambda: NGF().loss(np.zeros((4, 4)), np.zeros((4, 4))), r"NGF.*\(4, 4\)"),
    (lambda: MIND(radius=1.5), "radius must be a whole number of at least 0, got 1.5"),
    (lambda: MIND(dilation=0), "dilation must be a whole number of at least 1, got 0"),
    (lambda: MIND().descriptor(np.zeros((1, 4, 4, 2))), r"one-channel.*\(1, 4, 4, 2\)"),
    (lambda: MIND().descriptor(np.zeros((1, 4, 1))), r"2 or 3 axes.*\(1, 4, 1\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_errors_say_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()
