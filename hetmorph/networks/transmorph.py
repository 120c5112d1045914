"""TransMorph: registration by a Swin transformer with a convolutional decoder."""

import keras
import numpy as np
from keras import layers as KL

from hetmorph import layers
from hetmorph.networks import assembly
from hetmorph.networks.base import references, store_config_args
from hetmorph.networks.grids import plan_grids
from hetmorph.networks.registration_model import RegistrationModel

WINDOWS = {2: (8, 8), 3: (5, 6, 7)}


@keras.saving.register_keras_serializable("hetmorph")
class TransMorph(RegistrationModel):
    """Unsupervised dense registration of two images by a transformer, for any spatial size in 2-D and 3-D.

    A Swin transformer looks at patches of both images at ever coarser resolutions; a decoder with skip connections from
    each of them, and from two convolutions of the images, gives the displacement u on the grid of the target:
    moved(x) = source(x + u(x)). The defaults are the published network. Images are padded with zeros at the end to
    sizes that the stages can halve, and everything is cropped back. Sizes may be None: the model then takes any.

    Args:
        inshape: spatial size, e.g. (160, 192, 224); 2 or 3 entries, each may be None.
        embed_dim: features of a patch; twice as many at each further stage.
        depths, num_heads: blocks and attention heads of each stage.
        window_size: patches per axis within which attention acts; None for (8, 8) and (5, 6, 7).
        mlp_ratio: hidden features of a block's dense layers, in multiples of its features.
        patch_size: voxels per axis of a patch, a power of two.
        drop_path: stochastic depth: the probability that a sample skips a block's branch while training, growing from
            0 at the first block to this at the last.
        reg_head_features: features of full resolution, from which the displacement is computed.
        qkv_bias: whether queries, keys and values have a bias.
        int_steps: squarings; with more than 0 the network predicts a velocity, integrated by scaling and squaring.
        int_resolution: voxel size of the integration grid, in image voxels.
        bidir: also warp the target to the source: with a velocity by the integral of the negated velocity, without by a
            second pass of the same network with the images exchanged.
        src_feats, trg_feats: image channels.
        fill_value: value outside the image; None repeats the edge.
        reg_field: last output: "svf", "preintegrated", "postintegrated" or "warp", as in `VxmDense`.
        name: name and prefix of all layer names.
        precision: "float32", or "bfloat16" for the layers before the displacement. By name only; None takes Keras'
            global policy.

    Inputs `[source, target]`, each `[B, *S, C]` in [0, 1]. Outputs `[moved source, (moved target), field]`. After two
    passes the field holds both displacements, `[B, *S, 2N]`, so that a regulariser sees both.

    Example:
        >>> model = TransMorph((128, 128))
        >>> model.compile("adam", loss=[hetmorph.losses.MSE().loss, hetmorph.losses.Grad("l2").loss])

    Reference:
        Chen et al., Medical Image Analysis 2022, doi:10.1016/j.media.2022.102615.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        embed_dim=96,
        depths=(2, 2, 4, 2),
        num_heads=(4, 4, 8, 8),
        window_size=None,
        mlp_ratio=4,
        patch_size=4,
        drop_path=0.3,
        reg_head_features=16,
        qkv_bias=False,
        int_steps=0,
        int_resolution=2,
        bidir=False,
        src_feats=1,
        trg_feats=1,
        fill_value=None,
        reg_field="preintegrated",
        name="transmorph",
        precision=None,
    ):
        inshape = assembly.check_inshape(inshape)
        ndims = len(inshape)
        window_size = _check_stages(ndims, embed_dim, depths, num_heads, window_size, patch_size)
        reg_field = assembly.check_reg_field(reg_field)
        two_passes = bidir and int_steps == 0
        if two_passes and src_feats != trg_feats:
            raise ValueError(
                "bidir without int_steps exchanges the images, which needs equal channels, "
                f"got src_feats={src_feats}, trg_feats={trg_feats}"
            )
        images = assembly.image_inputs(inshape, src_feats, trg_feats, name)
        source, target = images.outputs
        halvings = int(np.log2(patch_size)) + len(depths) - 1
        coarse_integration = int_resolution if int_steps > 0 and int_resolution > 1 else None
        grids = plan_grids(inshape, halvings, 0, 1, coarse_integration)
        self_name = f"{name}_".__add__
        crop = assembly.cropper(source if grids.multiple else None, self_name)
        padded = assembly.padded_inputs(images, grids.multiple, self_name).outputs
        network = _Network(
            ndims, embed_dim, depths, num_heads, window_size, mlp_ratio, patch_size, drop_path, reg_head_features,
            qkv_bias, self_name,
        )  # fmt: skip

        svf = network(*padded)
        flows = assembly.integrated_flows(svf, grids, int_steps, bidir and not two_passes, crop, self_name)
        if two_passes:
            flows = flows._replace(neg_flow=crop(network(*reversed(padded)), 1, "neg_diffflow"))
            field = assembly.float32(KL.Concatenate, self_name("flows"))([flows.pos_flow, flows.neg_flow])
        else:
            field = assembly.chosen_field(reg_field, flows, 1, coarse_integration, crop)
        y_source = assembly.warped(source, flows.pos_flow, fill_value, self_name("transformer"))
        y_target = assembly.warped(target, flows.neg_flow, fill_value, self_name("neg_transformer")) if bidir else None

        outputs = [y_source, y_target, field] if bidir else [y_source, field]
        super().__init__(name=name, inputs=images.inputs, outputs=outputs)
        self.references = references(
            source=source,
            target=target,
            **flows._asdict(),
            y_source=y_source,
            y_target=y_target,
            hyp_input=None,
        )


class _Network:
    """The layers from two images to a field, which may be applied more than once.

    Args:
        ndims: spatial dimensions.
        label: function from a part's name to a layer's name.
        others: as in `TransMorph`.
    """

    def __init__(
        self, ndims, embed_dim, depths, num_heads, window_size, mlp_ratio, patch_size, drop_path, reg_head_features,
        qkv_bias, label,
    ):  # fmt: skip
        self.join = KL.Concatenate(name=label("images"))
        self.embed = layers.PatchEmbed(embed_dim, patch_size, name=label("patch_embed"))
        rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
        self.stages, self.merges, self.norms = [], [], []
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            self.stages.append(
                [
                    layers.SwinBlock(
                        heads,
                        window_size,
                        shifted=block % 2 == 1,
                        mlp_ratio=mlp_ratio,
                        drop_path=next(rates),
                        qkv_bias=qkv_bias,
                        name=label(f"stage{stage}_block{block}"),
                    )
                    for block in range(depth)
                ]
            )
            self.norms.append(KL.LayerNormalization(epsilon=1e-5, name=label(f"norm{stage}")))
            if stage < len(depths) - 1:
                self.merges.append(layers.PatchMerging(name=label(f"merge{stage}")))

        finer = int(np.log2(patch_size))  # decoder levels below the resolution of the patches
        features = [embed_dim * 2**stage for stage in range(len(depths) - 1)][::-1]
        image_features = [embed_dim // 2**level for level in range(1, finer)] + [reg_head_features]
        self.halved = [_HalvedImage(ndims, label(f"half{level}")) for level in range(1, finer)]
        self.image_convs = [
            _Conv(ndims, count, label(f"image_conv{level}")) for level, count in enumerate(image_features)
        ]
        self.ups = [_Up(ndims, count, label(f"up{level}")) for level, count in enumerate(features + image_features)]
        self.flow = assembly.velocity_conv(ndims, label)

    def __call__(self, source, target):
        images = self.join([source, target])
        by_resolution = [images]
        for halved in self.halved:
            by_resolution.append(halved(by_resolution[-1]))
        of_images = [conv(image) for conv, image in zip(self.image_convs, reversed(by_resolution), strict=True)]

        x, encoded = self.embed(images), []
        for stage, blocks in enumerate(self.stages):
            for block in blocks:
                x = block(x)
            encoded.append(self.norms[stage](x))
            if stage < len(self.merges):
                x = self.merges[stage](x)

        *skips, x = encoded
        for up, skip in zip(self.ups, [*reversed(skips), *of_images], strict=True):
            x = up(x, skip)
        return self.flow(x)


class _Conv:
    """3-wide convolution, instance normalisation, LeakyReLU(0.01)."""

    def __init__(self, ndims: int, features: int, name: str):
        # The normalisation takes away any bias.
        uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        conv = getattr(layers, f"Conv{ndims}D")
        self.layers = [
            conv(features, 3, padding="same", use_bias=False, kernel_initializer=uniform, name=name),
            layers.InstanceNormalization(name=f"{name}_norm"),
            layers.LeakyReLU(negative_slope=0.01, name=f"{name}_activation"),
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class _Up:
    """Twice the resolution, the skip connection beside it, two convolutions."""

    def __init__(self, ndims: int, features: int, name: str):
        self.upsample = layers.LinearUpsampling(name=f"{name}_upsample")
        self.join = KL.Concatenate(name=f"{name}_concat")
        self.convs = [_Conv(ndims, features, f"{name}_conv{k}") for k in range(2)]

    def __call__(self, x, skip):
        x = self.join([self.upsample(x), skip])
        for conv in self.convs:
            x = conv(x)
        return x


class _HalvedImage:
    """Mean of 3 voxels along each axis at every second voxel, zeros outside."""

    def __init__(self, ndims: int, name: str):
        self.pad = getattr(KL, f"ZeroPadding{ndims}D")(1, "channels_last", name=f"{name}_pad")
        self.pool = getattr(KL, f"AveragePooling{ndims}D")(3, 2, data_format="channels_last", name=name)

    def __call__(self, image):
        return self.pool(self.pad(image))


def _check_stages(ndims, embed_dim, depths, num_heads, window_size, patch_size) -> tuple[int, ...]:
    """The window, after all arguments were found to fit together."""
    if ndims not in WINDOWS:
        raise ValueError(f"TransMorph registers images of 2 or 3 dimensions, got an inshape of {ndims}")
    window_size = WINDOWS[ndims] if window_size is None else tuple(window_size)
    if len(window_size) != ndims:
        raise ValueError(f"window_size must have {ndims} entries, one for each axis, got {window_size}")
    if len(depths) != len(num_heads) or not depths:
        raise ValueError(f"depths and num_heads must have one entry for each stage, got {depths} and {num_heads}")
    if any((embed_dim * 2**stage) % heads for stage, heads in enumerate(num_heads)):
        raise ValueError(f"num_heads must divide embed_dim · 2^stage, got {num_heads} for embed_dim={embed_dim}")
    if patch_size < 2 or patch_size & (patch_size - 1):
        raise ValueError(f"patch_size must be a power of two, at least 2, got {patch_size}")
    return window_size
