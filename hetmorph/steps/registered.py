"""A registered pair: the one record that everything which is minimised looks at."""

from collections.abc import Callable, Sequence
from functools import cached_property

import tensorflow as tf

from hetmorph.ops.warp import warp
from hetmorph.steps.base import displacement_on
from hetmorph.steps.known import Ends, View, as_map, as_mask, conserved, moved_within
from hetmorph.transforms import Transform

_NONE = Ends()


class Registered:
    """A batch of pairs and their transforms; whatever else follows from these is computed when it is first asked for.

    Args:
        moving, fixed: `[B, *S, C]`, float32.
        forward: φ with moving∘φ ≈ fixed, on voxel indices.
        backward: that of the exchanged images, or None where one direction is registered.
        field: what is kept smooth, `[B, *V, N]`; None takes the displacement.
        added: losses that the model was given by `add_loss`, tensors.
        fill_value: value outside the images, which they reach within the voxel beyond the edge; None repeats the edge.
        read_variance: function from a `View` to its log σ², `[B, *S, C]`; None without a variance network.
        step: number of the update, from which the random numbers of a term follow.
        masks: masks of both images, `[B, *S]` or `[B, *S, 1]`, not 0 where an image counts; None counts everywhere.
        points: `[B, P, N]` voxels in the moving and the same in the fixed image; NaN fills up where a sample has fewer.
        labels: structures of both images, whole numbers `[B, *S]` or `[B, *S, 1]`.
        volumes: what a voxel of either image stands for, `[B, *S]` or `[B, *S, 1]`, None for 1. Where there are any,
            intensities are densities, and moved images conserve their mass, see `known.conserved`.
    """

    def __init__(
        self,
        moving,
        fixed,
        forward: Transform,
        backward: Transform | None = None,
        field=None,
        added: Sequence[tf.Tensor] = (),
        fill_value: float | None = None,
        read_variance: Callable[[View], tf.Tensor] | None = None,
        step: tf.Tensor | int = 0,
        masks: Ends = _NONE,
        points: Ends = _NONE,
        labels: Ends = _NONE,
        volumes: Ends = _NONE,
    ):
        self.moving, self.fixed, self.forward, self.backward = moving, fixed, forward, backward
        self.added, self.fill_value, self.read_variance, self.step = added, fill_value, read_variance, step
        self.know(masks, points, labels, volumes)
        if field is not None:
            self.field = field

    def know(self, masks: Ends, points: Ends, labels: Ends = _NONE, volumes: Ends = _NONE) -> None:
        """Take what is known besides, before anything is asked for.

        Args:
            masks, points, labels, volumes: as of the record.
        """
        self.masks = Ends(as_mask(masks.moving, self.moving), as_mask(masks.fixed, self.fixed))
        self.points = Ends(*(one if one is None else tf.cast(one, tf.float32) for one in points))
        self.labels = Ends(*(as_map(one, self.fixed) for one in labels))
        self.volumes = Ends(*(as_map(one, self.fixed, tf.float32) for one in volumes))

    @cached_property
    def displacement(self) -> tf.Tensor:
        """φ(x) − x at the voxels of the fixed image, `[B, *S, N]`."""
        return displacement_on(self.forward, self.fixed)

    @cached_property
    def backward_displacement(self) -> tf.Tensor | None:
        """The same of the backward transform, at the voxels of the moving image."""
        return None if self.backward is None else displacement_on(self.backward, self.moving)

    @cached_property
    def field(self) -> tf.Tensor:
        """What is kept smooth; the displacement, where the model says nothing else."""
        return self.displacement

    @cached_property
    def warped(self) -> tf.Tensor:
        """The moving image pulled through φ with all its voxels, `[B, *S, C]`."""
        return warp(self.moving, self.displacement, fill_value=self.fill_value, fade=True)

    @cached_property
    def warped_back(self) -> tf.Tensor | None:
        """The fixed image pulled through the backward transform."""
        if self.backward is None:
            return None
        return warp(self.fixed, self.backward_displacement, fill_value=self.fill_value, fade=True)

    @property
    def moved(self) -> tf.Tensor:
        """The same as `warped`, of voxels that count alone wherever there are any."""
        return self.views[0].moved

    @property
    def moved_back(self) -> tf.Tensor | None:
        """That of the backward transform."""
        return None if self.backward is None else self.views[1].moved

    @cached_property
    def views(self) -> list[View]:
        """One for each direction that is registered."""
        there = self._view(self.warped, self.moving, self.fixed, self.displacement, self.masks, self.volumes)
        if self.backward is None:
            return [there]
        known = self.masks.exchanged(), self.volumes.exchanged()
        return [there, self._view(self.warped_back, self.fixed, self.moving, self.backward_displacement, *known)]

    @staticmethod
    def _view(plain, moving, fixed, displacement, masks: Ends, volumes: Ends) -> View:
        there = moved_within(plain, moving, displacement, masks)
        view = View(fixed, there.image, moving, there.counted)
        return conserved(view, displacement, volumes) if volumes.there() else view

    @cached_property
    def log_variances(self) -> list[tf.Tensor]:
        """log σ² of each view's residual; computed where they are first asked for, under the tapes that run there."""
        if self.read_variance is None:
            raise ValueError("expected a model with a variance network, received one without")
        return [self.read_variance(view) for view in self.views]
