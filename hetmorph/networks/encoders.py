"""Networks of one image, whose features are the same wherever in the image something lies."""

import itertools
from collections.abc import Sequence

import keras
from keras import layers as KL

from hetmorph import layers

FEATURES = 128


def feature_encoder(
    ndims: int,
    features: int = FEATURES,
    padding: int = 9,
    dilations: Sequence[int] = (1, 2, 4),
    blocks: int = 3,
    halvings: int = 0,
    averaged: bool = False,
    channels: int = 1,
    name: str = "encoder",
) -> keras.Model:
    """Residual blocks of convolutions without position, from an image and a margin of zeros to features of one length.

    After a first convolution and a ReLU, each block normalises its batch and adds what convolutions of growing dilation
    make of it. A voxel's features come from voxels up to 1 + blocks · Σ dilations away; the edge of the margin is seen
    from as far.

    Args:
        ndims: spatial axes of the image, 2 or 3.
        features: number of features of each voxel.
        padding: voxels of the margin, a multiple of 2^halvings.
        dilations: dilations of the convolutions of a block.
        blocks: how many.
        halvings: how often the resolution is halved at first, each time by a convolution two wide and the mean of
            blocks; the last of these convolutions has all features, each before it a quarter of them.
        averaged: take the mean over the image turned by half a turn in each plane, each turned back: half turns then
            pass through.
        channels: number of channels of the image.
        name: name and prefix of all layer names.

    Returns:
        Model `[B, *S, channels] → [B, *(S + 2·padding) / 2^halvings, features]` float32, of length 4, for
        `FeatureStep`. As published, 4.0 million weights in 3-D.

    Raises:
        ValueError: another number of axes, no features, or a margin that cannot be halved.

    Reference:
        Greer et al., CARL: a framework for equivariant image registration, CVPR 2025, arXiv:2405.16738.
    """
    if ndims not in (2, 3):
        raise ValueError(f"feature_encoder takes images of 2 or 3 axes, received {ndims}")
    if features < 1 or blocks < 1 or not dilations or min(dilations) < 1 or halvings < 0:
        raise ValueError(
            f"expected features, blocks and dilations of at least 1, received {features}, {blocks} and {dilations}"
        )
    if padding < 0 or padding % 2**halvings:
        raise ValueError(f"expected a padding that can be halved {halvings} times, received {padding}")
    image = keras.Input((*[None] * ndims, channels), name=f"{name}_image")
    x = layers.Margin(padding, name=f"{name}_margin")(image) if padding else image
    core = _core(ndims, features, tuple(dilations), blocks, halvings, channels, f"{name}_core")
    x = _averaged(core, x, ndims, name) if averaged else core(x)
    return keras.Model(image, layers.FeatureNorm(name=f"{name}_length")(x), name=name)


def _core(ndims: int, features: int, dilations, blocks: int, halvings: int, channels: int, name: str) -> keras.Model:
    image = x = keras.Input((*[None] * ndims, channels), name=f"{name}_image")
    for level in range(halvings):
        x = _convolution(x, max(1, features // 4 ** (halvings - 1 - level)), f"{name}_first_{level}", width=2)
        x = layers.BlockMean(2, name=f"{name}_half_{level}")(x)
    x = x if halvings else _convolution(x, features, f"{name}_first")
    x = KL.ReLU(name=f"{name}_first_relu")(x)
    for block in range(blocks):
        x = KL.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm_{block}")(x)
        y = x
        for number, dilation in enumerate(dilations):
            y = KL.ReLU(name=f"{name}_relu_{block}_{number}")(y) if number else y
            y = _convolution(y, features, f"{name}_conv_{block}_{number}", dilation)
        x = KL.Add(name=f"{name}_add_{block}")([x, y])
    return keras.Model(image, x, name=name)


def _convolution(x, features: int, name: str, dilation: int = 1, width: int = 3):
    """Of PyTorch's initial values, with which the published networks were trained."""
    ndims, fan_in = len(x.shape) - 2, width ** (len(x.shape) - 2) * x.shape[-1]
    convolution = getattr(layers, f"Conv{ndims}D")(
        features,
        width,
        padding="same",
        dilation_rate=dilation,
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        bias_initializer=keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5),
        name=name,
    )
    return convolution(x)


def _averaged(core: keras.Model, x, ndims: int, name: str):
    """The mean over half turns, each of which mirrors two axes."""
    seen = [core(x)]
    for a, b in itertools.combinations(range(ndims), 2):
        turned = layers.Flip((a, b), name=f"{name}_turned_{a}{b}")(x)
        seen.append(layers.Flip((a, b), name=f"{name}_back_{a}{b}")(core(turned)))
    return KL.Average(name=f"{name}_mean")(seen)
