"""VoxelMorph's tensor utilities on hetmorph's kernels, also for sizes unknown until run time.

All public names of `voxelmorph.utils`. Functions that say `[*S, …]` take a single sample, as the original's do.
"""

import numpy as np
import tensorflow as tf

from hetmorph.layers import ComposeTransform, RescaleTransform, SpatialTransformer, ValueAtLocation
from hetmorph.ops import affine, fields, points
from hetmorph.ops.warp import warp
from hetmorph.voxelmorph.original import vxm

_original = vxm.utils

affine_add_identity = _original.affine_add_identity
affine_remove_identity = _original.affine_remove_identity
angles_to_rotation_matrix = _original.angles_to_rotation_matrix
batch_transform = _original.batch_transform
is_affine_shape = _original.is_affine_shape
make_square_affine = _original.make_square_affine
params_to_affine_matrix = _original.params_to_affine_matrix
rescale_affine = _original.rescale_affine
setup_device = _original.setup_device
validate_affine_shape = _original.validate_affine_shape


def transform(vol, loc_shift, interp_method="linear", indexing="ij", fill_value=None) -> tf.Tensor:
    """Pull a volume through a displacement: `out(x) = vol(x + u(x))`.

    Args:
        vol: `[*S, C]`.
        loc_shift: displacement `[*T, N]`, or one for each channel `[*T, C, N]`, voxels.
        interp_method: "linear" or "nearest".
        indexing: "ij"; "xy" for the original's cartesian grid.
        fill_value: value outside the volume; None repeats the edge.

    Returns:
        `[*T, C]`.
    """
    vol, loc_shift = tf.convert_to_tensor(vol), tf.convert_to_tensor(loc_shift)
    if indexing != "ij" or loc_shift.shape.rank != vol.shape.rank:
        return _original.transform(vol, loc_shift, interp_method, indexing, fill_value)
    return warp(vol[None], loc_shift[None], interp_method, fill_value)[0]


def compose(transforms, interp_method="linear", shift_center=True, indexing="ij") -> tf.Tensor:
    """One transform for a list of them: `compose([A, B, C])` warps as A, then B, then C would.

    Args:
        transforms: at least two, dense `[*S, N]` or affine `[N, N+1]`.
        interp_method: "linear" or "nearest".
        shift_center: whether an affine acts about the centre of the grid.
        indexing: "ij".

    Returns:
        Dense, unless all are affine.
    """
    composed = ComposeTransform(interp_method, shift_center, indexing, dtype="float32")
    return composed([tf.cast(one, tf.float32)[None] for one in transforms])[0]


def rescale_dense_transform(transform, factor, interp_method="linear") -> tf.Tensor:
    """Resample a displacement `[*S, N]` or `[B, *S, N]` by a factor and scale its vectors by it.

    Args:
        transform: in voxels of its own grid, before and after.
        factor: above 1 for a finer grid.
        interp_method: "linear" or "nearest".
    """
    transform = tf.convert_to_tensor(transform)
    if transform.shape.rank > transform.shape[-1] + 1:
        return fields.rescale(transform, factor, interp_method)
    return fields.rescale(transform[None], factor, interp_method)[0]


def integrate_vec(vec, time_dep=False, method="ss", **kwargs) -> tf.Tensor:
    """Displacement of a velocity field `[*S, N]` after unit time.

    Args:
        vec: velocity, voxels per unit time; with `time_dep` one more, last axis of time points.
        time_dep: whether it changes over time.
        method: "ss" (scaling and squaring, `nb_steps` squarings), "quadrature" (`nb_steps` Euler steps) or "ode",
            which needs an integrator `odeint_fn(function, initial, times, …)`.
        kwargs: `nb_steps`, `odeint_fn`, `out_time_pt`, `ode_args`.
    """
    if method in ("ss", "scaling_and_squaring") and not time_dep:
        return fields.integrate(tf.convert_to_tensor(vec)[None], kwargs["nb_steps"])[0]
    if method == "ode":
        return _integrate_ode(vec, **kwargs)
    return _original.integrate_vec(vec, time_dep=time_dep, method=method, **kwargs)


def _integrate_ode(vec, odeint_fn=None, out_time_pt=1, ode_args=None, **_) -> tf.Tensor:
    if odeint_fn is None:
        raise ValueError("method 'ode' used tf.contrib, which TensorFlow 2 lacks: pass your integrator as odeint_fn")
    vec = tf.convert_to_tensor(vec)
    times = tf.concat([[0.0], tf.reshape(tf.cast(out_time_pt, tf.float32), [-1])], axis=0)
    path = odeint_fn(lambda u, _: transform(vec, u), tf.zeros_like(vec), times, **(ode_args or {}))[1:]
    return path[0] if len(path) == 1 else tf.stack(list(path), axis=-1)


def value_at_location(x, single_vol=False, single_pts=False, force_post_absolute_val=True) -> tf.Tensor:
    """Values of a volume at points: `x = [volume [B, *S, C], points [B, P, N]]` to `[B, P, C]`.

    With points `[B, P, N+1]` the last entry chooses the channel, and the result is `[B, P]`.

    Args:
        x: the two of them.
        single_vol, single_pts: taken for VoxelMorph's sake; a batch of one meets any batch.
        force_post_absolute_val: return absolute values.
    """
    return ValueAtLocation(force_post_absolute_val)([tf.convert_to_tensor(t) for t in x])


def point_spatial_transformer(x, single=False, sdt_vol_resize=1) -> tf.Tensor:
    """Points moved by a displacement: `x = [points [B, P, N], displacement [B, *S, N]]`.

    A displacement that pulls an image from A to the grid of B takes points of B to A.

    Args:
        x: the two of them; positions and displacements in voxels.
        single: taken for VoxelMorph's sake; a batch of one meets any batch.
        sdt_vol_resize: factor on the displacement, for points on a grid so many times finer.
    """
    surface_points, displacement = x
    return points.displace(surface_points, displacement, sdt_vol_resize)


def keras_transform(img, trf, interp_method="linear", rescale=None) -> np.ndarray:
    """Warp images `[B, *S, C]` by dense or affine transforms, the transforms upsampled by `rescale` first.

    Args:
        img: images, any channels.
        trf: `[B, *S, N]`, voxels, or `[B, N, N+1]`.
        interp_method: "linear" or "nearest".
        rescale: factor, for a displacement on a coarser grid; None for none.
    """
    trf = tf.cast(trf, tf.float32)
    trf = trf if rescale is None else RescaleTransform(rescale)(trf)
    return SpatialTransformer(interp_method)([tf.convert_to_tensor(img), trf]).numpy()


def invert_affine(mat) -> tf.Tensor:
    """Inverse of affine matrices `[…, N, N+1]`.

    Args:
        mat: matrices of any batch.
    """
    return tf.linalg.inv(make_square_affine(tf.convert_to_tensor(mat)))[..., :-1, :]


def affine_to_dense_shift(matrix, shape, shift_center=True, indexing="ij") -> tf.Tensor:
    """Displacement `[*shape, N]` of an affine matrix `[N, N+1]` on a grid: A·x − x.

    Args:
        matrix: maps voxels to voxels.
        shape: spatial size of the grid.
        shift_center: whether the matrix acts about the centre of the grid.
        indexing: "ij"; "xy" for the original's cartesian grid.
    """
    if indexing != "ij":
        return _original.affine_to_dense_shift(matrix, shape, shift_center, indexing)
    validate_affine_shape(np.shape(matrix))
    return affine.to_displacement(tf.cast(matrix, tf.float32)[None], list(shape), shift_center)[0]
