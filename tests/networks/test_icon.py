"""The ICON family against its originals, of which tests/golden/make_icon.py stored what they give."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph.losses import (
    LNCC,
    MIND,
    GlobalNCC,
    SquaredLNCC,
    gradient_inverse_consistency,
    inverse_consistency,
    velocity_diffusion,
)
from hetmorph.metrics import flips
from hetmorph.networks import affine_network, tall_unet
from hetmorph.ops.warp import warp
from hetmorph.steps import AffineStep, AtResolution, Consistent, FieldStep, Then, TwoStepConsistent, VelocityStep
from tests.golden import icon_recipes as recipes
from tests.networks.models import GOLDEN

SQUARE = (36, 36)


@pytest.fixture(scope="module")
def original():
    with np.load(GOLDEN / "icon.npz") as arrays:
        return dict(arrays)


def pair(shape, seed):
    return [tf.constant(image[None, ..., None]) for image in recipes.images(shape, seed)]


def filled(network, arrays):
    """A network with arrays in the order of its layers."""
    network.set_weights(arrays)
    return network


def narrow(seed, last=0.1, factor=1.0):
    """`factor`: by which the output is multiplied, through the last convolution."""
    weights = recipes.unet_weights(2, seed, recipes.NARROW, recipes.NARROW_UP, last)
    weights[-2:] = [factor * w for w in weights[-2:]]
    return filled(tall_unet((None, None), [recipes.NARROW, recipes.NARROW_UP]), weights)


def in_voxels(field, shape):
    return field * (np.array(shape) - 1)


@pytest.mark.quick("2-shape0")
@pytest.mark.parametrize(("ndims", "shape"), [(2, (21, 26)), (3, (17, 19, 18))])
def test_the_tall_unet(ndims, shape, original):
    network = filled(tall_unet([None] * ndims), recipes.unet_weights(ndims, seed=ndims))
    assert sum(np.prod(w.shape) for w in network.trainable_weights) == original[f"unet_{ndims}d_count"]
    every = (0, *[slice(None, None, ndims - 1)] * ndims)
    found = network(pair(shape, ndims)).numpy()[every] / (np.array(shape) - 1)
    np.testing.assert_allclose(found, original[f"unet_{ndims}d"], atol=1e-6)


def test_the_matrix_network_has_as_many_weights(original):
    assert affine_network((None,) * 3).count_params() == original["matrix_3d_count"]


@pytest.fixture(scope="module")
def gradicon():
    """Transforms in both directions of a network at a quarter, half and all of the resolution."""
    first, second, third = (FieldStep(narrow(seed)) for seed in (11, 12, 13))
    half = AtResolution(Then([AtResolution(first, 2, corners=True), second]), 2, corners=True)
    step = Then([half, third])
    return step, step.both(*pair(recipes.SIZE, 5))


def test_steps_at_several_resolutions(gradicon, original):
    for transform, name in zip(gradicon[1], ("composed", "composed_back"), strict=True):
        expected = in_voxels(original[name], recipes.SIZE)
        np.testing.assert_allclose(transform.displacement(recipes.SIZE)[0], expected, atol=1e-4)


def test_the_penalties_with_the_same_shift(gradicon, original):
    _, (there, back) = gradicon
    size = np.array(recipes.SIZE)
    grid, noise = np.stack(np.indices(recipes.SIZE), -1), np.moveaxis(recipes.jitter(recipes.SIZE), 0, -1)
    dense, sparse = ((grid + times * noise / size[-1] * (size - 1))[None] for times in (1, 2))
    icon = inverse_consistency(there, back, recipes.SIZE, dense)
    np.testing.assert_allclose(icon, original["icon_penalty"], rtol=1e-4)
    found = gradient_inverse_consistency(there, back, recipes.SIZE, dense)
    np.testing.assert_allclose(found, original["dense_penalty"], rtol=2e-3)
    found = gradient_inverse_consistency(there, back, recipes.SIZE, sparse[:, ::2, ::2])
    np.testing.assert_allclose(found, original["sparse_penalty"], rtol=2e-3)


def test_the_whole_loss_and_the_flips(gradicon, original):
    (moving, fixed), (there, back) = pair(recipes.SIZE, 5), gradicon[1]
    moved = [warp(moving, there.displacement(recipes.SIZE)), warp(fixed, back.displacement(recipes.SIZE))]
    similarity = LNCC(2).loss(fixed, moved[0]) + LNCC(2).loss(moving, moved[1])
    np.testing.assert_allclose(similarity, original["similarity"], atol=1e-4)
    for name in ("icon", "dense", "sparse"):
        np.testing.assert_allclose(similarity + 1.5 * original[f"{name}_penalty"], original[f"{name}_loss"], atol=1e-4)
    assert flips(back.displacement(recipes.SIZE)[0]) == original["flips"]


def test_a_velocity(original):
    step = VelocityStep(narrow(21, last=0.5), int_steps=8)
    found = step(*pair(recipes.SIZE, 5))[0]
    np.testing.assert_allclose(found, in_voxels(original["velocity"], recipes.SIZE), atol=1e-4)


def matrix_step(factor, rigid=False):
    """The original exponentiates the difference itself, shifts in units of N − 1; ours its half, in units of N."""
    numbers = np.eye(6)  # of ours from those of the original: two rows of two factors and a shift
    if rigid:
        # The original takes A − Aᵀ about the first voxel, and the shift from A about the middle; ours half A − Aᵀ.
        numbers[[2, 2, 5, 5], [0, 3, 1, 4]] = -0.5
        numbers[[0, 1, 3, 4]] *= 2
    numbers[[2, 5]] *= (SQUARE[0] - 1) / SQUARE[0]
    weights = recipes.matrix_weights(2, 31)
    weights[-2:] = [factor * w @ numbers.T for w in weights[-2:]]
    return Consistent(AffineStep(filled(affine_network((None, None)), weights), rigid))


def velocity_step(seed, factor):
    return Consistent(VelocityStep(narrow(seed, 0.5, factor), int_steps=7))


@pytest.fixture(scope="module")
def two():
    """What the originals take for the root is, of ours, the root itself: twice the generator."""
    return TwoStepConsistent(matrix_step(4), TwoStepConsistent(velocity_step(32, 4), velocity_step(33, 2)))


@pytest.mark.parametrize("name", ["affine", "rigid", "svf", "two"])
def test_consistent_by_construction(name, two, original):
    steps = {
        "affine": lambda: matrix_step(2),
        "rigid": lambda: matrix_step(2, rigid=True),
        "svf": lambda: velocity_step(32, 2),
        "two": lambda: two,
    }
    for transform, suffix in zip(steps[name]().both(*pair(SQUARE, 7)), ("", "_back"), strict=True):
        found = np.asarray(transform.displacement(SQUARE))[0, ::2, ::2]
        np.testing.assert_allclose(found, in_voxels(original[f"consistent_{name}{suffix}"], SQUARE), atol=1e-4)


def test_the_diffusion_of_the_velocities_and_the_whole_loss(two, original):
    moving, fixed = pair(SQUARE, 7)
    transform = two.transform(moving, fixed)
    diffusion = velocity_diffusion(transform, 5.0)
    np.testing.assert_allclose(diffusion, 5 * original["diffusion"], rtol=1e-4)
    similarity = 2 * LNCC(2).loss(fixed, warp(moving, transform.displacement(SQUARE)))
    np.testing.assert_allclose(similarity + diffusion, original["diffusion_loss"], rtol=1e-4)


@pytest.mark.parametrize(("ndims", "shape"), [(2, (30, 24)), (3, (12, 14, 11))])
def test_similarities_and_flips(ndims, shape, original):
    images = pair(shape, 50 + ndims)
    losses = {f"ncc_{ndims}d": GlobalNCC()}
    for sigma in (2, 5):
        losses |= {f"lncc_{ndims}d_{sigma}": LNCC(sigma), f"squared_lncc_{ndims}d_{sigma}": SquaredLNCC(sigma)}
    if ndims == 3:
        losses |= {f"mind_{radius}_2": MIND(radius, 2) for radius in (1, 2)}
    for name, loss in losses.items():
        np.testing.assert_allclose(loss.loss(*images), [original[name]], atol=2e-5, err_msg=name)
    noise = np.moveaxis(recipes.jitter(shape, 60 + ndims), 0, -1)
    assert flips(0.5 * noise) == original[f"flips_{ndims}d"]


def test_keras_moments_are_pytorchs():
    """Of batch normalisation: a running mean that keeps nine tenths, ε = 1e-5."""
    norms = [one for one in narrow(1).layers if isinstance(one, keras.layers.BatchNormalization)]
    assert {(one.momentum, one.epsilon) for one in norms} == {(0.9, 1e-5)}
