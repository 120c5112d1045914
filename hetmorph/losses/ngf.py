"""How unlike two images are by the direction of their edges, whatever lies on either side of them."""

import keras
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, as_real, positive, require_rank
from hetmorph.ops.grid import neighbours


@keras.saving.register_keras_serializable("hetmorph")
class NGF(SerializableLoss):
    """Normalised gradient fields: 1 − ⟨∇a, ∇b⟩² / (|∇a|²_ε·|∇b|²_ε), the mean over voxels, 0 to 1.

    |∇a|²_ε = |∇a|² + ε², where ε² = η²·mean|∇a|² is each image's own: what is much flatter than the image on the whole,
    such as noise, has no direction and counts nothing. Edges match where they are parallel; brightness, contrast and
    its sign do not matter. Derivatives are central differences, the edge repeated; each channel is compared by itself.

    Args:
        eta: η, the edge parameter, as a multiple of the root mean square of the gradients.

    Reference:
        Haber & Modersitzki, Intensity gradient based registration and fusion of multi-modal images, MICCAI 2006,
        doi:10.1007/11866763_89.

    Example:
        >>> model.compile("adam", loss=[NGF().loss, Grad("l2").loss], loss_weights=[1, 0.1])
    """

    def __init__(self, eta: float = 1.0):
        self.eta = positive(eta, "eta")

    def voxelwise(self, y_true, y_pred, weight=None) -> tf.Tensor:
        """1 − ⟨∇a, ∇b⟩² / (|∇a|²_ε·|∇b|²_ε); 1 where either image is flat altogether.

        Args:
            y_true, y_pred: images `[B, *S, C]`.
            weight: `[B, *S, 1]`, how much each voxel counts in ε; None counts all alike.
        """
        a, b = as_real(y_true, y_pred)
        require_rank(b, "NGF")
        a, b = _gradient(a), _gradient(b)
        product = tf.reduce_sum(a * b, -1)
        # One after the other: fourth powers of small gradients are nothing in single precision.
        parts = [tf.math.divide_no_nan(product, self._squares(gradient, weight)) for gradient in (a, b)]
        return 1.0 - parts[0] * parts[1]

    def _squares(self, gradient: tf.Tensor, weight) -> tf.Tensor:
        """|∇|²_ε, `[B, *S, C]`."""
        squares = tf.reduce_sum(tf.square(gradient), -1)
        axes = list(range(1, squares.shape.rank - 1))
        if weight is None:
            typical = tf.reduce_mean(squares, axes, keepdims=True)
        else:
            sums = (tf.reduce_sum(values, axes, keepdims=True) for values in (weight * squares, weight))
            typical = tf.math.divide_no_nan(*sums)
        return squares + self.eta**2 * typical


def _gradient(image: tf.Tensor) -> tf.Tensor:
    """`[B, *S, C, N]`; none along an axis of a single voxel."""
    pairs = (neighbours(image, axis, 1) for axis in range(image.shape.rank - 2))
    return tf.stack([(after - before) / 2 for before, after in pairs], -1)
