"""Networks of the GradICON family: a U-Net with residuals for displacements, a convolutional one for matrices."""

import keras
from keras import layers as KL

from hetmorph import layers
from hetmorph.networks.assembly import check_inshape, image_inputs

FEATURES = [[16, 32, 64, 256, 512], [256, 128, 64, 32, 16]]
MATRIX_FEATURES = (16, 32, 64, 128, 256, 512)


def tall_unet(
    inshape, nb_unet_features=None, src_feats: int = 1, trg_feats: int = 1, name: str = "tall_unet"
) -> keras.Model:
    """The U-Net of GradICON, with residual blocks and batch normalisation, from `[moving, fixed]` to a displacement.

    Its last convolution starts from zeros, and so does the displacement. What that convolution gives is a displacement
    in the unit cube of the grid, times ten; the model's output is in voxels, times N − 1 along each axis. So the same
    weights mean the same relative to images of any size.

    Args:
        inshape: spatial sizes of the images, two or three; None entries take any.
        nb_unet_features: [encoder, decoder], channels from fine to coarse and from coarse to fine, equally many; None
            takes the published [[16, 32, 64, 256, 512], [256, 128, 64, 32, 16]], 4.8 million weights in 2-D and 17.7
            million in 3-D.
        src_feats, trg_feats: image channels.
        name: name and prefix of all layer names.

    Returns:
        Model `[moving, fixed] → [B, *S, N]` float32, for `FieldStep`, or for `VelocityStep` as a velocity.

    Raises:
        ValueError: sizes or features that make no such network.

    Reference:
        Tian et al., GradICON: approximate diffeomorphisms via gradient inverse consistency, CVPR 2023,
        arXiv:2206.05897.
    """
    ndims = len(_check_dimensions(inshape, "tall_unet"))
    encoder, decoder = _check_features(FEATURES if nb_unet_features is None else nb_unet_features)
    images = image_inputs(check_inshape(inshape), src_feats, trg_feats, name)
    x = KL.Concatenate(name=f"{name}_images")(images.outputs)
    skips = []
    for level, features in enumerate(encoder):
        skips.append(x)
        x = layers.HalvedResidual(features, name=f"{name}_down_{level}")(x)
    for level, features in zip(reversed(range(len(encoder))), decoder, strict=True):
        x = layers.DoubledResidual(features, name=f"{name}_up_{level}")(x)
        x = KL.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm_{level}")(x)
        x = layers.CropToReference(name=f"{name}_crop_{level}")([x, skips[level]])
        x = KL.Concatenate(name=f"{name}_skip_{level}")([x, skips[level]])
    last = getattr(layers, f"Conv{ndims}D")
    x = last(ndims, 3, padding="same", kernel_initializer="zeros", name=f"{name}_flow", dtype="float32")(x)
    x = KL.Rescaling(0.1, name=f"{name}_tenth", dtype="float32")(x)
    return keras.Model(images.inputs, layers.UnitCubeToVoxels(name=f"{name}_voxels")(x), name=name)


def affine_network(
    inshape, features=MATRIX_FEATURES, units: int = 300, src_feats: int = 1, trg_feats: int = 1, name: str = "affine"
) -> keras.Model:
    """A convolutional network from `[moving, fixed]` to the N·(N+1) numbers of `AffineStep`, zeros at first.

    Args:
        inshape: spatial sizes of the images, two or three; None entries take any.
        features: channels of the convolutions, each followed by the mean of blocks of 2^N voxels.
        units: number of units of the dense layer between the mean over the image and the numbers.
        src_feats, trg_feats: image channels.
        name: name and prefix of all layer names.

    Returns:
        Model `[moving, fixed] → [B, N·(N+1)]` float32. By default 1.7 million weights in 2-D, 4.9 million in 3-D.

    Raises:
        ValueError: sizes or features that make no such network.

    Reference:
        Greer et al., Inverse consistency by construction for multistep deep registration, MICCAI 2023,
        arXiv:2305.00087.
    """
    ndims = len(_check_dimensions(inshape, "affine_network"))
    if not features or min(features) < 1 or units < 1:
        raise ValueError(f"expected features and units of at least 1, received {features} and {units}")
    images = image_inputs(check_inshape(inshape), src_feats, trg_feats, name)
    x = KL.Concatenate(name=f"{name}_images")(images.outputs)
    convolution, pooling = getattr(layers, f"Conv{ndims}D"), getattr(KL, f"AveragePooling{ndims}D")
    layout = {"data_format": "channels_last"}
    for level, count in enumerate(features):
        x = KL.ReLU(name=f"{name}_activation_{level}")(x)
        x = convolution(count, 3, padding="same", name=f"{name}_conv_{level}")(x)
        x = pooling(2, padding="same", **layout, name=f"{name}_pool_{level}")(x)
    x = getattr(KL, f"GlobalAveragePooling{ndims}D")(**layout, name=f"{name}_mean")(x)
    x = KL.Dense(units, activation="relu", name=f"{name}_units")(x)
    last = KL.Dense(ndims * (ndims + 1), kernel_initializer="zeros", name=f"{name}_numbers", dtype="float32")
    return keras.Model(images.inputs, last(x), name=name)


def _check_dimensions(inshape, what: str):
    if len(inshape) not in (2, 3):
        raise ValueError(f"{what} takes images of 2 or 3 spatial sizes, got inshape {tuple(inshape)}")
    return inshape


def _check_features(features) -> tuple[list[int], list[int]]:
    if len(features) != 2 or len(features[0]) != len(features[1]) or not features[0]:
        raise ValueError(f"nb_unet_features must be [encoder, decoder] with equally many levels, got {features}")
    encoder, decoder = ([int(count) for count in part] for part in features)
    if min(encoder + decoder) < 1:
        raise ValueError(f"nb_unet_features must be at least 1, got {features}")
    return encoder, decoder
