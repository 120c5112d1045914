"""Segmentation of an image by warping a probabilistic atlas onto it, without labelled images."""

import keras
import numpy as np
from keras import initializers as KI
from keras import layers as KL

from hetmorph.networks.base import LoadableModel, references, store_config_args
from hetmorph.networks.unet import conv_block
from hetmorph.networks.vxm import VxmDense
from hetmorph.voxelmorph.layers import GaussianLogLikelihood, LogJoint, LogSumExp, ScaleAndShift
from hetmorph.voxelmorph.networks.live import LiveInput


@keras.saving.register_keras_serializable("hetmorph")
class ProbAtlasSegmentation(LoadableModel):
    """Warp a probabilistic atlas to an image whose labels have Gaussian intensities, all estimated from the image.

    Inputs `[image, atlas]`, the atlas `[B, *S, labels]`; outputs `[log p(image) per voxel, displacement]`, or with
    `supervised_model` `[p(image, label), displacement]`.

    A loss that leaves voxels out by their intensity reads the image of the running step: `references.image`.

    Args:
        inshape: spatial size.
        nb_labels: labels of the atlas.
        nb_unet_features: as in `VxmDense`.
        init_mu, init_sigma: initial mean and standard deviation of each label's intensity.
        warp_atlas: whether the likelihood uses the warped atlas.
        stat_post_warp: estimate intensities from warped atlas and image instead of the U-Net's last features.
        stat_nb_feats: features of that estimate.
        network_stat_weight: weight of the estimate where initial values are given.
        supervised_model: output the joint probability per label.
        kwargs: arguments of `VxmDense`.

    Reference:
        Dalca et al., MICCAI 2019, doi:10.1007/978-3-030-32248-9_40.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        nb_labels,
        nb_unet_features=None,
        init_mu=None,
        init_sigma=None,
        warp_atlas=True,
        stat_post_warp=True,
        stat_nb_feats=16,
        network_stat_weight=0.001,
        supervised_model=False,
        **kwargs,
    ):
        if stat_post_warp and not warp_atlas:
            raise ValueError("stat_post_warp estimates from the warped atlas: it needs warp_atlas=True")
        vxm_model = VxmDense(inshape, nb_unet_features=nb_unet_features, src_feats=nb_labels, **kwargs)
        ref = vxm_model.references
        image = ref.target
        warped_atlas = ref.y_source if warp_atlas else ref.source

        if stat_post_warp:
            features = KL.concatenate([warped_atlas, image], name="post_warp_concat")
        else:
            features = ref.unet_model.layers[-2].output  # the last convolution, before its activation
        features = conv_block(conv_block(features, stat_nb_feats), nb_labels)
        stat_mu = _statistic(features, nb_labels, "mu_vol", "mu_pooling")
        stat_logssq = _statistic(features, nb_labels, "logsigmasq_vol", "logssq_pooling")
        if init_mu is not None:
            stat_mu = ScaleAndShift(network_stat_weight, init_mu, name="comb_mu")(stat_mu)
        if init_sigma is not None:
            init = 2 * np.log(init_sigma)
            stat_logssq = ScaleAndShift(network_stat_weight, init, name="comb_sigma")(stat_logssq)

        likelihood = GaussianLogLikelihood(dtype="float32", name="unsup_likelihood")
        uloglhood = likelihood([image, stat_mu, stat_logssq])
        log_pdf = LogJoint(dtype="float32", name="log_pdf")([uloglhood, warped_atlas])
        if supervised_model:
            data_term = KL.Activation("exponential", dtype="float32", name="pdf")(log_pdf)
        else:
            data_term = LogSumExp(dtype="float32", name="loss_vol")(log_pdf)

        atlas_input, image_input, *others = vxm_model.inputs
        super().__init__(inputs=[image_input, atlas_input, *others], outputs=[data_term, ref.pos_flow])
        self.references = references(
            vxm_model=vxm_model,
            uloglhood=uloglhood,
            stat_mu=stat_mu,
            stat_logssq=stat_logssq,
            pos_flow=ref.pos_flow,
            image=LiveInput(image_input, 0),
        )

    def call(self, inputs, training=None, mask=None, **kwargs):
        self.references.image.remember(inputs)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def get_gaussian_warp_model(self):
        """Model with outputs `[log-likelihood per label, means, log variances, displacement]`."""
        ref = self.references
        return keras.Model(self.inputs, [ref.uloglhood, ref.stat_mu, ref.stat_logssq, ref.pos_flow])


def _statistic(features, nb_labels: int, conv_name: str, pool_name: str):
    """One number per label: a convolution and its maximum over the image."""
    ndims = len(features.shape) - 2
    weak = KI.RandomNormal(0.0, 1e-5)
    conv = getattr(KL, f"Conv{ndims}D")(
        nb_labels, 3, kernel_initializer=weak, bias_initializer=KI.RandomNormal(0.0, 1e-5), name=conv_name
    )
    pool = getattr(KL, f"GlobalMaxPooling{ndims}D")(keepdims=True, name=pool_name)
    return pool(conv(features))
