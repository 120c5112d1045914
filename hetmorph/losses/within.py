"""An image loss of the voxels that count, of whatever loss `compile` was given."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from hetmorph.losses.serializable import LossMethod
from hetmorph.losses.voxelwise import voxelwise_loss
from hetmorph.ops.masks import Counted, weighted_mean

_views = contextvars.ContextVar("hetmorph_counted", default=None)


def voxelwise_within(image_loss) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Function `(fixed, moved, weight) → [B, *S, C]`, the map behind an image loss where only some voxels count.

    Where a loss compares more than a voxel with a voxel, its `voxelwise` takes `weight` besides: so no window holds
    what shall not count.

    Args:
        image_loss: as `voxelwise_loss` takes it.

    Raises:
        ValueError: a loss that is no mean over voxels.
    """
    voxelwise = voxelwise_loss(image_loss)
    if "weight" in inspect.signature(voxelwise).parameters:
        return voxelwise
    return lambda fixed, moved, weight: voxelwise(fixed, moved)


def within(image_loss) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Function `(fixed, moved, weight) → [B]`: an image loss of the voxels that count.

    A loss object that is no mean over voxels may have `within`, as mutual information has.

    Args:
        image_loss: a loss object, its `.loss`, or what else `voxelwise_loss` takes.

    Raises:
        ValueError: a loss that is neither.
    """
    owner = image_loss.owner if isinstance(image_loss, LossMethod) else getattr(image_loss, "__self__", image_loss)
    if hasattr(owner, "within"):
        return owner.within
    voxelwise = voxelwise_within(image_loss)
    return lambda fixed, moved, weight: weighted_mean(voxelwise(fixed, moved, weight), weight)


def loss_within(image_loss, fixed, moved, counted: Counted) -> tf.Tensor:
    """An image loss of what counts, times the part of the image that it is at rest, `[B]`.

    Args:
        image_loss: as of `within`.
        fixed, moved: images `[B, *S, C]`.
        counted: where they count.
    """
    return counted.part * within(image_loss)(fixed, moved, counted.weight)


@contextlib.contextmanager
def counting(views: Sequence[Counted | None]) -> Iterator[None]:
    """Inside, `InMask` losses look at what counts.

    Args:
        views: one for each direction that is registered.
    """
    token = _views.set(list(views))
    try:
        yield
    finally:
        _views.reset(token)


def counted_now(view: int) -> Counted | None:
    """What counts in a direction, as `counting` was told; None for everything.

    Args:
        view: number of the direction.
    """
    views = _views.get()
    return None if views is None else views[view]


def of_images(losses, names: Sequence[str], replaced: Callable):
    """Losses as `compile` takes them, those of the images replaced; one for all outputs stays.

    Args:
        losses: one for all outputs, a list, or a dictionary by the names of the outputs.
        names: the names of the outputs; the last is no image.
        replaced: function `(loss, view) → loss`, `view` the number of the direction.
    """
    images = names[:-1]
    if isinstance(losses, dict):
        return {name: replaced(one, images.index(name)) if name in images else one for name, one in losses.items()}
    if not isinstance(losses, (list, tuple)) or len(losses) != len(names):
        return losses
    return type(losses)([*(replaced(one, view) for view, one in enumerate(losses[:-1])), losses[-1]])


class InMask:
    """An image loss in `compile`, of the voxels that count where a batch says which.

    Keras hands on the images alone; what counts is asked for when the loss is computed.

    Args:
        image_loss: function `(fixed, moved) → loss`, or a name that Keras knows.
        view: number of the direction that it is of.
    """

    def __init__(self, image_loss, view: int):
        self.image_loss, self.view = image_loss, view
        self._whole = keras.losses.get(image_loss)
        self.__name__ = getattr(self._whole, "__name__", type(image_loss).__name__)

    @classmethod
    def each(cls, losses, names: Sequence[str]):
        """Losses as `compile` takes them, those of the images replaced.

        Args:
            losses: one for all outputs, a list, or a dictionary by the names of the outputs.
            names: the names of the outputs; the last is no image.
        """
        return of_images(losses, names, cls._of)

    @classmethod
    def _of(cls, loss, view: int):
        # A loss of Keras reduces by itself, with weights of its own.
        return loss if loss is None or isinstance(loss, keras.losses.Loss) else cls(loss, view)

    def __call__(self, fixed, moved):
        counted = counted_now(self.view)
        return self._whole(fixed, moved) if counted is None else loss_within(self.image_loss, fixed, moved, counted)
