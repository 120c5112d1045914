"""VoxelMorph's template models: an image in the middle of a population, possibly conditioned on attributes."""

import keras
import numpy as np
from keras import initializers as KI
from keras import layers as KL

from hetmorph.networks.base import LoadableModel, references, store_config_args
from hetmorph.networks.unet import Ends
from hetmorph.networks.vxm import VxmDense
from hetmorph.ops.warp import warp
from hetmorph.voxelmorph import layers
from hetmorph.voxelmorph.networks.live import LiveTensor
from hetmorph.voxelmorph.original import ne


@keras.saving.register_keras_serializable("hetmorph")
class TemplateCreation(LoadableModel):
    """Learn a template together with the displacements from it to each image.

    Input the image `[B, *S, C]`; outputs `[moved template, image moved to the template, running mean of the inverse
    displacement, displacement]`. A penalty on the third keeps the template in the middle of the population. The
    second is compared with the template as it is in that step, `references.atlas_tensor`.

    Args:
        inshape: spatial size.
        nb_unet_features: as in `VxmDense`.
        mean_cap: number of samples that the running mean remembers.
        atlas_feats, src_feats: channels of template and image.
        kwargs: arguments of `VxmDense`.

    Reference:
        Dalca et al., NeurIPS 2019, arXiv:1908.02738.
    """

    @store_config_args
    def __init__(self, inshape, nb_unet_features=None, mean_cap=100, atlas_feats=1, src_feats=1, **kwargs):
        source_input = keras.Input((*inshape, src_feats), name="source_input")
        atlas_layer = layers.LocalParamWithInput(
            (*inshape, atlas_feats), initializer=KI.RandomNormal(0.0, 1e-7), name="atlas"
        )
        atlas_tensor = atlas_layer(source_input)
        vxm_model = VxmDense(
            inshape,
            nb_unet_features=nb_unet_features,
            bidir=True,
            input_model=keras.Model([source_input], [atlas_tensor, source_input]),
            **kwargs,
        )
        ref = vxm_model.references
        mean_stream = layers.MeanStream(name="mean_stream", cap=mean_cap)(ref.neg_flow)
        super().__init__(inputs=[source_input], outputs=[ref.y_source, ref.y_target, mean_stream, ref.pos_flow])
        self.references = references(
            atlas_layer=atlas_layer,
            atlas_tensor=LiveTensor(lambda: atlas_layer.value()[None], (1, *inshape, atlas_feats)),
            vxm_model=vxm_model,
            pos_flow=ref.pos_flow,
            neg_flow=ref.neg_flow,
        )

    def set_atlas(self, atlas):
        """Start from a template `[*S, C]`, with or without a batch axis of 1, the channel axis optional if C is 1."""
        shape = tuple(self.references.atlas_layer.kernel.shape)
        atlas = np.asarray(atlas, np.float32)
        if atlas.size != np.prod(shape) or atlas.squeeze().shape != tuple(d for d in shape if d != 1):
            raise ValueError(f"expected a template of shape {shape}, got {atlas.shape}")
        self.references.atlas_layer.set_weights([atlas.reshape(shape)])

    def get_atlas(self):
        """The template, without axes of size 1."""
        return self.references.atlas_layer.get_weights()[0].squeeze()

    def register(self, image, batch_size=None):
        """Displacement that warps the template onto `image`, `[B, *S, N]` voxels."""
        return self._registration_model().predict(np.asarray(image), batch_size=batch_size, verbose=0)

    def apply_transform(self, image, img, interp_method="linear", fill_value=None):
        """Warp `img`, given on the template's grid (e.g. its labels), onto `image`."""
        return warp(np.asarray(img, np.float32), self.register(image), interp_method, fill_value).numpy()


@keras.saving.register_keras_serializable("hetmorph")
class ConditionalTemplateCreation(LoadableModel):
    """Learn a template that depends on attributes such as age, together with the displacements from it.

    Inputs `[attributes, initial template, image]`; outputs `[moved template, (running mean of the inverse
    displacement,) displacement, displacement]`, for an image loss, a centrality loss and two smoothness losses.

    Args:
        inshape: spatial size.
        pheno_input_shape: shape of the attributes, e.g. (2,).
        nb_unet_features: as in `VxmDense`.
        src_feats: channels of image and template.
        conv_image_shape: shape of the first feature image of the generator; `inshape` and `conv_nb_features`.
        conv_size, conv_nb_levels, conv_nb_features: kernel size, levels and features of the generator.
        extra_conv_layers: number of convolutions after it.
        use_mean_stream: whether the second output is there.
        mean_cap: number of samples that the running mean remembers.
        templcondsi: the template's first channel is an image made from its other channels, which are label logits:
            a 1-wide convolution of their softmax.
        templcondsi_init: initial intensity of each label for it.
        kwargs: arguments of `VxmDense`.

    Reference:
        Dalca et al., NeurIPS 2019, arXiv:1908.02738.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        pheno_input_shape,
        nb_unet_features=None,
        src_feats=1,
        conv_image_shape=None,
        conv_size=3,
        conv_nb_levels=0,
        conv_nb_features=32,
        extra_conv_layers=3,
        use_mean_stream=True,
        mean_cap=100,
        templcondsi=False,
        templcondsi_init=None,
        **kwargs,
    ):
        if templcondsi and src_feats < 2:
            raise ValueError(f"templcondsi needs an image and at least one label channel, got src_feats={src_feats}")
        conv = getattr(KL, f"Conv{len(inshape)}D")
        pheno_input, features = _attribute_image(
            pheno_input_shape, conv_image_shape or (*inshape, conv_nb_features), conv_nb_features, conv_nb_levels,
            conv_size,
        )  # fmt: skip
        for n in range(extra_conv_layers):
            features = conv(conv_nb_features, conv_size, padding="same", name=f"atlas_extra_conv_{n}")(features)
        # Almost zero at first: training starts from the initial template.
        small = {"kernel_initializer": KI.RandomNormal(0, 1e-7), "bias_initializer": KI.RandomNormal(0, 1e-7)}
        atlas_gen = conv(src_feats, 3, padding="same", name="atlas_gen", **small)(features)

        atlas_input = keras.Input((*inshape, src_feats), name="atlas_input")
        source_input = keras.Input((*inshape, src_feats), name="source_input")
        atlas_name = "atlas_tmp" if templcondsi else "atlas"
        atlas_tensor = KL.Add(name=atlas_name)([atlas_input, atlas_gen])
        if templcondsi:
            atlas_tensor = _image_from_labels(atlas_tensor, conv, templcondsi_init)

        inputs = [pheno_input, atlas_input, source_input]
        vxm_model = VxmDense(
            inshape,
            nb_unet_features=nb_unet_features,
            bidir=True,
            input_model=Ends(inputs, [atlas_tensor, source_input]),
            **kwargs,
        )
        ref = vxm_model.references
        streams = [layers.MeanStream(name="mean_stream", cap=mean_cap)(ref.neg_flow)] if use_mean_stream else []
        super().__init__(inputs=inputs, outputs=[ref.y_source, *streams, ref.pos_flow, ref.pos_flow])
        self.references = references(
            atlas_tensor=atlas_tensor, vxm_model=vxm_model, pos_flow=ref.pos_flow, neg_flow=ref.neg_flow
        )

    def get_atlas(self, pheno, atlas):
        """Template for attributes `[B, …]`, given the initial template `[B, *S, C]` or `[1, *S, C]`."""
        pheno = np.asarray(pheno, np.float32)
        atlas = np.broadcast_to(atlas, (len(pheno), *np.shape(atlas)[1:]))
        model = keras.Model(self.inputs[:2], self.references.atlas_tensor)
        return model.predict([pheno, atlas], verbose=0)

    def register(self, pheno, atlas, image, batch_size=None):
        """Displacement that warps the template for `pheno` onto `image`, `[B, *S, N]` voxels."""
        return self._registration_model().predict([pheno, atlas, image], batch_size=batch_size, verbose=0)

    def apply_transform(self, pheno, atlas, image, img, interp_method="linear"):
        """Warp `img`, given on the template's grid, onto `image`."""
        displacement = self.register(pheno, atlas, image)
        return warp(np.asarray(img, np.float32), displacement, interp_method).numpy()


def _attribute_image(pheno_shape, image_shape, nb_features, nb_levels, conv_size):
    """Attributes to a feature image: a dense layer, reshaped, then neurite's decoder."""
    pheno_shape = (pheno_shape,) if isinstance(pheno_shape, int) else tuple(pheno_shape)
    image_shape = tuple(int(size) for size in image_shape)
    pheno_input = keras.Input(pheno_shape, name="pheno_input")
    dense = KL.Dense(int(np.prod(image_shape)), activation="elu")(pheno_input)
    image = KL.Reshape(image_shape, name="pheno_reshape")(dense)
    decoder = ne.models.conv_dec(
        nb_features,
        image_shape,
        nb_levels,
        conv_size,
        nb_labels=nb_features,
        final_pred_activation="linear",
        input_model=keras.Model(pheno_input, image),
        name="atlas_decoder",
    )
    return pheno_input, decoder.output


def _image_from_labels(atlas, conv, init):
    """Replace the first channel by a weighted sum of the softmax of the others."""
    labels = layers.SoftmaxLabels(name="atlas_labels")(atlas)
    intensity = conv(1, 1, use_bias=False, kernel_initializer=KI.RandomNormal(0, 1e-5), name="atlas_intensity")
    image = intensity(labels)
    if init is not None:
        intensity.set_weights([np.reshape(init, intensity.kernel.shape)])
    return layers.ReplaceFirstChannel(name="atlas")([image, atlas])
