"""neurite's generative model of images from label maps, and SynthStrip on top of it."""

import keras

from hetmorph.networks.base import LoadableModel, references, store_config_args
from hetmorph.voxelmorph.layers import LabelsToImage
from hetmorph.voxelmorph.original import ne


def labels_to_image(in_shape, in_label_list, out_label_list=None, *args, seeds=None, id=0, **kwargs) -> keras.Model:
    """Model that deforms label maps `[B, *in_shape, 1]` at random and paints them: `[image, labels]`.

    Stands in for `neurite.models.labels_to_image`, whose arguments it takes; see `LabelsToImage`.

    Args:
        id: number that makes layer names unique where a model holds several of these.
        in_shape: spatial size of the maps, voxels.
        in_label_list: values that occur in them.
        out_label_list: values to keep; None keeps all. A dictionary merges labels.
        seeds: dictionary of integers per stage; see the layer.
    """
    labels = keras.Input((*(int(n) for n in in_shape), 1), name=f"labels_input_{id}")
    paint = LabelsToImage(
        in_shape, in_label_list, out_label_list, *args, seeds=seeds, **kwargs, name=f"labels_to_image_{id}"
    )
    return keras.Model(labels, paint(labels), name=f"synth_{id}")


@keras.saving.register_keras_serializable("hetmorph")
class SynthStrip(LoadableModel):
    """Learn a brain mask from images of random contrast: label maps in, `[mask prediction, labels]` out.

    Args:
        inshape: spatial size.
        labels_in: all labels of the training segmentations.
        labels_out: labels of the output, a list or a dictionary from input to output labels.
        nb_unet_features, nb_unet_levels, unet_feat_mult, nb_unet_conv_per_level: arguments of `neurite.models.unet`.
        src_feats: must be 1.
        gen_args: further arguments of `labels_to_image`.

    Reference:
        Hoopes et al., NeuroImage 2022, doi:10.1016/j.neuroimage.2022.119474.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        labels_in,
        labels_out,
        nb_unet_features=None,
        nb_unet_levels=None,
        unet_feat_mult=1,
        nb_unet_conv_per_level=1,
        src_feats=1,
        gen_args=None,
    ):
        inshape = tuple(inshape)
        gen_model = labels_to_image(inshape, labels_in, labels_out, id=0, one_hot=False, **(gen_args or {}))
        synth_image, synth_labels = gen_model.outputs
        unet_model = ne.models.unet(
            nb_unet_features,
            (*inshape, 1),
            nb_unet_levels,
            len(inshape) * (3,),
            1,
            feat_mult=unet_feat_mult,
            nb_conv_per_level=nb_unet_conv_per_level,
            final_pred_activation="linear",
        )
        labels = keras.layers.Activation("linear", dtype="float32", name="labels_as_float")(synth_labels)
        stacked = keras.layers.Concatenate(name="image_label")([unet_model(synth_image), labels])
        super().__init__(inputs=gen_model.inputs, outputs=stacked)
        self.references = references(unet=unet_model, gen_model=gen_model, synth_image=synth_image)

    def get_strip_model(self) -> keras.Model:
        """The U-Net alone: image `[B, *S, 1]` to mask prediction."""
        return self.references.unet
