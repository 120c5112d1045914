"""Published networks of several steps, and the networks of one step as steps."""

import keras

from hetmorph.networks.registration_model import RegistrationModel
from hetmorph.networks.tall_unet import FEATURES, MATRIX_FEATURES, affine_network, tall_unet
from hetmorph.steps import AffineStep, AtResolution, Consistent, FieldStep, Step, Then, TwoStepConsistent, VelocityStep

REFINED = "refined"  # the network of the second stage of `gradicon`


def gradicon(ndims: int, width: float = 1.0, channels: int = 1, nb_unet_features=None, stage: int = 2) -> Step:
    """Four tall U-Nets: at a quarter, half and the whole resolution, and once more at the whole.

    As published the first three are trained before the fourth joins them, which changes nothing at first.

    Args:
        ndims: spatial axes of the images.
        width: features, as a multiple of the published ones.
        channels: of each image.
        nb_unet_features: as of `tall_unet`, instead of a multiple of the published ones.
        stage: 1 makes the first three alone, 2 all.

    Reference:
        Tian et al., GradICON, CVPR 2023, arXiv:2206.05897.
    """

    def field(name: str) -> FieldStep:
        return FieldStep(_tall_unet(ndims, width, channels, name, nb_unet_features))

    coarsest = AtResolution(field("quarter"), corners=True)
    coarse = AtResolution(Then([coarsest, field("half")]), corners=True)
    return Then([coarse, field("whole"), *([field(REFINED)] if stage > 1 else [])])


def constricon(ndims: int, width: float = 1.0, channels: int = 1) -> Step:
    """Two affine steps, then two velocities: exchanging the images inverts the whole by its structure.

    Args:
        ndims: spatial axes of the images.
        width: features, as a multiple of the published ones.
        channels: of each image.

    Reference:
        Greer et al., Inverse consistency by construction for multistep deep registration, MICCAI 2023,
        arXiv:2305.00087.
    """
    features = widened(MATRIX_FEATURES, width)
    affine = [
        AffineStep(
            affine_network((None,) * ndims, features, src_feats=channels, trg_feats=channels, name=f"affine_{i}")
        )
        for i in range(2)
    ]
    velocity = [
        VelocityStep(_tall_unet(ndims, width, channels, f"velocity_{i}"), int_steps=8, int_method="midpoint")
        for i in range(2)
    ]
    first, *others = [Consistent(step) for step in reversed(affine + velocity)]
    whole = first
    for step in others:
        whole = TwoStepConsistent(step, whole)
    return whole


ARCHITECTURES = {"gradicon": gradicon, "constricon": constricon}


def _tall_unet(ndims: int, width: float, channels: int, name: str, features=None) -> keras.Model:
    features = [widened(part, width) for part in FEATURES] if features is None else features
    return tall_unet((None,) * ndims, features, channels, channels, name)


def widened(features, width: float) -> list[int]:
    """Features as a multiple of others, at least one.

    Args:
        features: channels.
        width: the multiple.
    """
    return [max(1, round(width * count)) for count in features]


def as_step(model: RegistrationModel) -> Step:
    """The network of a model of one step, such as `VxmDense`, as a step that others can be combined with.

    To be trained: a velocity on a coarser grid lies on voxels 0, s, 2s … of the image here; in `VxmDense` it lies from
    the first to the last voxel, which is up to a voxel elsewhere.

    Args:
        model: a `VxmDense` or `TransMorph` of two images.
    """
    arguments = model.config.params
    if arguments["int_steps"] == 0:
        return FieldStep(model.get_registration_model())
    velocity = keras.Model(model.inputs, model.references.preint_flow)
    spacing = max(arguments["int_resolution"] or 1, arguments.get("svf_resolution", 1))
    return VelocityStep(velocity, arguments["int_steps"], spacing)
