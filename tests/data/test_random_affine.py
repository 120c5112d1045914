"""Random affine maps of training pairs: each image by its own, and all that lies on an image with it."""

from itertools import permutations

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from hetmorph.data import Pair, pipeline
from hetmorph.data.random_affine import move_arrays, move_points, random_maps
from hetmorph.ops.xla import compiled_kernels

NAMES = ("moving", "fixed", "mask_moving", "mask_fixed")


def maps_of(rng, shape, batch=2, strength=0.05):
    ndims = len(shape)
    orders, noise = rng.random((batch, ndims)), rng.standard_normal((batch, 2, ndims, ndims + 1))
    return random_maps(tf.constant(orders, tf.float32), tf.constant(noise, tf.float32), shape, strength)


@pytest.mark.parametrize("shape", [(12, 12), (11, 14), (8, 7, 8)])
def test_images_and_masks_go_where_scipy_takes_them(rng, shape):
    """Compiled, as in a training, and not."""
    maps, arrays = maps_of(rng, shape), rng.random((2, *shape, 4)).astype(np.float32)
    arrays[..., 2:] = arrays[..., 2:] > 0.5
    found = move_arrays(tf.constant(arrays), NAMES, maps).numpy()
    with compiled_kernels():
        np.testing.assert_allclose(move_arrays(tf.constant(arrays), NAMES, maps), found, atol=1e-4)
    for sample in range(2):
        for channel, name in enumerate(NAMES):
            matrix, shift = (one[sample, int("fixed" in name)].numpy() for one in maps)
            expected = ndimage.affine_transform(
                arrays[sample, ..., channel], matrix, shift, order=int(channel < 2), mode="nearest"
            )
            apart = np.abs(found[sample, ..., channel] - expected) > 1e-4
            assert apart.mean() <= (0 if channel < 2 else 0.02)  # a place half between two voxels has two nearest ones


@pytest.mark.parametrize("shape", [(24, 24), (20, 28), (16, 14, 16)])
def test_points_go_with_their_image(rng, shape):
    """The bright spot of an image is where its landmark is."""
    maps = maps_of(rng, shape, 4)
    spots = [np.array(shape) * share for share in (0.4, 0.55)]
    index = np.moveaxis(np.indices(shape), 0, -1)
    images = [np.exp(-(((index - spot) / 1.5) ** 2).sum(-1)) for spot in spots]
    arrays = np.tile(np.stack(images, -1)[None], (4, *(1,) * (len(shape) + 1))).astype(np.float32)
    moved = move_arrays(tf.constant(arrays), NAMES[:2], maps).numpy()
    points = np.tile(np.concatenate(spots), (4, 2, 1)).astype(np.float32)
    points[:, 1] = np.nan
    found = move_points(tf.constant(points), maps).numpy()
    assert np.isnan(found[:, 1]).all()
    for sample, (image, place) in enumerate(zip(moved, found[:, 0], strict=True)):
        for side in (0, 1):
            weight = image[..., side]
            centre = np.average(index.reshape(-1, len(shape)), axis=0, weights=weight.ravel() ** 2)
            np.testing.assert_allclose(centre, place[side * len(shape) :][: len(shape)], atol=0.1, err_msg=f"{sample}")


@pytest.mark.parametrize(("shape", "kinds"), [((6, 6, 6), 6), ((6, 5, 6), 2), ((6, 5, 4), 1)])
def test_without_strength_axes_of_one_length_change_places_and_nothing_else_happens(rng, shape, kinds):
    image = rng.random(shape).astype(np.float32)
    batch = 24 * kinds
    arrays = tf.constant(np.tile(image[None, ..., None], (batch, 1, 1, 1, 2)))
    moved = move_arrays(arrays, NAMES[:2], maps_of(rng, shape, batch, 0.0)).numpy()
    np.testing.assert_allclose(moved[..., 0], moved[..., 1], atol=1e-6)
    seen = [image.transpose(order) for order in permutations(range(3)) if image.transpose(order).shape == shape]
    assert len(seen) == kinds
    which = [[np.allclose(one[..., 0], other, atol=1e-5) for other in seen] for one in moved]
    np.testing.assert_array_equal(np.sum(which, 1), 1)
    assert np.sum(which, 0).min() > 10


def test_the_strength_is_that_of_coordinates_from_minus_one_to_one(rng):
    shape = (20, 30)
    matrix, shift = (one.numpy() for one in maps_of(rng, shape, 4000))
    sizes, middle = np.array(shape), (np.array(shape) - 1) / 2
    linear = matrix * sizes / sizes[:, None] - np.eye(2)
    offset = (shift + matrix @ middle - middle) / (sizes / 2)
    for numbers in (linear, offset):
        np.testing.assert_allclose([numbers.mean(), numbers.std()], [0, 0.05], atol=2e-3)
    assert (
        abs(np.corrcoef(linear[:, 0].ravel(), linear[:, 1].ravel())[0, 1]) < 0.05
    )  # one image knows nothing of the other


SPOT = np.array([9.0, 6.0])


def stream(**options):
    """Batches of a pair of one bright spot, which is its mask, its landmark and its label 7 as well."""
    distance = np.linalg.norm(np.moveaxis(np.indices((16, 16)), 0, -1) - SPOT, axis=-1)
    image = np.exp(-((distance / 2) ** 2)).astype(np.float32)
    known = {"mask_moving": distance < 3, "points_moving": SPOT[None], "points_fixed": SPOT[None]}
    labels = np.where(distance < 3, 7, 0).astype(np.uint8)
    pair = Pair("a", "a", None, None, image, image, labels, labels, (1.0, 1.0), **known)
    return list(pipeline([pair] * 3, 6, 4, 3, **options).as_numpy_iterator())


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True))


@pytest.mark.slow
def test_a_stream_is_resumed_and_divided_as_without():
    whole = stream(affine=0.05)
    assert not equal(whole, stream(affine=0.0)) and not equal(whole, stream(affine=0.06))
    assert all(equal(*both) for both in zip(whole[2:], stream(affine=0.05, start_step=2), strict=True))
    parts = [stream(affine=0.05, part=(k, 2)) for k in range(2)]
    for step, batch in enumerate(whole):
        together = tf.nest.map_structure(lambda *some: np.concatenate(some), *(part[step] for part in parts))
        np.testing.assert_allclose(together[0][0], batch[0][0], atol=1e-6)
        np.testing.assert_allclose(together[0][2]["points_moving"], batch[0][2]["points_moving"], atol=1e-4)


def test_the_two_images_of_a_pair_come_apart_and_what_is_known_goes_along():
    for (moving, fixed, known), _ in stream(affine=0.05, labels=True):
        assert np.abs(moving - fixed).max(axis=(1, 2, 3)).min() > 0.01
        assert set(np.unique(known["mask_moving"])) == {0, 1}
        for image, mask, place in zip(moving, known["mask_moving"], known["points_moving"], strict=True):
            np.testing.assert_allclose(centre(image**2), place[0], atol=0.2)
            np.testing.assert_allclose(centre(mask), place[0], atol=0.5)
        for image, place in zip(fixed, known["points_fixed"], strict=True):
            np.testing.assert_allclose(centre(image**2), place[0], atol=0.2)
        for side in ("moving", "fixed"):
            labels, places = known[f"labels_{side}"], known[f"points_{side}"]
            assert set(np.unique(labels)) == {0, 7}
            for one, place in zip(labels, places, strict=True):
                np.testing.assert_allclose(centre(one), place[0], atol=0.5)


def centre(image):
    return ndimage.center_of_mass(image[..., 0])


@pytest.mark.parametrize("options", [{"affine": -0.1}, {"affine": 0.3}, {"affine": 0.05, "augment": False}])
def test_impossible_maps_are_refused(options):
    with pytest.raises(ValueError, match="affine maps of strength 0 to 0.2, and augmentation with them"):
        stream(**options)
