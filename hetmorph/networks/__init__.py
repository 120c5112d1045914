"""Registration networks."""

from hetmorph.networks.adareg import AdaRegTransMorph, AdaRegVxmDense
from hetmorph.networks.atlas import ProbAtlasSegmentation
from hetmorph.networks.checkpoint import ModelCheckpointParallel
from hetmorph.networks.het import HetRegistration, HetTransMorph, HetVxmDense
from hetmorph.networks.hyper import HyperVxmDense
from hetmorph.networks.instance import InstanceDense
from hetmorph.networks.multi_pass import MultiPass
from hetmorph.networks.nll import NllTransMorph, NllVxmDense
from hetmorph.networks.registration import Registration, velocity_network
from hetmorph.networks.semisupervised import VxmDenseSemiSupervisedPointCloud, VxmDenseSemiSupervisedSeg
from hetmorph.networks.synth import SynthStrip, labels_to_image
from hetmorph.networks.tall_unet import affine_network, tall_unet
from hetmorph.networks.template import ConditionalTemplateCreation, TemplateCreation
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.two_networks import TwoNetworks
from hetmorph.networks.unet import Unet, default_unet_features
from hetmorph.networks.vxm import Transform, VxmDense

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
    "Unet",
    "VxmDense",
    "VxmDenseSemiSupervisedPointCloud",
    "VxmDenseSemiSupervisedSeg",
    "affine_network",
    "default_unet_features",
    "labels_to_image",
    "tall_unet",
    "velocity_network",
]
