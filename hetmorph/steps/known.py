"""What is known of a batch of pairs besides the images: where they count, points that correspond, structures, mass."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hetmorph.ops.fields import cell_determinant
from hetmorph.ops.grid import cut
from hetmorph.ops.masks import Counted, counted_where, sampled_within
from hetmorph.ops.points import outside
from hetmorph.ops.warp import warp


class Ends(NamedTuple):
    """The same thing of both images of a pair; None where there is none."""

    moving: Any = None
    fixed: Any = None

    def exchanged(self) -> "Ends":
        """That of the exchanged pair."""
        return Ends(self.fixed, self.moving)

    def there(self) -> list:
        """Those that there are."""
        return [one for one in self if one is not None]


KINDS = ("mask", "points", "labels", "volume")
KNOWN = tuple(f"{kind}_{role}" for kind in KINDS for role in Ends._fields)


def split_known(inputs) -> tuple[Any, dict]:
    """What a model is called with, and what is known besides: a last dictionary after two or more inputs.

    Args:
        inputs: `[moving, fixed, …]`, perhaps with a dictionary by names of `KNOWN` as the last.

    Raises:
        ValueError: other names, or points or labels of one of the images alone.
    """
    if not (isinstance(inputs, (list, tuple)) and len(inputs) > 2 and isinstance(inputs[-1], Mapping)):
        return inputs, {}
    *images, known = inputs
    if unknown := [name for name in known if name not in KNOWN]:
        raise ValueError(f"expected what is known of a pair by the names {', '.join(KNOWN)}, received {unknown[0]!r}")
    known = {name: value for name, value in known.items() if value is not None}
    for kind in ("points", "labels"):
        ends = [f"{kind}_{role}" for role in Ends._fields]
        given = [name for name in ends if name in known]
        if len(given) == 1:
            raise ValueError(f"expected {' and '.join(ends)} together, received {given[0]} alone")
    return images if isinstance(inputs, list) else tuple(images), known


def check_known(inputs) -> None:
    """Refuse arrays that say nothing, or nothing of these images; of tensors, whose values come later, the shapes.

    Args:
        inputs: as of `split_known`.

    Raises:
        ValueError: as `split_known`, an empty mask, another grid, numbers of points that differ, a point outside its
            image, or a volume that is not above 0.
    """
    images, known = split_known(inputs)
    for number, role in enumerate(Ends._fields if known else ()):
        image, mask, points, labels, volume = images[number], *(known.get(f"{kind}_{role}") for kind in KINDS)
        shape = tuple(np.shape(image))
        if mask is not None:
            _check_mask(f"mask_{role}", mask, shape)
        if points is not None:
            _check_points(f"points_{role}", points, shape)
        if labels is not None:
            _check_grid(f"labels_{role}", labels, shape)
        if volume is not None:
            _check_volume(f"volume_{role}", volume, shape)
    if "points_fixed" in known:
        shapes = [tuple(np.shape(known[name])) for name in ("points_moving", "points_fixed")]
        if shapes[0] != shapes[1]:
            raise ValueError(f"expected as many points of either image, received points_moving {shapes[0]} and "
                             f"points_fixed {shapes[1]}")  # fmt: skip


def _check_mask(name: str, mask, shape: tuple[int, ...]) -> None:
    _check_grid(name, mask, shape)
    if isinstance(mask, np.ndarray) and not (filled := mask.reshape(len(mask), -1).any(1)).all():
        raise ValueError(f"{name} of sample {int(np.argmin(filled))} is empty, so that no voxel would count")


def _check_volume(name: str, volume, shape: tuple[int, ...]) -> None:
    _check_grid(name, volume, shape)
    if isinstance(volume, np.ndarray) and not (volume.min() > 0 and np.isfinite(volume).all()):
        raise ValueError(f"expected {name} above 0, received {volume.min():g} to {volume.max():g}")


def _check_grid(name: str, values, shape: tuple[int, ...]) -> None:
    if tuple(np.shape(values)) not in (shape[:-1], (*shape[:-1], 1)):
        raise ValueError(f"expected {name} on the grid of its image, {shape[:-1]}, received {tuple(np.shape(values))}")


def _check_points(name: str, points, shape: tuple[int, ...]) -> None:
    ndims = len(shape) - 2
    if np.ndim(points) != 3 or np.shape(points)[0] != shape[0] or np.shape(points)[-1] != ndims:
        raise ValueError(f"expected {name} [{shape[0]}, P, {ndims}], received {tuple(np.shape(points))}")
    if isinstance(points, np.ndarray):
        for sample, places in enumerate(points):
            if (beyond := outside(places, shape[1:-1])).any():
                number = int(np.argmax(beyond))
                raise ValueError(
                    f"{name}: point {number + 1} of sample {sample}, {np.round(places[number], 2).tolist()}, lies "
                    f"outside the image of {shape[1:-1]} voxels"
                )


def as_mask(mask, image) -> tf.Tensor | None:
    """A mask as 0 and 1, `[B, *S, 1]`.

    Args:
        mask: `[B, *S]` or `[B, *S, 1]`, not 0 where its image counts; None stays None.
        image: its image, `[B, *S, C]`.
    """
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    mask = mask if mask.shape.rank == image.shape.rank else mask[..., None]
    if not mask.shape[1:-1].is_compatible_with(image.shape[1:-1]):
        raise ValueError(f"expected a mask on the grid of its image, {image.shape[1:-1]}, received {mask.shape[1:-1]}")
    return tf.cast(tf.not_equal(mask, tf.zeros([], mask.dtype)) if mask.dtype != tf.bool else mask, tf.float32)


def as_map(values, image, dtype: tf.DType | None = None) -> tf.Tensor | None:
    """Numbers of the voxels, such as labels or volumes, `[B, *S, 1]`.

    Args:
        values: `[B, *S]` or `[B, *S, 1]`; None stays None.
        image: one of the pair's, `[B, *S, C]`.
        dtype: data type of the result; None keeps that of the values.
    """
    if values is None:
        return None
    values = tf.convert_to_tensor(values)
    values = values if values.shape.rank == image.shape.rank else values[..., None]
    return values if dtype is None else tf.cast(values, dtype)


class Moved(NamedTuple):
    """A moved image, and how much its voxels count; None for all alike."""

    image: tf.Tensor
    counted: Counted | None


def moved_within(plain, moving, displacement, masks: Ends) -> Moved:
    """The moved image where both images count, as the optimisation of a pair has it.

    The mask of the moving image is moved with it, and the image is then of voxels of the mask alone wherever there are
    any. What counts at rest is the mask of the fixed image, or without one that of the moving one.

    Args:
        plain: the image, moved with all its voxels, `[B, *S, C]`.
        moving: the image.
        displacement: `[B, *S, N]`.
        masks: masks of both images, `[B, *S, 1]`.
    """
    if not masks.there():
        return Moved(plain, None)
    part, image = None, plain
    if masks.moving is not None:
        inside = warp(tf.concat([masks.moving * tf.cast(moving, tf.float32), masks.moving], -1), displacement)
        inside, part = inside[..., :-1], inside[..., -1:]
        image = sampled_within(plain, inside, part)
    at_rest = masks.moving if masks.fixed is None else masks.fixed
    return Moved(image, counted_where(masks.fixed, part, tf.reduce_mean(at_rest, range(1, at_rest.shape.rank))))


class View(NamedTuple):
    """One direction of a registration: the moved image is compared with the fixed one, where they count."""

    fixed: tf.Tensor
    moved: tf.Tensor
    moving: tf.Tensor
    counted: Counted | None = None


def conserved(view: View, displacement, volumes: Ends) -> View:
    """Images of a density whose mass does not change as they are deformed: what is compressed becomes denser.

    m(φ(x))·V_m(φ(x))·det(I + ∇u) is compared with f(x)·V_f(x), where V is the volume that a voxel stands for. The
    determinants are those of the cells of the grid, so that the last voxel along each axis is left out.

    Args:
        view: images `[B, *S, C]`, in intensities that are proportional to density.
        displacement: `[B, *S, N]`, by which the moved image was moved.
        volumes: volumes of the moving and the fixed image, `[B, *S, 1]`; None is 1.

    Returns:
        The view with fixed and moved image, and what counts, on `[B, *(S − 1), C]`.

    Reference:
        Tian et al., uniGradICON, MICCAI 2024, arXiv:2403.05780, as its package 1.0.6 has it for CT, without volumes.
    """
    fixed, moved, counted = view.fixed, view.moved, view.counted
    moved = moved if volumes.moving is None else moved * warp(volumes.moving, displacement)
    fixed = fixed if volumes.fixed is None else fixed * volumes.fixed
    moved = cell_determinant(displacement)[..., None] * _in_cells(moved)
    counted = None if counted is None else counted._replace(weight=_in_cells(counted.weight))
    return view._replace(fixed=_in_cells(fixed), moved=moved, counted=counted)


def _in_cells(values: tf.Tensor) -> tf.Tensor:
    """Without the last voxel along each axis."""
    for axis in range(1, values.shape.rank - 1):
        values = cut(values, axis, 0, -1)
    return values
