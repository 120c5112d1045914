"""Registration networks.

VoxelMorph's further models are in `hetmorph.voxelmorph.networks` and shown here, where their users look.
"""

import importlib

from hetmorph.networks.adareg import AdaRegTransMorph, AdaRegVxmDense
from hetmorph.networks.encoders import feature_encoder
from hetmorph.networks.het import HetRegistration, HetTransMorph, HetVxmDense
from hetmorph.networks.implicit import code_encoder, code_table, coordinate_network
from hetmorph.networks.multi_pass import MultiPass
from hetmorph.networks.nll import NllTransMorph, NllVxmDense
from hetmorph.networks.registration import Registration, velocity_network
from hetmorph.networks.strided_unet import VoxelMorph2018, strided_unet
from hetmorph.networks.tall_unet import affine_network, tall_unet
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.two_networks import TwoNetworks
from hetmorph.networks.unet import Unet, default_unet_features
from hetmorph.networks.unigradicon import UniGradICON
from hetmorph.networks.vxm import VxmDense

__all__ = [
    "AdaRegTransMorph",
    "AdaRegVxmDense",
    "ConditionalTemplateCreation",
    "HetRegistration",
    "HetTransMorph",
    "HetVxmDense",
    "HyperVxmDense",
    "InstanceDense",
    "ModelCheckpointParallel",
    "MultiPass",
    "NllTransMorph",
    "NllVxmDense",
    "ProbAtlasSegmentation",
    "Registration",
    "SynthStrip",
    "TemplateCreation",
    "TransMorph",
    "Transform",
    "TwoNetworks",
    "UniGradICON",
    "Unet",
    "VoxelMorph2018",
    "VxmDense",
    "VxmDenseSemiSupervisedPointCloud",
    "VxmDenseSemiSupervisedSeg",
    "affine_network",
    "code_encoder",
    "code_table",
    "coordinate_network",
    "default_unet_features",
    "feature_encoder",
    "labels_to_image",
    "strided_unet",
    "tall_unet",
    "velocity_network",
]


def __getattr__(name: str):
    """A model of VoxelMorph's room, which imports the originals, when it is first asked for."""
    if name in __all__:
        return getattr(importlib.import_module("hetmorph.voxelmorph.networks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
