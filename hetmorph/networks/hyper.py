"""HyperMorph: one network for all values of a hyperparameter."""

import keras
import tensorflow as tf
from keras import layers as KL

from hetmorph.networks.base import LoadableModel, store_config_args
from hetmorph.networks.live import LiveTensor
from hetmorph.networks.vxm import VxmDense


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
        self.references.hyper_val = LiveTensor(self._running_hyper_val, (None, nb_hyp_params))
        self.references.running_hyper_val = None

    def call(self, inputs, training=None, mask=None, **kwargs):
        hyper_val = tf.nest.flatten(inputs)[-1]
        if tf.is_tensor(hyper_val):
            self.references.running_hyper_val = hyper_val
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def _running_hyper_val(self):
        if self.references.running_hyper_val is None:
            raise ValueError("references.hyper_val has a value in losses only, while the model trains")
        return self.references.running_hyper_val
