"""Keras layers: VoxelMorph's names, on batched kernels."""

from hetmorph.layers.affine import AddIdentity, AffineToDenseShift, InvertAffine, ParamsToAffineMatrix
from hetmorph.layers.atlas import ReplaceFirstChannel, SoftmaxLabels
from hetmorph.layers.bounds import SoftBound
from hetmorph.layers.hyper import (
    HyperConv1D,
    HyperConv1DFromDense,
    HyperConv2D,
    HyperConv2DFromDense,
    HyperConv3D,
    HyperConv3DFromDense,
    HyperDense,
    HyperDenseFromDense,
)
from hetmorph.layers.neurite import CovStream, LocalParamWithInput, MeanStream
from hetmorph.layers.points import PointTransformer, ValueAtLocation
from hetmorph.layers.sampling import SampleNormalLogVar
from hetmorph.layers.spatial import (
    ComposeTransform,
    CropToReference,
    Negate,
    PadToMultiple,
    RescaleTransform,
    SpatialTransformer,
    VecInt,
    VecIntegration,
)

__all__ = [
    "AddIdentity",
    "AffineToDenseShift",
    "ComposeTransform",
    "CovStream",
    "CropToReference",
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
    "MeanStream",
    "Negate",
    "PadToMultiple",
    "ParamsToAffineMatrix",
    "PointTransformer",
    "ReplaceFirstChannel",
    "RescaleTransform",
    "SampleNormalLogVar",
    "SoftBound",
    "SoftmaxLabels",
    "SpatialTransformer",
    "ValueAtLocation",
    "VecInt",
    "VecIntegration",
]
