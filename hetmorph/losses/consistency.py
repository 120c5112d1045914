"""How far two transforms, one from each image to the other, are from undoing each other; how rough velocities are.

Everything is told in the unit cube of the images' grid, x/(N − 1) along each axis, in which the methods that brought
these penalties up were published: their λ hold here. Transforms are asked where points go; no field is resampled.
"""

from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from hetmorph.losses.serializable import per_sample, positive
from hetmorph.losses.smoothness import differences, sample_mean
from hetmorph.ops.grid import spatial_shape
from hetmorph.transforms import Composition, Displacement, Transform, Velocity, voxels
from hetmorph.transforms.composition import parts
from hetmorph.transforms.implicit import differentiated


def inverse_consistency(
    forward,
    backward,
    shape: Sequence | None = None,
    points=None,
    *,
    weight: float = 1.0,
    jitter: float = 1.0,
    seed=None,
) -> tf.Tensor:
    """λ·(E‖x − φ_AB(φ_BA(x))‖² + E‖x − φ_BA(φ_AB(x))‖²), ‖·‖² the mean over the components.

    Args:
        forward: φ_AB, a `Transform` or a displacement `[B, *S, N]`, voxels.
        backward: φ_BA, likewise; it leads back, onto the same grid.
        shape: spatial sizes `*S` of the images' grid; None if one of the two is a displacement on it.
        points: `[B, *T, N]`, voxels, where to look; None takes every voxel, moved by `jitter`.
        weight: λ.
        jitter: standard deviation of a random shift of each point, in voxels of the last axis. Between voxels linear
            interpolation hides no error that vanishes on them. 0 takes the voxels themselves.
        seed: seed of the shift: an integer, or a tensor of two, gives the same at each call; a
            `keras.random.SeedGenerator` or None (Keras' own) another one at each call, also within a graph.

    Returns:
        One number per sample, `[B]` float32.

    Raises:
        ValueError: a direction is missing, grids or their numbers of axes differ, none is known, or a number is out of
            range.

    Example:
        >>> there, back = model.register(moving, fixed), model.register(fixed, moving)
        >>> inverse_consistency(there, back, weight=1600)

    Reference:
        Greer et al., ICON: learning regular maps through inverse consistency, ICCV 2021, arXiv:2105.04459.
    """
    _at_least_zero(weight, "weight λ")
    forward, backward, sizes = _both_ways(forward, backward, shape)
    points = _points(points, sizes, 1, jitter, seed)
    orders = _error(forward, backward, points, sizes), _error(backward, forward, points, sizes)
    return weight * tf.add_n([per_sample(tf.square(error)) for error in orders])


def gradient_inverse_consistency(
    forward,
    backward,
    shape: Sequence | None = None,
    points=None,
    *,
    weight: float = 1.0,
    delta: float = 1e-3,
    sparse: bool = True,
    jitter: float = 1.0,
    seed=None,
) -> tf.Tensor:
    """λ·E‖∇e‖²_F / N for e(x) = x − φ_AB(φ_BA(x)), by differences: a common translation is not punished.

    The differences along all axes start from the same points. Arguments and errors as `inverse_consistency`, and:

    Args:
        delta: length of a difference, as a share of the unit cube.
        sparse: look at every second voxel along each axis, shifted by twice the jitter.

    Returns:
        One number per sample, `[B]` float32.

    Reference:
        Tian et al., GradICON: approximate diffeomorphisms via gradient inverse consistency, CVPR 2023,
        arXiv:2206.05897.
    """
    _at_least_zero(weight, "weight λ")
    positive(delta, "delta")
    forward, backward, sizes = _both_ways(forward, backward, shape)
    points = _points(points, sizes, 2 if sparse else 1, jitter, seed)
    ndims = len(sizes)
    ahead = tf.concat([tf.zeros([1, ndims]), delta * tf.linalg.diag(_extent(sizes))], axis=0)
    ahead = tf.reshape(ahead, [1, ndims + 1, *[1] * (len(points.shape) - 2), ndims])
    error = _error(forward, backward, points[:, None] + ahead, sizes)
    return weight * ndims * per_sample(tf.square((error[:, :1] - error[:, 1:]) / delta))


def jacobian_inverse_consistency(forward: Transform, backward: Transform, points, *, weight: float = 1.0) -> tf.Tensor:
    """λ·½·Σ_orders E‖∂(φ_AB∘φ_BA)/∂x − I‖²_F / N², by differentiation and not by differences.

    Args:
        forward: φ_AB.
        backward: φ_BA, which leads back.
        points: `[B, *T, N]`, voxels, where to look: of as many samples as the transforms.
        weight: λ.

    Returns:
        One number per sample, `[B]` float32.

    Raises:
        ValueError: a direction is missing, the numbers of axes differ, or λ is below 0.

    Reference:
        Tian et al., NePhi: neural deformation fields for approximately diffeomorphic medical image registration,
        ECCV 2024, arXiv:2309.07322.
    """
    _at_least_zero(weight, "weight λ")
    forward, backward, _ = _both_ways(forward, backward, (None,) * tf.convert_to_tensor(points).shape[-1])
    points = tf.cast(points, tf.float32)
    both = Composition(forward, backward), Composition(backward, forward)
    orders = [differentiated(way, points) - tf.eye(points.shape[-1]) for way in both]
    return weight / 2 * tf.add_n([per_sample(tf.square(error)) for error in orders])


def velocity_diffusion(velocity, weight: float = 1.0) -> tf.Tensor:
    """λ·N₁²·Σ_axes E[(forward difference of v)²] of velocities in the unit cube, N₁ the voxels of their first axis.

    Args:
        velocity: `[B, *S, N]`, voxels of its own grid per unit time; or a transform, of whose different velocities
            the sum is taken, each once however often it is composed.
        weight: λ.

    Returns:
        One number per sample, `[B]` float32.

    Raises:
        ValueError: a transform without velocities, or λ below 0.

    Reference:
        Greer et al., Inverse consistency by construction for multistep deep registration, MICCAI 2023,
        arXiv:2305.00087.
    """
    _at_least_zero(weight, "weight λ")
    fields = list(_velocities(velocity)) if isinstance(velocity, Transform) else [velocity]
    if not fields:
        raise ValueError(f"expected a transform made of velocities, received {type(velocity).__name__} without any")
    return weight * tf.add_n([_diffusion(field) for field in fields])


def _diffusion(velocity) -> tf.Tensor:
    velocity = tf.cast(velocity, tf.float32)
    sizes = tf.cast(tf.shape(velocity)[1:-1], tf.float32)
    unit = velocity / tf.maximum(sizes - 1, 1)
    return sizes[0] ** 2 * tf.add_n([sample_mean(tf.square(d)) for d in differences(unit, velocity.shape.rank - 2)])


def _velocities(transform: Transform) -> Iterator[tf.Tensor]:
    for part in {id(part): part for part in parts(transform)}.values():
        if isinstance(part, Velocity):
            yield part.velocity


def _error(outer: Transform, inner: Transform, points, sizes: Sequence) -> tf.Tensor:
    """x − outer(inner(x)) in the unit cube, same shape as the points."""
    return (points - outer(inner(points))) / _extent(sizes)


def _extent(sizes: Sequence) -> tf.Tensor:
    """Voxels that the unit cube is long along each axis."""
    return tf.cast(tf.stack(list(sizes)), tf.float32) - 1


def _both_ways(forward, backward, shape) -> tuple[Transform, Transform, tuple]:
    """The two as transforms that compute in float32, and the sizes of the grid; those given as None may be any."""
    for name, given in (("forward", forward), ("backward", backward)):
        if given is None:
            raise ValueError(f"expected a transform or a displacement [B, *S, N] in each direction, {name} is None")
    both = [x if isinstance(x, Transform) else Displacement(tf.cast(x, tf.float32)) for x in (forward, backward)]
    grids = [spatial_shape(way.field) for way, x in zip(both, (forward, backward), strict=True) if way is not x]
    if shape is None:
        if not grids:
            raise ValueError("expected the shape of the images' grid beside two transforms, received None")
        shape = grids[0]
    if {transform.ndims for transform in both} != {len(shape)}:
        raise ValueError(
            f"expected two transforms of {len(shape)} axes on the grid {tuple(shape)}, "
            f"received {both[0].ndims} and {both[1].ndims}"
        )
    if any(isinstance(size, int) and size < 2 for size in shape):
        raise ValueError(f"expected a grid of at least 2 voxels along each axis, received {tuple(shape)}")
    for grid in grids:
        if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(grid, shape, strict=True)):
            raise ValueError(f"expected displacements on the grid {tuple(shape)}, received one on {tuple(grid)}")
    return *both, tuple(shape)


def _points(given, sizes: Sequence, stride: int, jitter: float, seed) -> tf.Tensor:
    """Those given, or every `stride`-th voxel, shifted; one shift for all samples, so that none depends on others."""
    _at_least_zero(jitter, "jitter")
    if given is not None:
        given = tf.cast(given, tf.float32)
        if len(given.shape) < 2 or given.shape[-1] != len(sizes):
            raise ValueError(f"expected points [B, ..., {len(sizes)}], received shape {tuple(given.shape)}")
        return given
    grid = tf.cast(voxels(sizes), tf.float32)[(slice(None), *[slice(None, None, stride)] * len(sizes))]
    if not jitter:
        return grid
    share = stride * jitter / tf.cast(sizes[-1], tf.float32)  # of the unit cube, along every axis
    if isinstance(seed, tf.Tensor):
        shift = tf.random.stateless_normal(tf.shape(grid), seed)
    else:
        shift = keras.random.normal(tf.shape(grid), dtype="float32", seed=seed)
    return grid + shift * share * _extent(sizes)


def _at_least_zero(value: float, name: str) -> None:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
