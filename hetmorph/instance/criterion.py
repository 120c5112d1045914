"""What is minimised when one pair is optimised."""

from collections.abc import Callable

import tensorflow as tf

from hetmorph.instance import known
from hetmorph.losses import LNCC, MIND, MSE, NGF, Grad, MutualInformation, SquaredLNCC
from hetmorph.losses.within import loss_within, voxelwise_within
from hetmorph.ops import fields
from hetmorph.ops.masks import counted_mean
from hetmorph.ops.windows import local_correlation, window_of
from hetmorph.steps import View

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

    def voxelwise(self, fixed, moved, weight=None) -> tf.Tensor:
        """Of images `[B, *S, C]`, each voxel.

        Args:
            fixed, moved: the images.
            weight: `[B, *S, 1]`, not negative: windows of voxels that count alone.
        """
        return 1.0 - local_correlation(fixed, moved, window_of(fixed.shape[1:-1], self.side), weight)

    def loss(self, fixed, moved) -> tf.Tensor:
        """The mean."""
        return tf.reduce_mean(self.voxelwise(fixed, moved))


# by name: the image loss, and the λ that suits it
SIMILARITIES: dict[str, tuple[Callable, float]] = {
    "ncc": (LocalCorrelation().loss, 0.3),
    "mse": (MSE().loss, 0.01),
    "mind": (MIND().loss, 0.1),
    "mi": (MutualInformation(nb_bins=32).loss, 0.3),
    "ngf": (NGF().loss, 0.1),
    "lncc": (LNCC().loss, 0.3),
    "lncc2": (SquaredLNCC().loss, 0.3),
}


class Criterion:
    """Image loss, smoothness of a displacement, points and structures, and a penalty on a displacement that folds.

    Of masks the image loss is that of the voxels that count, see `ops.masks.Counted`.

    Args:
        image_loss: `(fixed, moved) → loss`.
        smoothness: λ.
        weighted: multiply the image loss of each voxel by a weight.
    """

    def __init__(self, image_loss: Callable, smoothness: float, weighted: bool):
        self.image_loss = image_loss
        self._voxelwise = voxelwise_within(image_loss) if weighted else None
        self.smoothness, self.weighted = smoothness, weighted

    def __call__(self, fixed, moving, weight, displacement, said: known.Known) -> tf.Tensor:
        """The loss proper of images `[1, *S, 1]`, which may not rise; `said` as `known.known` gives it."""
        dissimilarity = tf.reduce_mean(self._dissimilarity(known.view(said, fixed, moving, displacement), weight))
        roughness = Grad("l2", loss_mult=_HALF_RESOLUTION).loss(None, displacement)
        return (
            dissimilarity + self.smoothness * tf.reduce_mean(roughness) + known.pull(said, displacement, squared=True)
        )

    def _dissimilarity(self, view: View, weight):
        """One number, or one of each sample."""
        fixed, moved, counted = view.fixed, view.moved, view.counted
        if self.weighted:
            where = None if counted is None else counted.weight
            return counted_mean(weight * self._voxelwise(fixed, moved, where), counted)
        return self.image_loss(fixed, moved) if counted is None else loss_within(self.image_loss, fixed, moved, counted)

    @staticmethod
    def folding(displacement) -> tf.Tensor:
        """How far determinants lie below 0.1; of a displacement that does not fold, next to nothing."""
        if min(displacement.shape[1:-1]) < 2:
            return tf.zeros([])
        lacking = tf.nn.relu(_LEAST_VOLUME - fields.jacobian_determinant(displacement))
        return _FOLDING * tf.reduce_mean(lacking)
