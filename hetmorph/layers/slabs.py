"""The last convolutions of a U-Net, slab by slab."""

import keras

from hetmorph.configured import Configured
from hetmorph.ops.slabs import in_slabs


@keras.saving.register_keras_serializable("hetmorph")
class Slabs(Configured, keras.layers.Layer):
    """A chain of layers that is computed slab by slab, and again for the gradient: gradient checkpointing.

    The images of the finest resolution are most of a U-Net's memory. This layer keeps none of those inside its chain:
    each slab, with a halo as wide as the convolutions reach, is computed when it is needed. Results are those of the
    chain to rounding. Where the first spatial size is unknown, the chain runs as a whole.

    Args:
        chain: layers; the first is an `UpsampleConv`, the others take one image and keep its size.
        count: number of slabs along the first spatial axis; fewer where slabs would be thinner than their halos.
        kwargs: arguments of `keras.layers.Layer`.

    Inputs `[coarse, fine]` as for `UpsampleConv`. Returns the chain's result.

    Example:
        >>> chain = [UpsampleConv3D(32), LeakyReLU(negative_slope=0.2), Conv3D(3, 3, padding="same")]
        >>> flow = Slabs(chain, 8)([coarse, skip])

    Reference:
        Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174 (recomputing for the gradient).
    """

    def __init__(self, chain, count, **kwargs):
        super().__init__(**kwargs)
        self.chain, self.count = list(chain), count

    @property
    def halo(self) -> int:
        """Rows to either side that a row of the result depends on."""
        return sum(layer.kernel_size[0] // 2 for layer in self.chain if hasattr(layer, "kernel_size"))

    def build(self, input_shape):
        for layer in self.chain:
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs):
        coarse, fine = inputs
        if fine.shape[1] is None or coarse.shape[1] is None:
            return self._whole(coarse, fine)
        return in_slabs(self._whole, coarse, fine, self.count, self.halo)

    def _whole(self, coarse, fine):
        result = [coarse, fine]
        for layer in self.chain:
            result = layer(result)
        return result

    def compute_output_shape(self, input_shape):
        for layer in self.chain:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape
