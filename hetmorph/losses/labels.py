"""How well label maps overlap."""

import keras
import tensorflow as tf

from hetmorph.losses.serializable import SerializableLoss, require_rank


@keras.saving.register_keras_serializable("hetmorph")
class Dice(SerializableLoss):
    """Negative soft Dice of probability maps `[B, *S, labels]`: −mean(2·Σy·ŷ / Σ(y + ŷ)).

    A label absent from both maps counts as 0, as in VoxelMorph.
    """

    def _loss(self, y_true, y_pred):
        axes = list(range(1, 1 + require_rank(y_pred, "Dice")))
        both = tf.reduce_sum(y_true * y_pred, axes)
        return -tf.reduce_mean(tf.math.divide_no_nan(2 * both, tf.reduce_sum(y_true + y_pred, axes)), axis=-1)
