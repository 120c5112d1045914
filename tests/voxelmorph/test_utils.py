"""VoxelMorph's tensor utilities: the original's numbers, also for sizes unknown until run time."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph import utils
from hetmorph.voxelmorph.original import vxm

original = vxm.utils


def test_every_public_name_of_the_original_is_there():
    names = {n for n, v in vars(original).items() if getattr(v, "__module__", "") == original.utils.__name__}
    assert len(names) > 15
    assert names <= set(vars(utils))


def field(rng, *shape):
    return tf.constant(2 * rng.normal(size=(*shape, len(shape))), tf.float32)


def affine(rng, ndims):
    return (np.eye(ndims, ndims + 1) + 0.1 * rng.normal(size=(ndims, ndims + 1))).astype("float32")


CASES = {
    "transform": lambda m, r: m.transform(field(r, 6, 7), field(r, 6, 7)),
    "transform nearest fill": lambda m, r: m.transform(
        tf.constant(r.uniform(size=(4, 5, 6, 1)), tf.float32), field(r, 4, 5, 6), "nearest", fill_value=-1
    ),
    "transform per channel": lambda m, r: m.transform(
        tf.constant(r.uniform(size=(6, 6, 2)), tf.float32),
        tf.constant(r.normal(size=(6, 6, 2, 2)), tf.float32),
    ),
    "batch_transform": lambda m, r: m.batch_transform(
        tf.constant(r.uniform(size=(3, 6, 6, 2)), tf.float32), tf.constant(r.normal(size=(3, 6, 6, 2, 2)), tf.float32)
    ),
    "compose dense": lambda m, r: m.compose([field(r, 6, 7), field(r, 6, 7), field(r, 6, 7)]),
    "compose mixed": lambda m, r: m.compose([field(r, 6, 7), affine(r, 2), affine(r, 2)]),
    "compose affine": lambda m, r: m.compose([tf.constant(affine(r, 3)), tf.constant(affine(r, 3))]),
    "rescale up": lambda m, r: m.rescale_dense_transform(field(r, 4, 5), 2),
    "rescale down batch": lambda m, r: m.rescale_dense_transform(tf.constant(field(r, 4, 6)[None]), 0.5),
    "integrate ss": lambda m, r: m.integrate_vec(tf.constant(field(r, 6, 7)), nb_steps=4),
    "integrate quadrature": lambda m, r: m.integrate_vec(tf.constant(field(r, 6, 7)), method="quadrature", nb_steps=4),
    "value_at_location": lambda m, r: m.value_at_location(
        [tf.constant(r.normal(size=(2, 6, 7, 3)), tf.float32), tf.constant(r.uniform(0, 5, (2, 9, 2)), tf.float32)]
    ),
    "value_at_location channel": lambda m, r: m.value_at_location(
        [tf.constant(r.normal(size=(2, 6, 7, 3)), tf.float32), tf.constant(r.uniform(0, 2, (2, 9, 3)), tf.float32)],
        force_post_absolute_val=False,
    ),
    "point_spatial_transformer": lambda m, r: m.point_spatial_transformer(
        [tf.constant(r.uniform(0, 5, (2, 9, 3)), tf.float32), tf.constant(r.normal(size=(2, 6, 7, 2)), tf.float32)]
    ),
    "affine_to_dense_shift": lambda m, r: m.affine_to_dense_shift(affine(r, 3), (4, 5, 6)),
    "affine_to_dense_shift corner": lambda m, r: m.affine_to_dense_shift(affine(r, 2), (4, 5), shift_center=False),
    "invert_affine": lambda m, r: m.invert_affine(tf.constant(affine(r, 3))),
    "params_to_affine_matrix": lambda m, r: m.params_to_affine_matrix(r.normal(size=(2, 12)), last_row=True),
    "angles_to_rotation_matrix": lambda m, r: m.angles_to_rotation_matrix([10.0, 20.0, 30.0]),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_original(name):
    ours, theirs = (CASES[name](module, np.random.default_rng(1)) for module in (utils, original))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_keras_transform_equals_the_original(rng):
    image = rng.uniform(size=(2, 8, 8, 1)).astype("float32")
    displacement = rng.normal(size=(2, 4, 4, 2)).astype("float32")
    np.testing.assert_allclose(
        utils.keras_transform(image, displacement, rescale=2),
        original.keras_transform(image, displacement, rescale=2),
        atol=1e-5,
    )


@pytest.mark.quick("<lambda>1", "<lambda>2", "<lambda>4")
@pytest.mark.parametrize(
    "function",
    [
        lambda v, u: utils.transform(v, u),
        lambda v, u: utils.integrate_vec(u, nb_steps=3),
        lambda v, u: utils.compose([u, u]),
        lambda v, u: utils.compose([np.eye(2, 3, dtype="float32"), u]),
        lambda v, u: utils.rescale_dense_transform(u, 0.5),
    ],
)
def test_sizes_may_be_unknown(function, rng):
    vol, shift = rng.uniform(size=(6, 8, 1)).astype("float32"), field(rng, 6, 8)
    specs = [tf.TensorSpec([None, None, c]) for c in (1, 2)]
    traced = tf.function(function, input_signature=specs)
    np.testing.assert_allclose(traced(vol, shift), function(tf.constant(vol), tf.constant(shift)), atol=1e-5)


def test_invert_affine_of_a_batch(rng):
    """The original cuts the last row off the wrong axis."""
    matrices = np.stack([affine(rng, 3), affine(rng, 3)])
    both = utils.invert_affine(matrices)
    assert both.shape == (2, 3, 4)
    np.testing.assert_allclose(both[1], utils.invert_affine(matrices[1]), atol=1e-5)


def test_ode_needs_an_integrator(rng):
    velocity = field(rng, 6, 6)
    with pytest.raises(ValueError, match="odeint_fn"):
        utils.integrate_vec(velocity, method="ode")

    def euler(function, initial, times, steps=64):
        path, u = [initial], initial
        for start, end in zip(times[:-1], times[1:], strict=True):
            for _ in range(steps):
                u = u + (end - start) / steps * function(u, start)
            path.append(u)
        return tf.stack(path)

    smooth = tf.constant(0.1 * velocity)
    np.testing.assert_allclose(
        utils.integrate_vec(smooth, method="ode", odeint_fn=euler),
        utils.integrate_vec(smooth, nb_steps=8),
        atol=2e-2,
    )


def test_errors():
    with pytest.raises(ValueError, match="at least 2 transforms"):
        utils.compose([np.zeros((4, 4, 2))])
    with pytest.raises(ValueError, match=r"\(2, 3\) or \(3, 4\)"):
        utils.affine_to_dense_shift(np.zeros((3, 3)), (4, 4))
    with pytest.raises(ValueError, match="3-D displacement moves points"):
        utils.point_spatial_transformer([np.zeros((1, 5, 2), "f"), np.zeros((1, 4, 4, 4, 3), "f")])


def test_setup_device(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert utils.setup_device(None) == ("/cpu:0", 1)
