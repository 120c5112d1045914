import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops import fields, separable, warp
from hetmorph.ops.grid import identity_grid
from tests import reference


@pytest.mark.parametrize("shape", [(20,), (12, 13), (8, 9, 10)])
def test_integrating_zero_and_constant_velocity(shape):
    zero = np.zeros((1, *shape, len(shape)), "float32")
    assert not fields.integrate(zero).numpy().any()
    constant = zero + np.array([1.5, -0.5, 0.25][: len(shape)], "float32")
    np.testing.assert_allclose(fields.integrate(constant), constant, atol=1e-5)


def test_integration_follows_the_flow_of_a_rotation():
    n, angle = 65, 0.3
    centre = (n - 1) / 2
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1) - centre
    velocity = angle * np.stack([-grid[..., 1], grid[..., 0]], -1)[None].astype("float32")
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = grid @ rotation.T - grid
    middle = (slice(16, 49),) * 2  # away from the border, where the edge value is repeated
    np.testing.assert_allclose(fields.integrate(velocity)[0].numpy()[middle], expected[middle], atol=2e-2)


def test_integration_error_falls_with_the_number_of_squarings(rng):
    # Second-order law: each squaring step halves the first Euler step, and with it the error.
    velocity = reference.smooth_field(rng, (48, 48), 6.0, sigma=8)[None]
    exact = fields.integrate(velocity, 14).numpy()[:, 8:-8, 8:-8]
    errors = [np.abs(fields.integrate(velocity, k).numpy()[:, 8:-8, 8:-8] - exact).mean() for k in (1, 2, 3, 4)]
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert np.all(ratios > 1.6), ratios


def test_composition_with_the_inverse_is_the_identity(rng):
    velocity = reference.smooth_field(rng, (40, 40), 3.0)[None]
    forward, backward = fields.integrate(velocity), fields.integrate(-velocity)
    for pair in [(forward, backward), (backward, forward)]:
        residue = fields.compose(*pair).numpy()[:, 6:-6, 6:-6]
        assert np.abs(residue).max() < 0.08


def test_composition_order(rng):
    image = rng.normal(size=(1, 16, 16, 1)).astype("float32")
    first = np.zeros((1, 16, 16, 2), "float32") + [2, 0]
    rows = np.arange(16, dtype="float32")[None, :, None]
    second = np.stack([np.zeros((1, 16, 16)), np.broadcast_to((rows >= 8) * 3.0, (1, 16, 16))], -1).astype("float32")
    one_by_one = warp(warp(image, first), second)
    np.testing.assert_allclose(warp(image, fields.compose(first, second)), one_by_one, atol=1e-5)
    other = warp(image, fields.compose(second, first)).numpy()
    assert np.abs(other - one_by_one.numpy()).max() > 0.1


@pytest.mark.parametrize("factor", [0.5, 2.0, 1.5])
def test_resize_keeps_linear_images_and_corners(factor):
    x, y = np.meshgrid(np.arange(12.0), np.arange(8.0), indexing="ij")
    image = (2 * x - 3 * y)[None, ..., None].astype("float32")
    resized = fields.resize(image, factor).numpy()[0, ..., 0]
    new_x = np.linspace(0, 11, int(12 * factor))[:, None]
    new_y = np.linspace(0, 7, int(8 * factor))[None]
    np.testing.assert_allclose(resized, 2 * new_x - 3 * new_y, atol=1e-4)


@pytest.mark.parametrize("factor", [0.5, 2.0, 33 / 16])
@pytest.mark.parametrize("shape", [(16,), (16, 32), (16, 16, 32)])
def test_rescale_equals_voxelmorph(rng, shape, factor):
    from hetmorph.voxelmorph.original import vxm

    field = rng.normal(size=(2, *shape, len(shape))).astype("float32")
    expected = vxm.tf.utils.utils.rescale_dense_transform(tf.constant(field), factor)
    np.testing.assert_allclose(fields.rescale(field, factor), expected, atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (1, 4), (5, 1), (7, 14), (12, 20), (96, 48), (40, 97)])
def test_a_known_size_changes_no_bit(size, count):
    """What is made of known sizes are arrays, of others operations of TensorFlow."""
    places = fields._spread(size, count)
    np.testing.assert_array_equal(places, fields._spread(tf.constant(size), count))
    np.testing.assert_array_equal(separable.hats(places, size), separable.hats(tf.constant(places), tf.constant(size)))
    for known, unknown in zip(identity_grid([size, count]), identity_grid([tf.constant(size), count]), strict=True):
        assert known.dtype == unknown.dtype
        np.testing.assert_array_equal(known, unknown)


@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_jacobian_determinant_of_a_linear_map(rng, ndims):
    matrix = 0.2 * rng.normal(size=(ndims, ndims))
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * ndims, indexing="ij"), -1)
    u = (grid @ matrix.T)[None].astype("float32")
    expected = np.linalg.det(np.eye(ndims) + matrix)
    np.testing.assert_allclose(fields.jacobian_determinant(u), np.full((1, *[6] * ndims), expected), rtol=1e-4)


def test_jacobian_determinant_equals_numpy_gradient(rng):
    u = reference.smooth_field(rng, (9, 10, 11), 4.0, 1.5)
    jacobian = np.stack([np.stack(np.gradient(u[..., i]), -1) for i in range(3)], -2) + np.eye(3)
    np.testing.assert_allclose(fields.jacobian_determinant(u[None])[0], np.linalg.det(jacobian), atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 10), (7, 8, 9)])
def test_determinants_of_cells_are_those_of_the_publications(rng, shape):
    """And of a linear map those of its matrix, in every cell."""
    u = rng.normal(size=(2, *shape, len(shape)))
    expected = [reference.conserved(np.ones(shape), one) for one in u]
    np.testing.assert_allclose(fields.cell_determinant(u), expected, rtol=1e-10)
    matrix = rng.normal(size=(len(shape),) * 2)
    linear = (np.stack(np.indices(shape), -1) @ (matrix - np.eye(len(shape))).T)[None]
    np.testing.assert_allclose(fields.cell_determinant(linear), np.linalg.det(matrix), rtol=1e-10)


def test_a_reflection_folds_everywhere():
    rows = np.arange(8, dtype="float32")[:, None] + np.zeros((8, 8), "float32")
    mirrored = np.stack([-2 * rows, np.zeros_like(rows)], -1)[None]
    assert np.all(fields.jacobian_determinant(mirrored).numpy() == -1)


def test_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="steps"):
        fields.integrate(np.zeros((1, 4, 4, 2), "float32"), -1)


@pytest.mark.parametrize("axis", [1, 3])
def test_an_axis_of_one_voxel_has_no_extent(rng, axis):
    """A volume of a single slice folds where its slice does."""
    u = rng.normal(size=(2, 9, 8, 2)).astype("float32")
    thick = np.insert(u, 0 if axis == 1 else 2, 5, axis=-1)
    found = fields.jacobian_determinant(np.expand_dims(thick, axis))
    np.testing.assert_allclose(np.squeeze(found, axis), fields.jacobian_determinant(u), atol=1e-5)
