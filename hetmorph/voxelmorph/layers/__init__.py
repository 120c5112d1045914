"""VoxelMorph's and neurite's layers that only their models need, shown in `hetmorph.layers`."""

from hetmorph import layers
from hetmorph.voxelmorph.layers.affine import AddIdentity, AffineToDenseShift, InvertAffine, ParamsToAffineMatrix
from hetmorph.voxelmorph.layers.atlas import (
    GaussianLogLikelihood,
    LogJoint,
    LogSumExp,
    ReplaceFirstChannel,
    ScaleAndShift,
    SoftmaxLabels,
)
from hetmorph.voxelmorph.layers.hyper import (
    HyperConv1D,
    HyperConv1DFromDense,
    HyperConv2D,
    HyperConv2DFromDense,
    HyperConv3D,
    HyperConv3DFromDense,
    HyperDense,
    HyperDenseFromDense,
)
from hetmorph.voxelmorph.layers.neurite import CovStream, LocalParamWithInput, MeanStream
from hetmorph.voxelmorph.layers.synth import LabelsToImage as LabelsToImage

__all__ = [
    "AddIdentity",
    "AffineToDenseShift",
    "CovStream",
    "GaussianLogLikelihood",
    "HyperConv1D",
    "HyperConv1DFromDense",
    "HyperConv2D",
    "HyperConv2DFromDense",
    "HyperConv3D",
    "HyperConv3DFromDense",
    "HyperDense",
    "HyperDenseFromDense",
    "InvertAffine",
    "LocalParamWithInput",
    "LogJoint",
    "LogSumExp",
    "MeanStream",
    "ParamsToAffineMatrix",
    "ReplaceFirstChannel",
    "ScaleAndShift",
    "SoftmaxLabels",
]

# From now on they are attributes of the place where they are shown: the API reference looks for them there.
vars(layers).update({name: globals()[name] for name in layers.__all__ if name in __all__})
