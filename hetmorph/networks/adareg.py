"""Registration whose field may be rougher where the images disagree: the baseline "adareg"."""

import keras
import tensorflow as tf

from hetmorph.losses.adaptive import residual_scale
from hetmorph.losses.within import counted_now
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.vxm import VxmDense


class _AdaptiveField:
    """Mixin: the field is scaled by the residual before its penalty."""

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        """As `keras.Model.compute_loss`, with the last output times `exp(−50·r·mean r)`, r the residual.

        The residual is that of the fixed image; of two passes in both directions each has its own.
        """
        *moved, field = y_pred
        halves = tf.split(field, 2, axis=-1) if field.shape[-1] == 2 * (field.shape.rank - 2) else [field]
        counted = [counted_now(view) for view in range(len(moved))]
        scaled = [
            half * residual_scale(tf.cast(fixed, half.dtype), image, half, where and where.weight)
            for half, fixed, image, where in zip(halves, y, moved, counted, strict=False)
        ]
        return super().compute_loss(x, y, [*moved, tf.concat(scaled, axis=-1)], *args, **kwargs)


@keras.saving.register_keras_serializable("hetmorph")
class AdaRegVxmDense(_AdaptiveField, VxmDense):
    """`VxmDense` trained with a smoothness penalty that is relaxed where the residual is large.

    Outputs and arguments are those of `VxmDense`; only the penalty sees the scaled field.

    Reference:
        The adaptive regularisation that Zhang et al., MICCAI 2024, arXiv:2312.00836, compare with.
    """


@keras.saving.register_keras_serializable("hetmorph")
class AdaRegTransMorph(_AdaptiveField, TransMorph):
    """`TransMorph` trained as `AdaRegVxmDense`."""
