"""Steps made of steps."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from hetmorph.ops.grid import block_mean, spatial_shape
from hetmorph.steps.base import Step, moved_by
from hetmorph.transforms import Affine, Composition, Transform, in_frame


@keras.saving.register_keras_serializable("hetmorph")
class Then(Step):
    """One step after the other: each sees the moving image as the ones before have moved it.

    The transforms are composed, φ = φ₁∘φ₂∘…, and each moved image is read from the moving image itself: nothing is
    interpolated twice.

    Args:
        steps: in order.
        kwargs: further arguments of `keras.layers.Layer`.

    Reference:
        Zhao et al., Recursive cascaded networks for unsupervised medical image registration, ICCV 2019,
        doi:10.1109/ICCV.2019.01070.
    """

    def __init__(self, steps: Sequence[Step], **kwargs):
        super().__init__(**kwargs)
        if not steps:
            raise ValueError("expected at least one step, received none")
        if len({id(step) for step in steps}) < len(steps):
            raise ValueError("expected different steps, received one twice; Repeated applies one several times")
        self.steps = list(steps)

    @property
    def invertible(self) -> bool:
        return all(step.invertible for step in self.steps)

    def transform(self, moving, fixed, training=None) -> Transform:
        return _in_turn(self.steps, moving, fixed, training)


def _in_turn(steps: Sequence[Step], moving, fixed, training) -> Transform:
    """The composed transform of steps of which each sees the moving image as the ones before have moved it."""
    first, *others = steps
    whole = first.transform(moving, fixed, training=training)
    for step in others:
        whole = Composition(whole, step.transform(moved_by(whole, moving), fixed, training=training))
    return whole


class Around(Step):
    """A step that changes how another one is asked.

    Args:
        step: the other one.
        kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, step: Step, **kwargs):
        super().__init__(**kwargs)
        self.step = step

    @property
    def invertible(self) -> bool:
        return self.step.invertible


@keras.saving.register_keras_serializable("hetmorph")
class Repeated(Around):
    """The same step several times, as `Then` applies different ones: one set of weights, trained through all passes.

    Args:
        step: the step.
        times: how often.
    """

    def __init__(self, step: Step, times: int = 2, **kwargs):
        super().__init__(step, **kwargs)
        if times < 1:
            raise ValueError(f"expected times >= 1, received {times}")
        self.times = times

    def transform(self, moving, fixed, training=None) -> Transform:
        return _in_turn([self.step] * self.times, moving, fixed, training)


@keras.saving.register_keras_serializable("hetmorph")
class AtResolution(Around):
    """A step on images whose voxels are averaged in blocks, its transform brought back to the voxels of the images.

    Args:
        step: the step.
        factor: voxels along each side of a block. What does not fill a block at the end of an axis is averaged alone.
        corners: take the first and the last voxel of the small images to lie on those of the images, as the networks
            of the GradICON family were trained, instead of each voxel in the middle of its block.
    """

    def __init__(self, step: Step, factor: int = 2, corners: bool = False, **kwargs):
        super().__init__(step, **kwargs)
        if factor < 1 or int(factor) != factor:
            raise ValueError(f"expected a whole factor >= 1, received {factor}")
        self.factor, self.corners = int(factor), corners

    def transform(self, moving, fixed, training=None) -> Transform:
        small = [block_mean(image, self.factor) for image in (moving, fixed)]
        return in_frame(self.step.transform(*small, training=training), self._to_voxels(small[1], fixed))

    def both(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        small = [block_mean(image, self.factor) for image in (moving, fixed)]
        there, back = self.step.both(*small, training=training)
        return in_frame(there, self._to_voxels(small[1], fixed)), in_frame(back, self._to_voxels(small[0], moving))

    def _to_voxels(self, small, image) -> Affine:
        return to_voxels(small, image, self.factor, self.corners)


def to_voxels(small, image, factor: int, corners: bool) -> Affine:
    """From voxels of a small image to those of the image that it was made of.

    Args:
        small, image: `[B, *S, C]`.
        factor: voxels of the image for one of the small image.
        corners: whether the first and the last voxel of both lie on each other, instead of each voxel in the middle of
            its block.
    """
    if corners:
        ends = [tf.maximum(tf.cast(tf.stack(spatial_shape(x)), tf.float32) - 1, 1.0) for x in (image, small)]
        return Affine(tf.linalg.diag(ends[0] / ends[1]), tf.zeros_like(ends[0]))
    # The middle of block i lies at voxel factor·i + (factor − 1)/2.
    ndims = image.shape.rank - 2
    return Affine(factor * np.eye(ndims), np.full(ndims, (factor - 1) / 2))


@keras.saving.register_keras_serializable("hetmorph")
class Consistent(Around):
    """A step whose transforms of (A, B) and (B, A) are inverse to each other by construction.

    φ_AB = exp(½·(g(A, B) − g(B, A))): exchanging the images negates what is exponentiated. Exact for `AffineStep`, up
    to the steps of the integration for `VelocityStep`.

    Args:
        step: a `VelocityStep` or `AffineStep`.

    Reference:
        Greer et al., Inverse consistency by construction for multistep deep registration, MICCAI 2023,
        arXiv:2305.00087.
    """

    def __init__(self, step: Step, **kwargs):
        super().__init__(step, **kwargs)
        if not hasattr(step, "generator"):
            raise ValueError(
                "expected a step whose transform is an exponential, VelocityStep or AffineStep, "
                f"received {type(step).__name__}"
            )

    def transform(self, moving, fixed, training=None) -> Transform:
        return self.step.exponential(self._generator(moving, fixed, training), fixed)

    def both(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        """The transforms of (moving, fixed) and (fixed, moving), of which the network is asked once."""
        return self._powers(moving, fixed, training, 1.0)

    def root(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        """What leads half the way, in both directions: r∘r is the transform.

        Args:
            moving, fixed, training: as of `transform`.
        """
        return self._powers(moving, fixed, training, 0.5)

    def _powers(self, moving, fixed, training, exponent: float) -> tuple[Transform, Transform]:
        generator = exponent * self._generator(moving, fixed, training)
        return self.step.exponential(generator, fixed), self.step.exponential(-generator, moving)

    def _generator(self, moving, fixed, training):
        there = self.step.generator(moving, fixed, training)
        return (there - self.step.generator(fixed, moving, training)) / 2
