"""The U-Net of VoxelMorph."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers as KL

from hetmorph import layers


def default_unet_features() -> list[list[int]]:
    """Encoder and decoder features used when none are given."""
    return [[16, 32, 32, 32], [32, 32, 32, 32, 32, 16, 16]]


def unet_features(nb_features, nb_levels, feat_mult, nb_conv_per_level) -> tuple[list[int], list[int]]:
    """Resolve VoxelMorph's three ways to give U-Net features into (encoder, decoder) lists.

    Raises:
        ValueError: an integer without `nb_levels`, lists with `nb_levels`, or lists that are no pair.
    """
    if nb_features is None:
        nb_features = default_unet_features()
    if isinstance(nb_features, (int, np.integer)):
        if nb_levels is None:
            raise ValueError("nb_unet_features is an integer: nb_unet_levels must be given with it")
        features = np.round(nb_features * feat_mult ** np.arange(nb_levels)).astype(int).tolist()
        encoder, decoder = features[:-1], features[::-1]
        return tuple(np.repeat(f, nb_conv_per_level).tolist() for f in (encoder, decoder))
    if nb_levels is not None:
        raise ValueError("nb_unet_levels only goes with an integer nb_unet_features, got lists of features")
    if len(nb_features) != 2:
        raise ValueError(f"nb_unet_features must be [encoder, decoder] or an integer, got {nb_features}")
    encoder, decoder = ([int(f) for f in part] for part in nb_features)
    if len(decoder) < len(encoder):
        raise ValueError(f"the decoder needs at least {len(encoder)} features to undo the encoder, got {len(decoder)}")
    return encoder, decoder


class Ends(NamedTuple):
    """Inputs and outputs that pass for an `input_model`. Keras 3.12 refuses a model whose inputs are its outputs."""

    inputs: list
    outputs: list


class Unet(keras.Model):
    """U-Net on an input shape or on the concatenated outputs of an input model.

    Arguments, defaults and layer names are voxelmorph 0.2's, so that weights keyed by layer name fit. A core for
    larger models; not meant to be saved by itself.

    Args:
        inshape: input shape with features, e.g. (192, 192, 192, 2); spatial sizes may be None.
        input_model: model whose outputs are concatenated as the input, instead of `inshape`.
        nb_features: [encoder, decoder] features, an integer with `nb_levels`, or None for the default.
        nb_levels: number of levels, with an integer `nb_features`.
        max_pool: pooling factor, or one per level.
        feat_mult: feature multiplier per level, with an integer `nb_features`.
        nb_conv_per_level: convolutions per level.
        do_res: residual sum around each block.
        nb_upsample_skips: number of final upsamplings left out.
        hyp_input, hyp_tensor: input and last tensor of a hypernetwork; convolutions become hyperconvolutions.
        final_activation_function: activation of the last convolution.
        kernel_initializer: initialiser of the kernels.
        name: name and prefix of all layer names.
        slabs: number of slabs in which the final convolutions are computed, again for the gradient; see `layers.Slabs`.
        head: convolution that ends the network, in the same slabs.

    Raises:
        ValueError: several slabs, and no plain convolutions after the last upsampling to be computed in them.
    """

    def __init__(
        self,
        inshape=None,
        input_model=None,
        nb_features=None,
        nb_levels=None,
        max_pool=2,
        feat_mult=1,
        nb_conv_per_level=1,
        do_res=False,
        nb_upsample_skips=0,
        hyp_input=None,
        hyp_tensor=None,
        final_activation_function=None,
        kernel_initializer="he_normal",
        name="unet",
        slabs=1,
        head=None,
    ):
        if slabs < 1:
            raise ValueError(f"slabs must be at least 1, got {slabs}")
        inputs, last = _unet_input(inshape, input_model, name)
        if hyp_input is not None:
            inputs = [*inputs, hyp_input]
        encoder, decoder = unet_features(nb_features, nb_levels, feat_mult, nb_conv_per_level)
        decoder, final = decoder[: len(encoder)], decoder[len(encoder) :]
        depth = len(encoder) // nb_conv_per_level
        max_pool = [max_pool] * depth if isinstance(max_pool, int) else max_pool
        ndims = len(last.shape) - 2
        # With a final activation the very last convolution keeps its linear output.
        linear_block = None if final_activation_function is None else len(decoder) + len(final) - 1

        def block(x, features, suffix, position=None, residual=do_res):
            return conv_block(
                x,
                features,
                name=f"{name}_{suffix}",
                do_res=residual,
                hyp_tensor=hyp_tensor,
                include_activation=position is None or position != linear_block,
                kernel_initializer=kernel_initializer,
            )

        skips = []
        for level in range(depth):
            for k in range(nb_conv_per_level):
                last = block(last, encoder[level * nb_conv_per_level + k], f"enc_conv_{level}_{k}")
            skips.append(last)
            pooling = getattr(layers, f"MaxPooling{ndims}D")
            last = pooling(max_pool[level], name=f"{name}_enc_pooling_{level}")(last)

        for i, level in enumerate(reversed(range(depth))):
            for k in range(nb_conv_per_level):
                position = i * nb_conv_per_level + k
                last = block(last, decoder[position], f"dec_conv_{level}_{k}", position)
            if i < depth - nb_upsample_skips:
                last = Upsampled(last, skips.pop(), max_pool[level], f"{name}_dec_upsample_{level}")

        if slabs > 1:
            if not (final and isinstance(last, Upsampled)) or hyp_tensor is not None or final_activation_function:
                raise ValueError("slabs needs final convolutions at full resolution, no hypernetwork and no activation")
            last, final, head = _in_slabs(last, final, head, slabs, name, kernel_initializer), [], None
        for k, features in enumerate(final):
            last = block(last, features, f"dec_final_conv_{k}", len(decoder) + k, residual=False)

        last = _tensor(last)
        if final_activation_function is not None:
            last = KL.Activation(final_activation_function, name=f"{name}_final_activation")(last)
        last = last if head is None else head(last)
        # A list of one would make `unet.input` a list under Keras 3.
        super().__init__(inputs=inputs if len(inputs) > 1 else inputs[0], outputs=last, name=name)


def _unet_input(inshape, input_model, name: str):
    if input_model is None:
        if inshape is None:
            raise ValueError("Unet needs inshape or input_model, got neither")
        image = keras.Input(shape=inshape, name=f"{name}_input")
        return [image], image
    outputs = input_model.outputs
    joined = outputs[0] if len(outputs) == 1 else KL.concatenate(outputs, name=f"{name}_input_concat")
    return list(input_model.inputs), joined


class Upsampled(NamedTuple):
    """A coarse image repeated `factor` times along each axis and concatenated with the skip connection.

    The layers are made only where something other than a plain convolution follows, which takes both as they are.
    """

    coarse: keras.KerasTensor
    skip: keras.KerasTensor
    factor: int
    name: str

    def tensor(self) -> keras.KerasTensor:
        """The concatenated image."""
        ndims = len(self.coarse.shape) - 2
        size = self.factor if ndims == 1 else (self.factor,) * ndims
        layout = {} if ndims == 1 else {"data_format": "channels_last"}
        upsampled = getattr(KL, f"UpSampling{ndims}D")(size, name=self.name, **layout)(self.coarse)
        return KL.concatenate([upsampled, self.skip], name=f"{self.name}_concat")


def _tensor(x: keras.KerasTensor | Upsampled) -> keras.KerasTensor:
    return x.tensor() if isinstance(x, Upsampled) else x


def conv_block(
    x, features, strides=1, name=None, do_res=False, hyp_tensor=None, include_activation=True,
    kernel_initializer="he_normal",
):  # fmt: skip
    """3-wide convolution (a hyperconvolution if `hyp_tensor` is given), optional residual sum, LeakyReLU(0.2)."""
    if isinstance(x, Upsampled) and x.factor > 1 and not do_res and hyp_tensor is None and strides == 1:
        layer = getattr(layers, f"UpsampleConv{len(x.skip.shape) - 2}D")
        convolution = layer(features, factor=x.factor, kernel_initializer=kernel_initializer, name=name)
        return _activated(convolution([x.coarse, x.skip]), name, include_activation)
    x = _tensor(x)
    ndims = len(x.shape) - 2
    if hyp_tensor is None:
        layer, inputs = getattr(layers, f"Conv{ndims}D"), x
        options = {"kernel_initializer": kernel_initializer}
    else:
        layer, inputs, options = getattr(layers, f"HyperConv{ndims}DFromDense"), [x, hyp_tensor], {}
    result = layer(features, kernel_size=3, padding="same", strides=strides, name=name, **options)(inputs)
    if do_res:
        if x.shape[-1] != features:
            x = layer(features, kernel_size=3, padding="same", name=f"resfix_{name}", **options)(inputs)
        result = KL.Add(name=name and f"{name}_residual")([x, result])
    return _activated(result, name, include_activation)


def _in_slabs(x: Upsampled, final: list[int], head, slabs: int, name: str, kernel_initializer) -> keras.KerasTensor:
    """The final convolutions, and the one that follows, as one layer; names and weights as without slabs."""
    ndims, chain = len(x.skip.shape) - 2, []
    for k, features in enumerate(final):
        kind, options = ("Conv", {"kernel_size": 3, "padding": "same"}) if k else ("UpsampleConv", {"factor": x.factor})
        label = f"{name}_dec_final_conv_{k}"
        convolution = getattr(layers, f"{kind}{ndims}D")
        chain.append(convolution(features, kernel_initializer=kernel_initializer, name=label, **options))
        chain.append(_activation(label))
    chain += [] if head is None else [head]
    return layers.Slabs(chain, slabs, name=f"{name}_slabs")([x.coarse, x.skip])


def _activated(x, name: str | None, include: bool):
    return _activation(name)(x) if include else x


def _activation(name: str | None) -> keras.layers.Layer:
    return layers.LeakyReLU(negative_slope=0.2, name=name and f"{name}_activation")
