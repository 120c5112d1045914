"""Published networks of several steps, and the networks of one step as steps."""

import functools
from collections.abc import Callable

import keras

from hetmorph.layers import CoordinateAttention
from hetmorph.networks.assembly import widened
from hetmorph.networks.encoders import FEATURES as FEATURES_OF_ENCODER
from hetmorph.networks.encoders import feature_encoder
from hetmorph.networks.implicit import UNITS, code_encoder, coordinate_network
from hetmorph.networks.registration_model import RegistrationModel
from hetmorph.networks.tall_unet import FEATURES, MATRIX_FEATURES, affine_network, tall_unet
from hetmorph.steps import (
    AffineStep,
    AtResolution,
    Consistent,
    FeatureStep,
    FieldStep,
    ImplicitStep,
    Smoothed,
    Step,
    Then,
    Turned,
    TwoStepConsistent,
    VelocityStep,
)

PADDING = 9  # of CARL, voxels of the attention's grid by which an object may lie outside the fixed image
REFINED = "refined"  # the network of the second stage of `gradicon`


def gradicon(ndims: int, width: float = 1.0, channels: int = 1, nb_unet_features=None, stage: int = 2) -> Step:
    """Four tall U-Nets: at a quarter, half and the whole resolution, and once more at the whole.

    As published the first three are trained before the fourth joins them, which changes nothing at first.

    Args:
        ndims: spatial axes of the images.
        width: features, as a multiple of the published ones.
        channels: number of channels of each image.
        nb_unet_features: as of `tall_unet`, instead of a multiple of the published ones.
        stage: 1 makes the first three alone, 2 all.

    Reference:
        Tian et al., GradICON, CVPR 2023, arXiv:2206.05897.
    """

    field = _fields(ndims, width, channels, nb_unet_features)
    return _refined(AtResolution(field("quarter"), corners=True), field, stage, corners=True)


def carl(ndims: int, width: float = 1.0, channels: int = 1, stage: int = 2, turns: bool = False, corners=False) -> Step:
    """Attention to coordinates at a quarter of the resolution, then tall U-Nets at half and the whole of it.

    The first step follows translations of either image by themselves, the others those of both together, and so does
    the whole. As published it is trained by "diffusion" first, then by "gradicon", and the last U-Net joins later.

    Args:
        ndims: spatial axes of the images.
        width: features, as a multiple of the published ones.
        channels: number of channels of each image.
        stage: 1 makes the attention and the first two U-Nets alone, 2 all.
        turns: also follow rotations, CARL{ROT}: features are averaged over half turns and see further, a displacement
            that is linear stays so outside the image, and training turns each image at random.
        corners: as of `AtResolution`. The authors' networks were trained so; translations are then followed up to a
            factor of 4·(n − 1)/(N − 1), n voxels being a quarter of the image's N: 1.05 too far at N = 64.

    Reference:
        Greer et al., CARL: a framework for equivariant image registration, CVPR 2025, arXiv:2405.16738.
    """
    dilations, beyond = ((1, 2, 4, 8), "odd") if turns else ((1, 2, 4), "edge")
    count = widened([FEATURES_OF_ENCODER], width)[0]
    encoder = feature_encoder(ndims, count, PADDING, dilations, averaged=turns, channels=channels)
    attention = FeatureStep(encoder, CoordinateAttention(PADDING), beyond=beyond)
    field = _fields(ndims, width, channels)
    step = _refined(AtResolution(attention, corners=corners), field, stage, corners)
    return Turned(step) if turns else step


def unicarl(ndims: int, width: float = 1.0, channels: int = 1) -> Step:
    """The layout of uniCARL: attention at a sixteenth of the resolution, five U-Nets at a quarter, one at the whole.

    After each step but the last its displacement is smoothed, less and less. For images of 160 voxels a side; the
    scales of smoothing are voxels and do not change with the size.

    Args:
        ndims: spatial axes of the images.
        width: features, as a multiple of the published ones.
        channels: number of channels of each image.

    Reference:
        The package icon-registration 1.1.9, `unicarl`; a preview without a paper of its own. CARL is arXiv:2405.16738.
    """
    count = 4 * widened([96], width)[0]
    encoder = feature_encoder(ndims, count, 16, (1, 1, 1), halvings=2, averaged=True, channels=channels)
    step = AtResolution(FeatureStep(encoder, CoordinateAttention(4), spacing=4, beyond="odd"), corners=True)

    def field(name: str) -> FieldStep:
        return FieldStep(_tall_unet(ndims, width, channels, name), beyond="odd")

    for number, sigma in enumerate((21, 21, 21, 11, 11)):
        step = Then([Smoothed(step, sigma), AtResolution(field(f"smooth_{number}"), corners=True)])
    step = Then([Smoothed(AtResolution(step, corners=True), 8), field("whole")])
    return Turned(step, rotation=0.1, shear=0.1)


def nephi(ndims: int, width: float = 1.0, channels: int = 1, size: int = 128) -> Step:
    """An encoder of both images that gives codes, and two networks of coordinates and codes, to and fro.

    Args:
        ndims: spatial axes of the images.
        width: features of the encoder and units of the other networks, as a multiple of the published ones.
        channels: number of channels of each image.
        size: voxels of the longest axis of the images that it is made for, see `code_encoder`.

    Reference:
        Tian et al., NePhi: neural deformation fields for approximately diffeomorphic medical image registration,
        ECCV 2024, arXiv:2309.07322.
    """
    units = widened([UNITS], width)[0]
    forward, backward = (
        coordinate_network(ndims, units=units, waves=units, name=name) for name in ("forward", "backward")
    )
    return ImplicitStep(code_encoder(ndims, size, width, channels=channels), forward, backward)


def _fields(ndims: int, width: float, channels: int, nb_unet_features=None) -> Callable[[str], FieldStep]:
    """A function that makes steps of tall U-Nets by their names."""
    return lambda name: FieldStep(_tall_unet(ndims, width, channels, name, nb_unet_features))


def _refined(coarsest: Step, field: Callable[[str], FieldStep], stage: int, corners: bool) -> Step:
    """A step of half the resolution, then U-Nets at half and the whole, and in the second stage once more."""
    coarse = AtResolution(Then([coarsest, field("half")]), corners=corners)
    return Then([coarse, field("whole"), *([field(REFINED)] if stage > 1 else [])])


def constricon(ndims: int, width: float = 1.0, channels: int = 1, int_steps: int = 4) -> Step:
    """Two affine steps, then two velocities: exchanging the images inverts the whole by its structure.

    Args:
        ndims: spatial axes of the images.
        width: features, as a multiple of the published ones.
        channels: number of channels of each image.
        int_steps: steps of each integration, by the midpoint's method. What a registration costs grows with them, and
            the inverse error falls with their square.

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
        VelocityStep(_tall_unet(ndims, width, channels, f"velocity_{i}"), int_steps, int_method="midpoint")
        for i in range(2)
    ]
    first, *others = [Consistent(step) for step in reversed(affine + velocity)]
    whole = first
    for step in others:
        whole = TwoStepConsistent(step, whole)
    return whole


ARCHITECTURES = {
    "gradicon": gradicon,
    "constricon": constricon,
    "carl": carl,
    "carl-rot": functools.partial(carl, turns=True),
    "unicarl": unicarl,
    "nephi": nephi,
}


def _tall_unet(ndims: int, width: float, channels: int, name: str, features=None) -> keras.Model:
    features = [widened(part, width) for part in FEATURES] if features is None else features
    return tall_unet((None,) * ndims, features, channels, channels, name)


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
