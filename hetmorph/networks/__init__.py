"""Registration networks."""

from hetmorph.networks.atlas import ProbAtlasSegmentation
from hetmorph.networks.checkpoint import ModelCheckpointParallel
from hetmorph.networks.het import HetVxmDense
from hetmorph.networks.hyper import HyperVxmDense
from hetmorph.networks.instance import InstanceDense
from hetmorph.networks.semisupervised import VxmDenseSemiSupervisedPointCloud, VxmDenseSemiSupervisedSeg
from hetmorph.networks.synth import SynthStrip, labels_to_image
from hetmorph.networks.template import ConditionalTemplateCreation, TemplateCreation
from hetmorph.networks.unet import Unet, default_unet_features
from hetmorph.networks.vxm import Transform, VxmDense

__all__ = [
    "ConditionalTemplateCreation",
    "HetVxmDense",
    "HyperVxmDense",
    "InstanceDense",
    "ModelCheckpointParallel",
    "ProbAtlasSegmentation",
    "SynthStrip",
    "TemplateCreation",
    "Transform",
    "Unet",
    "VxmDense",
    "VxmDenseSemiSupervisedPointCloud",
    "VxmDenseSemiSupervisedSeg",
    "default_unet_features",
    "labels_to_image",
]
