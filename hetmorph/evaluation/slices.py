"""A model of slices on volumes, one slice after another."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hetmorph.data.pair import Case
from hetmorph.evaluation.predictor import Predictor, pairs_together
from hetmorph.io import through_plane
from hetmorph.ops.warp import warp


class SliceBySlice(Predictor):
    """Predictor of volumes by a model for 2-D images; nothing moves across the slices.

    The model sees each slice stretched to [0, 1] by itself, as it was trained. log σ_I² is given in the intensities of
    the volume again.

    Args:
        predictor: registers 2-D images.
        axis: axis of the volume across the slices.
    """

    def __init__(self, predictor: Predictor, axis: int):
        super().__init__(3)
        self.predictor, self.across = predictor, axis
        self.compiles, self.random = predictor.compiles, predictor.random

    def _run(self, moving, fixed):
        results = self._each(self.predictor._run, moving, fixed)
        results["displacement"] = self._in_space(results["displacement"])
        if "log_variance" in results:
            results["log_variance"] = results["log_variance"] + self._log_stretch(fixed)
        return results | {"moved": warp(moving, results["displacement"]).numpy()}

    def _fields(self, moving, fixed):
        return self._alone(self.predictor._fields, moving, fixed)

    def backward(self, moving, fixed) -> np.ndarray | None:
        images = [_stretched(self._slices(np.asarray(volume)[None, ..., None])) for volume in (moving, fixed)]
        fields = [self.predictor.backward(*(image[..., 0] for image in pair)) for pair in zip(*images, strict=True)]
        return None if fields[0] is None else self._in_space(self._stacked(np.stack(fields), 1))[0]

    def _drawn(self, moving, fixed, seed):
        return self._alone(lambda *images: self.predictor._drawn(*images, seed), moving, fixed)

    def _alone(self, call: Callable, moving, fixed) -> np.ndarray:
        parts = self._each(lambda *images: {"displacement": call(*images)}, moving, fixed)
        return self._in_space(parts["displacement"])

    def _each(self, call: Callable, moving, fixed) -> dict[str, np.ndarray]:
        """What a function of 2-D images says of every slice, by name, stacked again: `[B, *S, C]`."""
        images = [_stretched(self._slices(volume)) for volume in (moving, fixed)]
        count, *shape = images[0].shape[:-1]
        together = pairs_together(shape)
        parts = [
            call(*(tf.constant(one[first : first + together]) for one in images)) for first in range(0, count, together)
        ]
        batch = moving.shape[0]
        return {
            name: self._stacked(np.concatenate([np.asarray(part[name], np.float32) for part in parts]), batch)
            for name in parts[0]
        }

    def _slices(self, volumes) -> np.ndarray:
        """The slices of volumes `[B, *S, 1]` as a batch."""
        inner = np.moveaxis(np.asarray(volumes), 1 + self.across, 1)
        return inner.reshape(-1, *inner.shape[2:])

    def _stacked(self, slices: np.ndarray, batch: int) -> np.ndarray:
        """Slices as volumes again, the other way round."""
        return np.moveaxis(slices.reshape(batch, -1, *slices.shape[1:]), 1, 1 + self.across)

    def _in_space(self, displacement: np.ndarray) -> np.ndarray:
        """Displacements within the slices as those of the volume."""
        return np.insert(displacement, self.across, 0.0, axis=-1)

    def _log_stretch(self, fixed) -> np.ndarray:
        """log of the squared range of each slice, `[B, *S, 1]`: the variance was of slices stretched to 1."""
        slices = self._slices(fixed)
        extent = _extent(slices)
        return self._stacked(np.broadcast_to(2 * np.log(np.where(extent > 0, extent, 1)), slices.shape), len(fixed))


def for_cases(predictor: Predictor, cases: Sequence[Case]) -> Predictor:
    """The predictor, slice by slice where it is of 2-D images and the cases are volumes, across their thickest voxels.

    Args:
        predictor: any; a function without `ndims` is left to itself.
        cases: what is known of the pairs that it shall register.

    Raises:
        ValueError: volumes whose voxels are thickest along different axes.
    """
    if getattr(predictor, "ndims", None) != 2 or {len(case.shape) for case in cases} != {3}:
        return predictor
    axes = {case.case_id: through_plane(case) for case in cases}
    if len(set(axes.values())) > 1:
        examples = {axis: name for name, axis in axes.items()}
        listed = ", ".join(f"axis {axis} in {name}" for axis, name in sorted(examples.items()))
        raise ValueError(f"expected volumes with slices across the same axis for a 2-D model, received {listed}")
    return SliceBySlice(predictor, next(iter(axes.values())))


def _extent(slices: np.ndarray) -> np.ndarray:
    return slices.max((1, 2, 3), keepdims=True) - slices.min((1, 2, 3), keepdims=True)


def _stretched(slices: np.ndarray) -> np.ndarray:
    """Each image of a batch stretched to [0, 1]; a constant one becomes zeros."""
    extent = _extent(slices)
    return (slices - slices.min((1, 2, 3), keepdims=True)) / np.where(extent > 0, extent, 1)
