"""The network of VoxelMorph's first papers."""

import keras
from keras import layers as KL

from hetmorph import layers
from hetmorph.networks.assembly import check_inshape, image_inputs, padded_inputs, velocity_conv
from hetmorph.networks.base import store_config_args
from hetmorph.networks.registration import Registration
from hetmorph.networks.unet import Upsampled, conv_block
from hetmorph.steps import FieldStep

# Images were FreeSurfer's, divided by 255: white matter, which is 110 there, was at 0.43. Of an image that is scaled to
# its quantile 0.99, as `registration.Scale("mri")` does, it is near 0.9.
_GAIN = 0.47


def strided_unet(
    inshape, nb_unet_features, gain: float = 1.0, src_feats: int = 1, trg_feats: int = 1, name: str = "strided_unet"
) -> keras.Model:
    """A U-Net whose convolutions halve the image themselves, from `[moving, fixed]` to a displacement.

    VoxelMorph's of 2018; that of later versions halves by pooling. Sizes that cannot be halved are padded with zeros at
    the end, and the result is cropped.

    Args:
        inshape: spatial sizes of the images; None entries take any.
        nb_unet_features: [encoder, decoder], channels. Each of the L encoder's convolutions halves; the first L of the
            decoder follow at each of the coarse resolutions, the next at half, the others at the whole resolution.
            "vm1" is [[16, 32, 32, 32], [32, 32, 32, 32, 8, 8]], "vm2" [[16, 32, 32, 32], [32, 32, 32, 32, 32, 16, 16]].
        gain: factor of both images, for weights that were trained on images of another range.
        src_feats, trg_feats: image channels.
        name: name and prefix of all layer names.

    Returns:
        Model `[moving, fixed] → [B, *S, N]` float32, voxels, for `FieldStep`.

    Raises:
        ValueError: a decoder that ends before the whole resolution.

    Reference:
        Balakrishnan et al., An unsupervised learning model for deformable medical image registration, CVPR 2018,
        arXiv:1802.02604.
    """
    encoder, decoder = ([int(count) for count in part] for part in nb_unet_features)
    depth, label = len(encoder), f"{name}_".__add__
    if not encoder or len(decoder) < depth + 2:
        raise ValueError(
            f"expected at least {depth + 2} features of the decoder for {depth} of the encoder, received {decoder}"
        )
    images = image_inputs(check_inshape(inshape), src_feats, trg_feats, name)
    x = KL.Concatenate(name=label("images"))(padded_inputs(images, 2**depth, label).outputs)
    x = KL.Rescaling(gain, name=label("gain"))(x)
    skips = []
    for level, features in enumerate(encoder):
        skips.append(x)
        x = conv_block(x, features, strides=2, name=label(f"down_{level}"))
    for level, features in enumerate(decoder[:depth]):
        x = conv_block(x, features, name=label(f"up_{level}"))
        if level < depth - 1:
            x = Upsampled(x, skips.pop(), 2, label(f"upsample_{level}"))
    x = conv_block(x, decoder[depth], name=label(f"up_{depth}"))
    x = Upsampled(x, skips.pop(), 2, label(f"upsample_{depth}"))
    for k, features in enumerate(decoder[depth + 1 :]):
        x = conv_block(x, features, name=label(f"final_{k}"))
    flow = velocity_conv(len(inshape), label)(x)
    cropped = layers.CropToReference(name=label("crop"), dtype="float32")([flow, images.outputs[0]])
    return keras.Model(images.inputs, cropped, name=name)


@keras.saving.register_keras_serializable("hetmorph")
class VoxelMorph2018(Registration):
    """Registration of brains as VoxelMorph's first networks did it: one displacement, not integrated.

    Args:
        inshape: spatial sizes of the images; None entries take any.
        nb_unet_features: [encoder, decoder], as `strided_unet` has them.
        direction: as of `Registration`.
        fill_value: value outside the image; None repeats the edge.
        name: name of the model, and prefix of its layers' names.

    Inputs and outputs as `Registration`; 1 is the quantile 0.99 of a brain without skull.

    Attributes:
        modalities: images are scaled as "mri", which `hetmorph.registration.register` does by itself.

    Reference:
        Balakrishnan et al., CVPR 2018, arXiv:1802.02604; IEEE TMI 2019, doi:10.1109/TMI.2019.2897538.
    """

    modalities = ("mri",)

    @store_config_args
    def __init__(self, inshape, nb_unet_features, direction=None, fill_value=0.0, name="voxelmorph_2018"):
        network = strided_unet((None,) * len(inshape), nb_unet_features, _GAIN)
        super().__init__(FieldStep(network), inshape, direction, fill_value=fill_value, name=name)
        del self.config  # of the parent: this model is made anew of its own arguments
