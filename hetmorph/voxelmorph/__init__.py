"""VoxelMorph's room: what exists for the sake of code that was written for voxelmorph 0.2 and neurite 0.2.

The only part of hetmorph that imports the two, in `original`. Nothing else needs them: their layers, models and tools
are shown under VoxelMorph's names in `hetmorph.layers`, `networks`, `generators`, `utils` and `py`, and made when they
are first asked for.
"""

import importlib

__all__ = ["generators", "layers", "networks", "original", "py", "utils"]

# What this room registers with Keras, which has to find it in a file before the room is imported.
REGISTERED = {
    "hetmorph": """
        AddIdentity AffineToDenseShift ConditionalTemplateCreation CovStream GaussianLogLikelihood HyperConv1D
        HyperConv1DFromDense HyperConv2D HyperConv2DFromDense HyperConv3D HyperConv3DFromDense HyperDense
        HyperDenseFromDense HyperVxmDense InstanceDense InvertAffine KnownRank LabelsToImage LocalParamWithInput
        LogJoint LogSumExp MeanStream ParamsToAffineMatrix ProbAtlasSegmentation ReplaceFirstChannel
        ScaleAndShift SoftmaxLabels SynthStrip TemplateCreation Transform VxmDenseSemiSupervisedPointCloud
        VxmDenseSemiSupervisedSeg""",
    "neurite": """
        ChannelsToComplex ComplexToChannels CovStream FFT FFTShift GaussianBlur HyperConv HyperConv2D
        HyperConv2DFromDense HyperConv3D HyperConv3DFromDense HyperConvFromDense HyperDense HyperDenseFromDense
        IFFT IFFTShift LocalBias LocalCrossLinear LocalCrossLinearTrf LocalLinear LocalParamLayer
        LocalParamWithInput LocallyConnected3D MSE MeanStream Negate RescaleValues Resize SampleNormalLogVar
        SoftQuantize SpatiallySparse_Dense""",
}


def __getattr__(name: str):
    """A part of the room, imported when it is first asked for."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
