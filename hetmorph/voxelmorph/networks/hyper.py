"""HyperMorph: one network for all values of a hyperparameter."""

from types import FunctionType

import keras
import tensorflow as tf
from keras import layers as KL

from hetmorph.configured import Configured
from hetmorph.networks.base import LoadableModel, store_config_args
from hetmorph.networks.vxm import VxmDense
from hetmorph.voxelmorph.networks.live import LiveInput


@keras.saving.register_keras_serializable("hetmorph")
class HyperVxmDense(LoadableModel):
    """`VxmDense` whose convolutions are computed from hyperparameters, such as the smoothness weight.

    Inputs `[source, target, hyperparameters]`, the last `[B, nb_hyp_params]`; outputs as `VxmDense`. Train it with
    random hyperparameters that also enter the loss, as `references.hyper_val`, the values of the running step;
    choose one at inference: `register(src, trg, hyp)`.

    Args:
        inshape: spatial size of the images.
        nb_hyp_params: number of hyperparameters.
        nb_hyp_layers, nb_hyp_units: depth and width of the hypernetwork.
        name: name and prefix of all layer names.
        kwargs: arguments of `VxmDense`.

    Reference:
        Hoopes et al., MELBA 2022, arXiv:2203.16680.
    """

    @store_config_args
    def __init__(self, inshape, nb_hyp_params=1, nb_hyp_layers=6, nb_hyp_units=128, name="hyper_vxm_dense", **kwargs):
        hyp_input = last = keras.Input((nb_hyp_params,), name=f"{name}_hyp_input")
        for n in range(nb_hyp_layers):
            last = KL.Dense(nb_hyp_units, activation="relu", name=f"{name}_hyp_dense_{n + 1}")(last)
        hyp_model = keras.Model(hyp_input, last, name=f"{name}_hypernet")
        vxm_model = VxmDense(inshape, hyp_model=hyp_model, name=name, **kwargs)
        super().__init__(name=name, inputs=vxm_model.inputs, outputs=vxm_model.outputs)
        self.references = vxm_model.references
        self.references.hyper_val = LiveInput(hyp_input, len(self.inputs) - 1)

    def call(self, inputs, training=None, mask=None, **kwargs):
        self.references.hyper_val.remember(inputs)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def compile(self, optimizer="rmsprop", loss=None, *args, **kwargs):
        """As `keras.Model.compile`; own loss functions may compute with `references.hyper_val`."""
        super().compile(optimizer, tf.nest.map_structure(_with_known_rank, loss), *args, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


@keras.saving.register_keras_serializable("hetmorph")
class KnownRank(Configured):
    """A loss function whose result may have a rank that is only known while the graph runs.

    `tf.squeeze` of hyperparameters `[B, 1]` has none or one axis, depending on B. Keras 3 refuses such a loss; its
    mean is what Keras would have made of it.

    Args:
        function: `(y_true, y_pred) -> loss`.
    """

    def __init__(self, function):
        self.function = function
        self.__name__ = function.__name__

    def __call__(self, y_true, y_pred) -> tf.Tensor:
        loss = tf.convert_to_tensor(self.function(y_true, y_pred))
        return tf.reduce_mean(loss) if loss.shape.rank is None else loss


def _with_known_rank(loss):
    return KnownRank(loss) if isinstance(loss, FunctionType) else loss
