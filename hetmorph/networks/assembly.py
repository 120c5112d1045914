"""What every registration network is put together of: inputs, padding and cropping, integration, warping."""

from typing import NamedTuple

import keras
from keras import initializers as KI

from hetmorph import layers
from hetmorph.networks.unet import Ends

# What `reg_field` calls a field, and what it is called in `Flows`.
REG_FIELDS = {"svf": "svf", "preintegrated": "preint_flow", "postintegrated": "postint_flow", "warp": "pos_flow"}


def check_inshape(inshape) -> tuple[int | None, ...]:
    inshape = tuple(None if d is None else int(d) for d in inshape)
    if len(inshape) not in (1, 2, 3) or any(d is not None and d < 2 for d in inshape):
        raise ValueError(f"inshape must be 1 to 3 spatial sizes of at least 2 (no channels), got {inshape}")
    return inshape


def check_reg_field(reg_field: str) -> str:
    if reg_field.lower() not in REG_FIELDS:
        raise ValueError(f"reg_field must be one of {tuple(REG_FIELDS)}, got {reg_field!r}")
    return reg_field.lower()


def widened(features, width: float) -> list[int]:
    """Features as a multiple of others, at least one.

    Args:
        features: channels.
        width: the multiple.
    """
    return [max(1, round(width * count)) for count in features]


def image_inputs(inshape, src_feats, trg_feats, name: str) -> Ends:
    source = keras.Input(shape=(*inshape, src_feats), name=f"{name}_source_input")
    target = keras.Input(shape=(*inshape, trg_feats), name=f"{name}_target_input")
    return Ends([source, target], [source, target])


def padded_inputs(input_model: keras.Model | Ends, multiple: int | None, name) -> keras.Model | Ends:
    if multiple is None:
        return input_model
    pads = [layers.PadToMultiple(multiple, name=name(f"pad_{i}")) for i in range(len(input_model.outputs))]
    return keras.Model(input_model.inputs, [p(x) for p, x in zip(pads, input_model.outputs, strict=True)])


def cropper(reference, name):
    """Function that crops a padded field of some resolution to the reference image; identity without padding."""

    def crop(field, resolution, label):
        if reference is None:
            return field
        if label == "field":
            label = field._keras_history.operation.name.removeprefix(name(""))
        return float32(layers.CropToReference, name(f"{label}_crop"), resolution=resolution)([field, reference])

    return crop


def float32(layer_class, name: str, **kwargs):
    # Coordinates and velocities stay in float32 under mixed precision: half precision resolves 1/8 voxel at 200.
    return layer_class(name=name, dtype="float32", **kwargs)


def velocity_conv(ndims: int, name) -> keras.layers.Layer:
    conv, weak = getattr(layers, f"Conv{ndims}D"), KI.RandomNormal(0.0, 1e-5)
    return conv(ndims, 3, padding="same", kernel_initializer=weak, name=name("flow"), dtype="float32")


def rescaled(field, factor: float | None, name: str):
    return field if factor is None else float32(layers.RescaleTransform, name, zoom_factor=factor)(field)


def integrated(velocity, int_steps: int, name: str):
    return float32(layers.VecInt, name, int_steps=int_steps)(velocity) if int_steps > 0 else velocity


def warped(image, displacement, fill_value, name: str, fade: bool = False):
    return float32(layers.SpatialTransformer, name, fill_value=fill_value, fade=fade)([image, displacement])


class Flows(NamedTuple):
    """Fields of a registration: velocity, the same on the integration grid, its integral there, displacements."""

    svf: keras.KerasTensor
    preint_flow: keras.KerasTensor
    postint_flow: keras.KerasTensor
    pos_flow: keras.KerasTensor
    neg_flow: keras.KerasTensor | None = None


def integrated_flows(svf, grids, int_steps: int, bidir: bool, crop, name) -> Flows:
    """Integrate a velocity, with `bidir` also backwards, and bring the displacements to the image's grid."""

    def displacement(velocity, prefix: str):
        integral = integrated(velocity, int_steps, name(f"{prefix}flow_int"))
        full = rescaled(integral, grids.to_image, name(f"{prefix}diffflow"))
        return integral, crop(full, 1, f"{prefix}diffflow")

    preint_flow = rescaled(svf, grids.to_integration, name("flow_resize"))
    flows = Flows(svf, preint_flow, *displacement(preint_flow, ""))
    if not bidir:
        return flows
    backwards = float32(layers.Negate, name("neg_flow"))(preint_flow)
    return flows._replace(neg_flow=displacement(backwards, "neg_")[1])


def chosen_field(reg_field: str, flows: Flows, svf_resolution, int_resolution, crop):
    """The field output that `reg_field` asks for, without padding.

    Args:
        svf_resolution, int_resolution: voxel sizes of the two grids, in image voxels; the latter None if they are one.
    """
    field = getattr(flows, REG_FIELDS[reg_field])
    if reg_field == "warp":
        return field
    return crop(field, svf_resolution if reg_field == "svf" else int_resolution or svf_resolution, "field")
