"""The networks of implicit deformations: one of coordinates and codes, and one that gives codes of two images."""

import math
from collections.abc import Sequence

import keras
from keras import layers as KL

from hetmorph import layers
from hetmorph.networks.assembly import check_inshape, image_inputs, widened

SHARED = LOCAL = 32  # numbers of the codes
UNITS = 128
FEATURES = (8, 16, 32, 64, 128, 256)
_CELLS = 16  # of the grid of local codes along the longest axis, about
_SMALLEST = 3  # cells along each axis that the code of the whole is read from


def coordinate_network(
    ndims: int, codes: int = SHARED + LOCAL, units: int = UNITS, waves: int = UNITS, name: str = "coordinates"
) -> keras.Model:
    """Sines of places, gated by sines of places and codes: what `transforms.Implicit` is made of.

    Its last layer starts from zeros, and so does what it gives.

    Args:
        ndims: N, axes of the places.
        codes: numbers of the codes at each place.
        units: number of units of each layer.
        waves: number of the Fourier features.
        name: name and prefix of all layer names.

    Returns:
        Model `[places, codes]`, `[B, P, N]` from −1 to 1 and `[B, P, codes]`, to `[B, P, N]` float32. As published, 140
        thousand weights in 3-D.

    Raises:
        ValueError: no axes, codes or units.

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322; Mehta et al., Modulated periodic activations for generalizable
        local functional representations, ICCV 2021, arXiv:2104.03960.
    """
    for what, count in {"axis": ndims, "code": codes, "unit": units, "wave": waves}.items():
        if count < 1:
            raise ValueError(f"expected at least one {what}, received {count}")
    places = keras.Input((None, ndims), name=f"{name}_places")
    known = keras.Input((None, codes), name=f"{name}_codes")
    waved = layers.FourierFeatures(waves, name=f"{name}_waves")(places)
    both = KL.Concatenate(name=f"{name}_both")([known, waved])
    gate = first = layers.Sines(units, first=True, name=f"{name}_gate_0")(both)
    x = layers.Sines(units, 1.0, first=True, name=f"{name}_sines_0")(waved)
    for level in (1, 2):
        gate = KL.Add(name=f"{name}_gate_{level}")([layers.Sines(units, name=f"{name}_code_{level}")(gate), first])
        x = KL.Multiply(name=f"{name}_gated_{level}")([gate, layers.Sines(units, name=f"{name}_sines_{level}")(x)])
    moved = KL.Dense(ndims, kernel_initializer="zeros", dtype="float32", name=f"{name}_shift")(x)
    return keras.Model([places, known], moved, name=name)


def code_encoder(
    ndims: int,
    size: int = 128,
    width: float = 1.0,
    shared: int = SHARED,
    local: int = LOCAL,
    channels: int = 1,
    name: str = "encoder",
) -> keras.Model:
    """Convolutions that halve two images, from which their codes are read: one of the pair, and some of its places.

    Args:
        ndims: spatial axes of the images, 2 or 3.
        size: voxels of the longest axis of the images that it is made for: so many times it halves them that some 16
            local codes lie along that axis, and that the code of the pair is read from two to four cells. Images of
            other sizes are taken too.
        width: features, as a multiple of the published ones.
        shared, local: numbers of the code of the pair, and of each local one.
        channels: number of channels of each image.
        name: name and prefix of all layer names.

    Returns:
        Model `[moving, fixed]`, `[B, *S, channels]` each, to `[B, shared]` and `[B, *L, local]`. As published, and of
        175 voxels a side, 3.0 million weights in 3-D.

    Raises:
        ValueError: another number of axes, or no size, features or codes.

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322.
    """
    if ndims not in (2, 3):
        raise ValueError(f"code_encoder takes images of 2 or 3 axes, received {ndims}")
    if min(size, shared, local) < 1 or not width > 0:
        raise ValueError(f"expected size, width and codes above 0, received {size}, {width}, {shared} and {local}")
    octaves = max(round(math.log2(size)), 2)
    levels = widened((*FEATURES, *[FEATURES[-1]] * octaves)[: octaves - 1], width)
    read_at = max(octaves - round(math.log2(_CELLS)) - 1, 0)
    images = image_inputs(check_inshape((None,) * ndims), channels, channels, name)
    x = KL.Concatenate(name=f"{name}_images")(images.outputs)
    for level, features in enumerate(levels):
        x = _convolved(x, features, 2, f"{name}_{level}")
        if level == read_at:
            of_places = _convolved(x, local, 1, f"{name}_local")
    x = layers.Cells(_SMALLEST, name=f"{name}_cells")(x)
    x = KL.Dense(*widened(FEATURES[-1:], width), name=f"{name}_dense")(KL.Flatten(name=f"{name}_flat")(x))
    of_pair = KL.Dense(shared, name=f"{name}_shared")(KL.LeakyReLU(0.2, name=f"{name}_leaky")(x))
    return keras.Model(images.inputs, [of_pair, of_places], name=name)


def code_table(
    cells: Sequence[int],
    pairs: int = 1,
    shared: int = SHARED,
    local: int = LOCAL,
    channels: int = 1,
    name: str = "table",
) -> keras.Model:
    """Codes that are weights, in the place of `code_encoder`: for pairs that are optimised, not predicted.

    Args:
        cells: number of cells of the grid of local codes, `(*L)`.
        pairs: how many, in the order in which they are given as a batch.
        shared, local: numbers of the code of a pair, and of each local one.
        channels: number of channels of each image.
        name: name and prefix of all layer names.

    Returns:
        Model as `code_encoder`, of as many images as pairs.
    """
    images = image_inputs((None,) * len(cells), channels, channels, name)
    table = layers.CodeTable(cells, pairs, shared, local, name=f"{name}_codes")
    return keras.Model(images.inputs, table(images.inputs[0]), name=name)


def _convolved(x, features: int, stride: int, name: str):
    x = layers.Margin(1, name=f"{name}_margin")(x)
    convolution = getattr(layers, f"Conv{len(x.shape) - 2}D")
    x = convolution(features, 3, strides=stride, padding="valid", name=f"{name}_conv")(x)
    x = KL.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return KL.LeakyReLU(0.2, name=f"{name}_relu")(x)
