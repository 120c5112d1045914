"""Small models of every kind, and what goes in and comes out, for the tests beside this file."""

from pathlib import Path

import numpy as np

from hetmorph.voxelmorph.networks.atlas import ProbAtlasSegmentation
from hetmorph.voxelmorph.networks.hyper import HyperVxmDense
from hetmorph.voxelmorph.networks.instance import InstanceDense
from hetmorph.voxelmorph.networks.semisupervised import VxmDenseSemiSupervisedPointCloud, VxmDenseSemiSupervisedSeg
from hetmorph.voxelmorph.networks.template import ConditionalTemplateCreation, TemplateCreation

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FEATURES = [[4], [4, 4]]

# One per file of tests/golden.
GOLDEN_CLASSES = {
    "hyper": HyperVxmDense,
    "hyper_3d": HyperVxmDense,
    "seg": VxmDenseSemiSupervisedSeg,
    "seg_bidir": VxmDenseSemiSupervisedSeg,
    "points": VxmDenseSemiSupervisedPointCloud,
    "points_one_way": VxmDenseSemiSupervisedPointCloud,
    "instance": InstanceDense,
    "template": TemplateCreation,
    "conditional": ConditionalTemplateCreation,
    "conditional_levels": ConditionalTemplateCreation,
    "atlas": ProbAtlasSegmentation,
    "atlas_supervised": ProbAtlasSegmentation,
}


def pair(rng, shape, batch=2):
    """Moving and fixed images of noise."""
    return [rng.uniform(size=(batch, *shape, 1)).astype("float32") for _ in range(2)]


def lively(model, rng, scale=0.5):
    """Give the flow convolution weights that move voxels: at initialisation the displacement is about zero."""
    layer = model.get_layer(f"{model.name}_flow")
    layer.set_weights([scale * rng.normal(size=w.shape) for w in layer.get_weights()])
    return model


def golden(name):
    """Path of a weight file of the original, its inputs, its outputs, and everything else it gave."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        inputs = [arrays[f"in{i}"] for i in range(sum(k.startswith("in") for k in arrays))]
        outputs = [arrays[f"out{i}"] for i in range(sum(k.startswith("out") for k in arrays))]
        return GOLDEN / f"{name}.h5", inputs, outputs, dict(arrays)


def random_inputs(model, rng, batch=2):
    """Uniform arrays of the shapes that a model takes."""
    return [rng.uniform(size=(batch, *t.shape[1:])).astype("float32") for t in model.inputs]
