"""VoxelMorph's dense registration network."""

import warnings

import keras
import numpy as np
from keras import initializers as KI
from keras import layers as KL

from hetmorph import layers
from hetmorph.networks import assembly
from hetmorph.networks.base import references, store_config_args
from hetmorph.networks.grids import plan_grids
from hetmorph.networks.registration_model import RegistrationModel, checked_pair
from hetmorph.networks.unet import Unet, unet_features


@keras.saving.register_keras_serializable("hetmorph")
class VxmDense(RegistrationModel):
    """Unsupervised dense registration of two images, as voxelmorph 0.2's `VxmDense`, for any spatial size.

    A U-Net predicts a velocity field, integrated by scaling and squaring to a displacement u on the grid of the
    target: moved(x) = source(x + u(x)). Sizes the U-Net cannot halve are padded with zeros at the end inside the
    model, and everything is cropped back. Sizes may be None: the model then takes any.

    Args:
        inshape: spatial size, e.g. (160, 192, 224); 1 to 3 entries, each may be None.
        nb_unet_features: [encoder, decoder] features, an integer with `nb_unet_levels`, or None for the default.
        nb_unet_levels, unet_feat_mult: with an integer `nb_unet_features`.
        nb_unet_conv_per_level: convolutions per level.
        int_steps: squarings; 0 takes the field as the displacement itself.
        svf_resolution: voxel size of the predicted velocity field, in image voxels.
        int_resolution: voxel size of the integration grid, in image voxels.
        int_downsize: deprecated name of `int_resolution`.
        bidir: also warp the target to the source, by the integral of the negated velocity.
        use_probs: predict mean and log variance of the velocity. Training samples, inference takes the mean.
        src_feats, trg_feats: image channels.
        unet_half_res: deprecated, sets `svf_resolution` 2.
        input_model: model whose outputs are (source, target, …), instead of two inputs.
        hyp_model: hypernetwork; its input becomes the model's last.
        fill_value: value outside the image; None repeats the edge.
        reg_field: third output: "svf", "preintegrated", "postintegrated" or "warp".
        name: name and prefix of all layer names.
        precision: "float32", or "bfloat16" for the convolutions of the U-Net; weights, coordinates and losses stay in
            float32. By name only; None takes Keras' global policy.
        slabs: gradient checkpointing: in how many slabs the convolutions of full resolution, most of the memory, are
            computed, and again for the gradient. Results and weights are those of 1. Ignored where the first size is
            None.

    Inputs `[source, target]`, each `[B, *S, C]` in [0, 1]. Outputs `[moved source, (moved target), field]`; with
    `use_probs` the field is mean and log variance, concatenated.

    Example:
        >>> model = VxmDense((128, 128), int_steps=7)
        >>> model.compile("adam", loss=[hetmorph.losses.MSE().loss, hetmorph.losses.Grad("l2").loss])

    Reference:
        Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538;
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        nb_unet_features=None,
        nb_unet_levels=None,
        unet_feat_mult=1,
        nb_unet_conv_per_level=1,
        int_steps=7,
        svf_resolution=1,
        int_resolution=2,
        int_downsize=None,
        bidir=False,
        use_probs=False,
        src_feats=1,
        trg_feats=1,
        unet_half_res=False,
        input_model=None,
        hyp_model=None,
        fill_value=None,
        reg_field="preintegrated",
        name="vxm_dense",
        precision=None,
        slabs=1,
    ):
        inshape = assembly.check_inshape(inshape)
        reg_field = assembly.check_reg_field(reg_field)
        int_resolution = deprecated(int_downsize, "int_downsize", "int_resolution", int_resolution)
        svf_resolution = deprecated(2 if unet_half_res else None, "unet_half_res", "svf_resolution", svf_resolution)
        if input_model is None:
            input_model = assembly.image_inputs(inshape, src_feats, trg_feats, name)
        source, target = input_model.outputs[:2]

        encoder, _ = unet_features(nb_unet_features, nb_unet_levels, unet_feat_mult, nb_unet_conv_per_level)
        depth, skips = len(encoder) // nb_unet_conv_per_level, int(np.floor(np.log2(svf_resolution)))
        coarse_integration = int_resolution if int_steps > 0 and int_resolution > 1 else None
        grids = plan_grids(inshape, depth, skips, svf_resolution, coarse_integration)
        self_name = f"{name}_".__add__
        crop = assembly.cropper(source if grids.multiple else None, self_name)

        to_velocity = assembly.velocity_conv(len(inshape), self_name)
        ends_in_velocity = slabs > 1 and not use_probs
        unet_model = Unet(
            input_model=assembly.padded_inputs(input_model, grids.multiple, self_name),
            nb_features=nb_unet_features,
            nb_levels=nb_unet_levels,
            feat_mult=unet_feat_mult,
            nb_conv_per_level=nb_unet_conv_per_level,
            nb_upsample_skips=skips,
            hyp_input=None if hyp_model is None else hyp_model.input,
            hyp_tensor=None if hyp_model is None else hyp_model.output,
            name=self_name("unet"),
            slabs=slabs,
            head=to_velocity if ends_in_velocity else None,
        )

        mean = unet_model.output if ends_in_velocity else to_velocity(unet_model.output)
        flow, flow_params = _sampled(mean, unet_model.output, self_name) if use_probs else (mean, None)
        svf = assembly.rescaled(flow, grids.to_svf, self_name("svf_resize"))
        flows = assembly.integrated_flows(svf, grids, int_steps, bidir, crop, self_name)
        y_source = assembly.warped(source, flows.pos_flow, fill_value, self_name("transformer"))
        y_target = assembly.warped(target, flows.neg_flow, fill_value, self_name("neg_transformer")) if bidir else None
        if use_probs:
            field = crop(flow_params, 2**skips, "prob_concat")
        else:
            field = assembly.chosen_field(reg_field, flows, svf_resolution, coarse_integration, crop)

        inputs = list(input_model.inputs) + ([] if hyp_model is None else [hyp_model.input])
        outputs = [y_source, y_target, field] if bidir else [y_source, field]
        super().__init__(name=name, inputs=inputs, outputs=outputs)
        self.references = references(
            unet_model=unet_model,
            source=source,
            target=target,
            **flows._asdict(),
            y_source=y_source,
            y_target=y_target,
            hyp_input=None if hyp_model is None else hyp_model.input,
        )

    def register(self, src, trg, *inputs, batch_size=None, sample=False):
        """Displacement that warps `src` onto `trg`, `[B, *S, N]` voxels on the grid of `trg`.

        Args:
            src, trg: moving and fixed image, `[B, *S, C]` in [0, 1].
            inputs: further inputs of the model, e.g. hyperparameters.
            sample: with `use_probs`, draw the velocity instead of taking its mean.
        """
        if not sample:
            return super().register(src, trg, *inputs, batch_size=batch_size)
        return np.asarray(self._registration_model()([*checked_pair(src, trg), *inputs], training=True))


def deprecated(value, old: str, new: str, current):
    if value is None:
        return current
    warnings.warn(f"{old} is deprecated, use {new}", DeprecationWarning, stacklevel=4)
    return value


def _sampled(mean, features, name):
    """A sample of the velocity with this mean, and its parameters (mean, log variance)."""
    # A very low initial variance starts training from the deterministic model.
    ndims = mean.shape[-1]
    log_variance = getattr(layers, f"Conv{ndims}D")(
        ndims,
        3,
        padding="same",
        kernel_initializer=KI.RandomNormal(0.0, 1e-10),
        bias_initializer=KI.Constant(-10.0),
        name=name("log_sigma"),
        dtype="float32",
    )(features)
    parameters = assembly.float32(KL.Concatenate, name("prob_concat"))([mean, log_variance])
    return assembly.float32(layers.SampleNormalLogVar, name("z_sample"))([mean, log_variance]), parameters
