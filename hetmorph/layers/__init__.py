"""Keras layers: VoxelMorph's names, on batched kernels."""

from hetmorph.layers.affine import AddIdentity, AffineToDenseShift, InvertAffine, ParamsToAffineMatrix
from hetmorph.layers.atlas import ReplaceFirstChannel, SoftmaxLabels
from hetmorph.layers.attention import DropPath, PatchEmbed, PatchMerging, SwinBlock, WindowAttention
from hetmorph.layers.bounds import SoftBound
from hetmorph.layers.convolution import (
    Conv1D,
    Conv2D,
    Conv3D,
    LeakyReLU,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
    UpsampleConv1D,
    UpsampleConv2D,
    UpsampleConv3D,
)
from hetmorph.layers.decoder import InstanceNormalization, LinearUpsampling
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
from hetmorph.layers.residual import DoubledResidual, HalvedResidual, UnitCubeToVoxels
from hetmorph.layers.sampling import SampleNormalLogVar
from hetmorph.layers.slabs import Slabs
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
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "CovStream",
    "CropToReference",
    "DoubledResidual",
    "DropPath",
    "HalvedResidual",
    "HyperConv1D",
    "HyperConv1DFromDense",
    "HyperConv2D",
    "HyperConv2DFromDense",
    "HyperConv3D",
    "HyperConv3DFromDense",
    "HyperDense",
    "HyperDenseFromDense",
    "InstanceNormalization",
    "InvertAffine",
    "LeakyReLU",
    "LinearUpsampling",
    "LocalParamWithInput",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "MeanStream",
    "Negate",
    "PadToMultiple",
    "ParamsToAffineMatrix",
    "PatchEmbed",
    "PatchMerging",
    "PointTransformer",
    "ReplaceFirstChannel",
    "RescaleTransform",
    "SampleNormalLogVar",
    "Slabs",
    "SoftBound",
    "SoftmaxLabels",
    "SpatialTransformer",
    "SwinBlock",
    "UnitCubeToVoxels",
    "UpsampleConv1D",
    "UpsampleConv2D",
    "UpsampleConv3D",
    "ValueAtLocation",
    "VecInt",
    "VecIntegration",
    "WindowAttention",
]
