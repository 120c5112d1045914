"""Keras layers: VoxelMorph's names, on batched kernels."""

from hetmorph.layers.bounds import SoftBound
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
    "ComposeTransform",
    "CropToReference",
    "Negate",
    "PadToMultiple",
    "RescaleTransform",
    "SampleNormalLogVar",
    "SoftBound",
    "SpatialTransformer",
    "VecInt",
    "VecIntegration",
]
