"""What a `Guide` says of a pair as tensors, at any resolution, and what it adds to the loss."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hetmorph.evaluation.guide import Guide
from hetmorph.objectives.terms import apart, structure_maps
from hetmorph.ops import separable
from hetmorph.ops.interpolation import interpolate
from hetmorph.ops.masks import counted_where, sampled_within
from hetmorph.ops.smoothing import gaussian
from hetmorph.ops.warp import warp
from hetmorph.steps import Ends, View
from hetmorph.steps.known import conserved

Known = dict[str, tf.Tensor]

_SOFT = 1.0  # voxels


def known(guide: Guide | None) -> Known:
    """The tensors: masks `[1, *S, 1]` and the part of the image that they leave; volumes `[1, *S, 1]`; points
    `[1, P, N]`, maps of structures `[1, *S, labels]`, and their weights.
    """
    if guide is None:
        return {}
    result = {}
    for name, mask in (("mask_fixed", guide.mask_fixed), ("mask_moving", guide.mask_moving)):
        if mask is not None:
            there = np.float32(np.asarray(mask) != 0)
            result[name] = tf.constant(there[None, ..., None])
            result.setdefault("part", tf.constant([there.mean()]))
    if guide.volume is not None:
        result["volume_moving"] = tf.constant(np.float32(guide.volume)[None, ..., None])
    if guide.points_fixed is not None:
        spacing = np.ones(guide.points_fixed.shape[1]) if guide.spacing is None else guide.spacing
        numbers = {"fixed": guide.points_fixed[None], "moving": guide.points_moving[None], "spacing": spacing}
        result |= {f"points_{name}": tf.constant(np.float32(values)) for name, values in numbers.items()}
        result["points_weight"] = tf.constant(np.float32(guide.weight))
    if guide.labels:
        for name, labels in (("fixed", guide.labels_fixed), ("moving", guide.labels_moving)):
            result[f"labels_{name}"] = structure_maps(np.asarray(labels)[None, ..., None], guide.structures)
        result["labels_weight"] = tf.constant(np.float32(guide.dice_weight))
    return result


def of_images(said: Known) -> Known:
    """What a model's own image losses are told: where the images count, and volumes."""
    return {name: said[name] for name in ("mask_moving", "mask_fixed", "volume_moving") if name in said}


def softened(pair: tuple) -> tuple:
    """A pair whose maps of structures have smooth edges.

    At rest every voxel lies on a kink of a sharp map's interpolation, and the slope on one side of it says nothing of
    the other: a line search finds no way down.
    """
    *images, said = pair
    soft = {name: gaussian(said[name], _SOFT) for name in ("labels_moving", "labels_fixed") if name in said}
    return *images, said | soft


def shrunk(pair: tuple, factor: Sequence[int]) -> tuple:
    """A pair `(moving, fixed, weight, start, said)` for every `factor`-th voxel."""
    moving, fixed, weight, start, said = pair
    factors, result = tf.constant(factor, tf.float32), dict(said)
    shrink = functools.partial(separable.shrink, factors=factor)
    moving, moving_part = _sampled(moving, said.get("mask_moving"), shrink)
    fixed, fixed_part = _sampled(fixed, said.get("mask_fixed"), shrink)
    result |= {} if moving_part is None else {"mask_moving": moving_part}
    result |= {} if fixed_part is None else {"mask_fixed": fixed_part}
    if "volume_moving" in said:
        result["volume_moving"] = shrink(said["volume_moving"])
    if "points_fixed" in said:
        result |= {name: said[name] / factors for name in ("points_fixed", "points_moving")}
        result["points_spacing"] = said["points_spacing"] * factors
    if "labels_fixed" in said:
        result |= {name: shrink(said[name]) for name in ("labels_fixed", "labels_moving")}
    return moving, fixed, shrink(weight), shrink(start) / factors, result


def view(said: Known, fixed, moving, displacement) -> View:
    """The fixed and the moved image as they are compared."""
    image, part = _sampled(moving, said.get("mask_moving"), functools.partial(warp, displacement=displacement))
    seen = View(fixed, image, moving, counted_where(said.get("mask_fixed"), part, said.get("part")))
    return conserved(seen, displacement, Ends(said["volume_moving"])) if "volume_moving" in said else seen


def _sampled(image, mask, sample: Callable) -> tuple[tf.Tensor, tf.Tensor | None]:
    """An image and its mask, resampled; from voxels of the mask alone wherever there are any."""
    if mask is None:
        return sample(image), None
    plain, inside, part = tf.split(sample(tf.concat([image, mask * image, mask], -1)), 3, axis=-1)
    return sampled_within(plain, inside, part), part


def pulls(said: Known) -> bool:
    """Whether there is something that `pull` brings together."""
    return "points_fixed" in said or "labels_fixed" in said


def pull(said: Known, displacement, back=None, squared: bool = False) -> tf.Tensor:
    """Weights times the mean squared distance of points from where they belong, and 1 − Dice of warped structures.

    Args:
        said: what is known.
        displacement: `[1, *S, N]`.
        back: the same of the other direction, of which the mean is taken; None where there is none.
        squared: as of `apart`.
    """
    ways = [("fixed", "moving", displacement)] + ([] if back is None else [("moving", "fixed", back)])
    return tf.add_n([_missed(said, *way) + _apart(said, *way, squared) for way in ways]) / len(ways)


def _missed(said: Known, start: str, end: str, displacement) -> tf.Tensor:
    if "points_fixed" not in said:
        return tf.zeros([])
    points = said[f"points_{start}"]
    there = points + interpolate(displacement, points, relative=False)
    missed = (there - said[f"points_{end}"]) * said["points_spacing"]
    return said["points_weight"] * tf.reduce_mean(tf.reduce_sum(missed**2, -1))


def _apart(said: Known, start: str, end: str, displacement, squared: bool) -> tf.Tensor:
    if "labels_fixed" not in said:
        return tf.zeros([])
    maps = said[f"labels_{end}"], said[f"labels_{start}"]
    return said["labels_weight"] * tf.reduce_mean(apart(*maps, displacement, squared))
