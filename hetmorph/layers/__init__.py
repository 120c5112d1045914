"""Keras layers, on batched kernels.

VoxelMorph's and neurite's further layers are in `hetmorph.voxelmorph.layers` and shown here, where their users look.
"""

import importlib

from hetmorph import backend  # noqa: F401  refuses another Keras
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
from hetmorph.layers.coordinates import CoordinateAttention, FeatureNorm, Flip, Margin
from hetmorph.layers.decoder import InstanceNormalization, LinearUpsampling
from hetmorph.layers.implicit import Cells, CodeTable, FourierFeatures, Sines
from hetmorph.layers.points import PointTransformer, ValueAtLocation
from hetmorph.layers.residual import BlockMean, DoubledResidual, HalvedResidual, UnitCubeToVoxels
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
    "BlockMean",
    "Cells",
    "CodeTable",
    "ComposeTransform",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "CoordinateAttention",
    "CovStream",
    "CropToReference",
    "DoubledResidual",
    "DropPath",
    "FeatureNorm",
    "Flip",
    "FourierFeatures",
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
    "Margin",
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
    "Sines",
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


def __getattr__(name: str):
    """A layer of VoxelMorph's room, which imports the originals, when it is first asked for."""
    if name in __all__:
        return getattr(importlib.import_module("hetmorph.voxelmorph.layers"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
