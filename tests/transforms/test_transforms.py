"""Laws of transforms, in numpy and in TensorFlow."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops import fields
from hetmorph.transforms import (
    Affine,
    Composition,
    Displacement,
    Identity,
    Transform,
    Velocity,
    in_frame,
    unit_cube,
    voxels,
    world,
)
from tests import reference

SHAPE = (24, 20)


def rotation(rng, batch=None):
    angle = rng.uniform(-0.3, 0.3, batch)
    matrix = np.moveaxis(np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), -1, 0)
    return np.moveaxis(matrix, -1, 0) if batch is None else matrix


def affine(rng):
    return Affine.about((np.array(SHAPE) - 1) / 2, rotation(rng, 2), rng.normal(size=(2, 2)))


def displacement(rng):
    return Displacement(np.stack([reference.smooth_field(rng, SHAPE, 2.0) for _ in range(2)]).astype(float))


def velocity(rng):
    return Velocity(displacement(rng).field.astype("float32"))


def followed(rng):
    return Velocity(displacement(rng).field, steps=8, method="midpoint")


KINDS = {"affine": affine, "displacement": displacement, "velocity": velocity, "followed": followed}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 3, 3)])
def test_the_inverse_of_a_tensor_is_that_of_the_array(shape, rng):
    """By cofactors, with no operation that other runtimes lack."""
    matrix = np.eye(shape[-1]) + rng.uniform(-0.3, 0.3, shape)
    offset = rng.normal(size=shape[:-1])
    traced = tf.function(
        lambda *parts: (lambda found: (found.matrix, found.offset))(Affine(*parts).inverse()), autograph=False
    )
    constants = [tf.constant(part, tf.float32) for part in (matrix, offset)]
    exact = Affine(matrix, offset).inverse()
    for found, expected in zip(traced(*constants), (exact.matrix, exact.offset), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    kinds = {operation.type for operation in traced.get_concrete_function(*constants).graph.get_operations()}
    assert not any("Inverse" in kind for kind in kinds)


def points(rng, batch=2):
    return rng.uniform(4, np.array(SHAPE) - 5, (batch, 30, 2))


@every_kind
def test_the_inverse_leads_back_and_its_inverse_forth(kind, rng):
    transform, x = KINDS[kind](rng), points(rng)
    there = np.asarray(transform(x))
    assert np.abs(there - x).max() > 0.1
    tolerance = {"velocity": 0.05, "followed": 5e-3}.get(
        kind, 1e-4
    )  # exp(−v) is exact up to the interpolation of the squarings
    np.testing.assert_allclose(transform.inverse()(there), x, atol=tolerance)
    np.testing.assert_allclose(transform(transform.inverse()(x)), x, atol=tolerance)
    np.testing.assert_allclose(transform.inverse().inverse()(x), there, atol=1e-5)


@every_kind
def test_tensors_give_the_same_and_pass_gradients(kind, rng):
    transform, x = KINDS[kind](rng), points(rng)
    tensors = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        moved = transform(tensors)
    np.testing.assert_allclose(moved, transform(x), atol=1e-4)
    jacobian = transform.jacobian(x)
    np.testing.assert_allclose(tape.gradient(moved, tensors), np.asarray(jacobian).sum(-2), atol=2e-2)


def test_composition_is_associative_and_goes_through_the_last_first(rng):
    a, b, c = affine(rng), displacement(rng), displacement(rng)
    x = points(rng)
    for composed in ((a @ b) @ c, a @ (b @ c), Composition(a, b, c)):
        np.testing.assert_array_equal(composed(x), a(b(c(x))))
    np.testing.assert_allclose((a @ b @ c).inverse()((a @ b @ c)(x)), x, atol=1e-4)


def test_affine_neighbours_become_one(rng):
    a, b, u, x = affine(rng), affine(rng), displacement(rng), points(rng)
    composed = u @ a @ b
    assert len(composed.transforms) == 2
    np.testing.assert_allclose(composed(x), u(a(b(x))), atol=1e-12)


def test_a_composition_never_interpolates_twice(rng):
    """A field that alternates from voxel to voxel survives a shift by half a voxel and back; resampled, it vanishes."""
    u = np.zeros((1, 16, 16, 2))
    u[..., 0] = 0.3 * (-1) ** np.arange(16)[:, None]
    shift = Affine(np.eye(2), [0.5, 0.0])
    there_and_back = Displacement(u) @ shift @ shift.inverse()
    np.testing.assert_allclose(there_and_back.displacement((16, 16)), u, atol=1e-12)


def test_displacement_on_a_grid_is_the_kernels(rng):
    outer, inner = displacement(rng), displacement(rng)
    expected = fields.compose(outer.field, inner.field)
    np.testing.assert_allclose((outer @ inner).displacement(SHAPE), expected, atol=1e-5)
    v = velocity(rng)
    np.testing.assert_allclose(v.displacement(SHAPE), fields.integrate(v.velocity), atol=1e-4)


def test_a_velocity_on_a_coarser_grid_moves_by_voxels_of_the_image():
    v = Velocity(np.full((1, 8, 8, 2), 0.75, "float32"), spacing=2.0)
    np.testing.assert_allclose(v.displacement((15, 15)), 1.5, atol=1e-5)


def test_matrices_of_voxelmorph_act_as_there(rng):
    from hetmorph.ops.affine import to_displacement

    matrix = np.concatenate([rotation(rng, 2), rng.normal(size=(2, 2, 1))], -1).astype("float32")
    for centred in (True, False):
        middle = (np.array(SHAPE) - 1) / 2 * centred
        ours = Affine.about(middle, matrix[..., :-1], matrix[..., -1]).displacement(SHAPE)
        np.testing.assert_allclose(ours, to_displacement(matrix, list(SHAPE), centred), atol=1e-4)


def test_frames(rng):
    u, x = displacement(rng), points(rng)
    cube = unit_cube(SHAPE)
    corner = np.array([[[0.0, 0.0], np.array(SHAPE) - 1.0]])
    np.testing.assert_allclose(cube(corner), [[[0, 0], [1, 1]]])
    header = np.array([[0.0, -1.5, 10.0], [2.0, 0.0, -4.0], [0, 0, 1]])
    for frame in (cube, world(header)):
        np.testing.assert_allclose(in_frame(u, frame)(frame(x)), frame(u(x)), atol=1e-10)
    there = in_frame(u, world(header), cube)(world(header)(x))
    np.testing.assert_allclose(there, cube(u(x)), atol=1e-10)


def test_the_jacobian_is_the_exact_derivative(rng):
    a, x = affine(rng), points(rng)
    np.testing.assert_allclose(a.jacobian(x), Transform.jacobian(a, x), atol=1e-6)
    np.testing.assert_allclose(a.jacobian(x)[1, 3], a.matrix[1])


@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_identity_and_a_batch_of_one(ndims, rng):
    x = rng.normal(size=(3, 4, 5, ndims))
    np.testing.assert_array_equal(Identity(ndims)(x), x)
    shift = Displacement(np.full((1, *[6] * ndims, ndims), 0.5))
    np.testing.assert_allclose(shift(x), x + 0.5)
    np.testing.assert_allclose(shift(tf.constant(x)), x + 0.5, atol=1e-6)


def test_points_outside_move_with_the_edge(rng):
    u = displacement(rng)
    far = np.array([[[-100.0, 3.0]], [[500.0, 3.0]]])
    np.testing.assert_allclose(u(far) - far, [[u.field[0, 0, 3]], [u.field[1, -1, 3]]])


def test_what_does_not_fit_is_refused(rng):
    with pytest.raises(ValueError, match=r"points \[batch, ..., 2\].*\(4, 3\)"):
        displacement(rng)(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"field \[B, \*S, N\].*\(8, 8, 2\)"):
        Displacement(np.zeros((8, 8, 2)))
    with pytest.raises(ValueError, match=r"matrix \[N, N\].*\(2, 3\)"):
        Affine(np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="one number of axes"):
        Identity(2) @ Identity(3)
    with pytest.raises(ValueError, match="no displacement on a grid"):
        Identity(2).displacement((4, 4, 4))
    with pytest.raises(ValueError, match="at least 2 voxels"):
        unit_cube((4, 1))
    with pytest.raises(NotImplementedError, match="Silent has no inverse"):
        type("Silent", (Transform,), {"ndims": 2})().inverse()


def test_a_velocity_of_an_array_is_integrated_as_that_of_a_tensor(rng):
    velocity = reference.smooth_field(rng, (12, 10), 2.0, 2.0)[None]
    own, tensor = Velocity(velocity), Velocity(tf.constant(velocity, tf.float32))
    assert own.integral.field.dtype == np.float64
    np.testing.assert_allclose(own.integral.field, tensor.integral.field, atol=1e-5)
    own, tensor = (Velocity(v, 4, method="midpoint") for v in (velocity, tf.constant(velocity, tf.float32)))
    np.testing.assert_allclose(own.displacement((12, 10)), tensor.displacement((12, 10)), atol=1e-5)
    with pytest.raises(ValueError, match="steps must be 0 or more, got -1"):
        Velocity(velocity, -1)
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        Velocity(velocity, 0, method="midpoint")
    with pytest.raises(ValueError, match="expected an integration by squaring or midpoint, got 'euler'"):
        Velocity(velocity, method="euler")


def test_the_midpoint_methods_inverse_falls_with_the_square_of_its_steps(rng):
    """In a velocity that is linear between all voxels, a rotation: kinks would end the fall."""
    middle = (np.array(SHAPE) - 1) / 2
    velocity = (voxels(SHAPE) - middle) @ np.array([[0, 0.8], [-0.8, 0]])
    x = rng.uniform(middle - 3, middle + 3, (1, 40, 2))

    def missed(steps):
        transform = Velocity(velocity, steps, method="midpoint")
        return np.abs((transform.inverse() @ transform)(x) - x).max()

    errors = [missed(steps) for steps in (4, 8, 16)]
    assert errors[2] < 1e-3
    assert all(before / after > 3.5 for before, after in pairwise(errors))
    expected = Affine.about(middle, np.array([[np.cos(0.8), -np.sin(0.8)], [np.sin(0.8), np.cos(0.8)]]))(x)
    np.testing.assert_allclose(Velocity(velocity, 64, method="midpoint")(x), expected, atol=1e-3)


def test_numpy_transforms_do_not_import_tensorflow():
    code = """
import sys; sys.argv = ["hetmorph"]
import numpy as np
from hetmorph.transforms import Affine, Displacement, Velocity
t = Displacement(np.ones((1, 4, 4, 2))) @ Affine(np.eye(2), [1, 0]) @ Velocity(np.ones((1, 4, 4, 2)))
t.inverse()(np.zeros((1, 2, 2)))
print("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_graph_does_not_hold_the_coordinates_of_its_voxels():
    """They, and all that follows from them alone, would be constants: of a volume several times its size."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    shape = (40, 30, 20)

    def on_grid(field):
        return Composition(
            Affine(2 * np.eye(3), np.ones(3)), Displacement(field), Affine(np.eye(3) / 2, np.zeros(3))
        ).displacement(shape)

    traced = tf.function(on_grid, autograph=False).get_concrete_function(tf.TensorSpec([1, 20, 15, 10, 3]))
    meta = meta_graph_pb2.MetaGraphDef(graph_def=traced.graph.as_graph_def())
    meta.collection_def["train_op"].node_list.value.extend(output.name for output in traced.outputs)
    nodes = tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), meta).node
    assert max(node.attr["value"].ByteSize() for node in nodes if node.op == "Const") < 1000
