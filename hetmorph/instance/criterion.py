"""What is minimised when one pair is optimised."""

from collections.abc import Callable

import tensorflow as tf

from hetmorph.losses import Grad
from hetmorph.losses.voxelwise import voxelwise_loss
from hetmorph.ops import fields
from hetmorph.ops.windows import local_correlation, window_of

_HALF_RESOLUTION = 2  # the factor on ‖∇u‖² of training at half resolution
_LEAST_VOLUME = 0.1
_FOLDING = 10.0


class LocalCorrelation:
    """1 − squared local correlation, the image loss by default.

    Args:
        side: side of the window, voxels; see `window_of`.
    """

    def __init__(self, side: int | None = None):
        self.side = side

    def voxelwise(self, fixed, moved) -> tf.Tensor:
        """Of images `[B, *S, C]`, each voxel."""
        return 1.0 - local_correlation(fixed, moved, window_of(fixed.shape[1:-1], self.side))

    def loss(self, fixed, moved) -> tf.Tensor:
        """The mean."""
        return tf.reduce_mean(self.voxelwise(fixed, moved))


class Criterion:
    """Image loss and smoothness of a displacement, and a penalty on a further displacement that folds.

    Args:
        image_loss: `(fixed, moved) → loss`.
        smoothness: λ.
        weighted: multiply the image loss of each voxel by a weight.
    """

    def __init__(self, image_loss: Callable, smoothness: float, weighted: bool):
        self.image_loss = voxelwise_loss(image_loss) if weighted else image_loss
        self.smoothness, self.weighted = smoothness, weighted

    def __call__(self, fixed, moved, weight, displacement) -> tf.Tensor:
        """The loss proper of images `[1, *S, 1]`, which may not rise."""
        dissimilarity = self.image_loss(fixed, moved)
        if self.weighted:
            dissimilarity = weight * dissimilarity
        roughness = Grad("l2", loss_mult=_HALF_RESOLUTION).loss(None, displacement)
        return tf.reduce_mean(dissimilarity) + self.smoothness * tf.reduce_mean(roughness)

    @staticmethod
    def folding(displacement) -> tf.Tensor:
        """How far determinants lie below 0.1; of a displacement that does not fold, next to nothing."""
        if min(displacement.shape[1:-1]) < 2:
            return tf.zeros([])
        lacking = tf.nn.relu(_LEAST_VOLUME - fields.jacobian_determinant(displacement))
        return _FOLDING * tf.reduce_mean(lacking)
