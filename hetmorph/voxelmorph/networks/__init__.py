"""VoxelMorph's further models, shown in `hetmorph.networks`."""

from hetmorph import networks
from hetmorph.voxelmorph.networks.atlas import ProbAtlasSegmentation
from hetmorph.voxelmorph.networks.checkpoint import ModelCheckpointParallel
from hetmorph.voxelmorph.networks.hyper import HyperVxmDense
from hetmorph.voxelmorph.networks.instance import InstanceDense
from hetmorph.voxelmorph.networks.semisupervised import VxmDenseSemiSupervisedPointCloud, VxmDenseSemiSupervisedSeg
from hetmorph.voxelmorph.networks.synth import SynthStrip, labels_to_image
from hetmorph.voxelmorph.networks.template import ConditionalTemplateCreation, TemplateCreation
from hetmorph.voxelmorph.networks.transform import Transform

__all__ = [
    "ConditionalTemplateCreation",
    "HyperVxmDense",
    "InstanceDense",
    "ModelCheckpointParallel",
    "ProbAtlasSegmentation",
    "SynthStrip",
    "TemplateCreation",
    "Transform",
    "VxmDenseSemiSupervisedPointCloud",
    "VxmDenseSemiSupervisedSeg",
    "labels_to_image",
]

# From now on they are attributes of the place where they are shown: the API reference looks for them there.
vars(networks).update({name: globals()[name] for name in __all__})
