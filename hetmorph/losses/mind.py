"""How unlike two images of different modalities are: by what each looks like round a voxel, compared with itself."""

import itertools

import keras
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, as_real, require_rank
from hetmorph.ops import stats
from hetmorph.ops.grid import edge_repeated, neighbours, without_margin
from hetmorph.ops.masks import weighted_mean
from hetmorph.ops.windows import box_sum


@keras.saving.register_keras_serializable("hetmorph")
class MIND(SerializableLoss):
    """Mean squared difference of self-similarity descriptors (MIND-SSC) of one-channel images of two or three axes.

    A descriptor has one entry for each two neighbours of a voxel that lie on different axes, 4 in 2-D and 12 in 3-D:
    exp(−(D − min D)/V), D the mean squared difference of the patches round the two, V the mean of D − min D over the
    entries, held within a thousandth and a thousand times its mean over the image. It does not depend on brightness,
    nor on contrast and its sign.

    Args:
        radius: radius of a patch, voxels; it is 2·radius + 1 wide.
        dilation: distance of the neighbours, voxels.

    Reference:
        Heinrich et al., Towards realtime multimodal fusion for image-guided interventions using self-similarities,
        MICCAI 2013, doi:10.1007/978-3-642-40811-3_24.
    """

    def __init__(self, radius: int = 2, dilation: int = 2):
        for name, value, least in (("radius", radius, 0), ("dilation", dilation, 1)):
            if int(value) != value or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        self.radius, self.dilation = int(radius), int(dilation)

    def descriptor(self, image, weight=None) -> tf.Tensor:
        """`[B, *S, 4]` in 2-D and `[B, *S, 12]` in 3-D, 0 to 1.

        Args:
            image: `[B, *S, 1]`.
            weight: `[B, *S, 1]`, how much each voxel counts in the mean of V over the image; None counts all alike.
        """
        (image,) = as_real(image)
        ndims = require_rank(image, "MIND")
        if ndims == 1 or image.shape[-1] not in (1, None):
            raise ValueError(f"MIND needs one-channel images of 2 or 3 axes, got shape {image.shape}")
        beside = [(axis, seen) for axis in range(ndims) for seen in neighbours(image, axis, self.dilation)]
        pairs = [(a, b) for (i, a), (j, b) in itertools.combinations(beside, 2) if i != j]
        distance = _patch_mean(tf.square(tf.concat([a - b for a, b in pairs], axis=-1)), self.radius)
        distance -= tf.reduce_min(distance, axis=-1, keepdims=True)
        scale = tf.reduce_mean(distance, axis=-1, keepdims=True)
        mean = tf.reduce_mean(scale, range(1, ndims + 2)) if weight is None else weighted_mean(scale, weight)
        typical = tf.stop_gradient(stats.broadcast(mean, scale))
        # A constant image has no distances: all its entries are 1.
        return tf.exp(-tf.math.divide_no_nan(distance, tf.clip_by_value(scale, 1e-3 * typical, 1e3 * typical)))

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """Mean squared difference of the descriptors' entries, `[B, *S, 1]`.

        Args:
            y_true, y_pred: images `[B, *S, 1]`.
            weight: as of `descriptor`.
        """
        difference = tf.math.squared_difference(self.descriptor(y_true, weight), self.descriptor(y_pred, weight))
        return tf.reduce_mean(difference, axis=-1, keepdims=True)


def _patch_mean(image: tf.Tensor, radius: int) -> tf.Tensor:
    """Mean of the patch round each voxel, the edge repeated."""
    if not radius:
        return image
    ndims = image.shape.rank - 2
    for axis in range(ndims):
        image = edge_repeated(image, axis, radius)
    sums = box_sum(image, [2 * radius + 1] * ndims)
    return without_margin(sums, radius) / (2 * radius + 1) ** ndims
