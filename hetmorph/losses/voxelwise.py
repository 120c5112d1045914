"""The map behind an image loss, for objectives that weight voxels."""

from collections.abc import Callable

import keras
import tensorflow as tf

from hetmorph.losses.serializable import LossMethod
from hetmorph.losses.similarity import MSE

_SQUARED = ("mse", "mean_squared_error", "MSE", "MeanSquaredError")


def voxelwise_loss(loss) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Function `(y_true, y_pred) → [B, *S, C]` whose mean is the given image loss.

    Args:
        loss: `MSE().loss`, `NCC().loss`, `TukeyBiweight().loss`, those objects themselves, voxelmorph's own MSE, or
            Keras' mean squared error by object, function or name.

    Raises:
        ValueError: a loss that is no mean over voxels, such as mutual information.
    """
    owner = loss.owner if isinstance(loss, LossMethod) else getattr(loss, "__self__", loss)
    if hasattr(owner, "voxelwise"):
        return owner.voxelwise
    if type(owner).__name__ == "MSE" and hasattr(owner, "image_sigma"):  # voxelmorph's own
        return MSE(owner.image_sigma).voxelwise
    if loss in _SQUARED or loss is keras.losses.mean_squared_error or isinstance(loss, keras.losses.MeanSquaredError):
        return MSE().voxelwise
    raise ValueError(
        f"weights of voxels need an image loss that is a mean over voxels, such as MSE, NCC, MIND or NGF; got {loss!r}"
    )
