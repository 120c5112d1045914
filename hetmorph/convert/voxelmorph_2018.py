"""VoxelMorph's weights of 2018, "vm1" and "vm2", as models."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import h5py
import numpy as np

from hetmorph.networks.hdf5 import opened
from hetmorph.networks.strided_unet import VoxelMorph2018

_PARAMETER = re.compile(r"([^/]+)/(?:[^/]+/)?(kernel|bias)(?::0)?$")
_KNOWN = (
    "expected weights of VoxelMorph's networks of 2018: convolutions that halve two images, a decoder with skip "
    "connections, and last the displacement"
)


def convert_voxelmorph_2018(path: str | os.PathLike, inshape: Sequence[int | None] | None = None) -> VoxelMorph2018:
    """The model of an `.h5` file of VoxelMorph's first papers, which may hold weights alone.

    Which network it is follows from the shapes of the kernels, in the order of the layers' numbers.

    Args:
        path: the file.
        inshape: spatial sizes of the images; None takes any.

    Returns:
        The model; its images are scaled as `VoxelMorph2018` says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no HDF5, or weights of another network.

    Example:
        >>> model = convert_voxelmorph_2018("cvpr2018_vm2_cc.h5")

    Reference:
        Balakrishnan et al., CVPR 2018, arXiv:1802.02604; IEEE TMI 2019, doi:10.1109/TMI.2019.2897538.
    """
    arrays = _convolutions(path)
    features, ndims = _features(path, [kernel.shape for kernel, _ in arrays])
    inshape = (None,) * ndims if inshape is None else tuple(inshape)
    if len(inshape) != ndims:
        raise ValueError(f"{path}: the weights are of {ndims}-D images, received the sizes {inshape}")
    model = VoxelMorph2018(inshape, features)
    layers = [layer for layer in model.step.network.layers if layer.weights]
    for layer, (kernel, bias) in zip(layers, arrays, strict=True):
        expected = tuple(layer.kernel.shape)
        if kernel.shape != expected or bias.shape != expected[-1:]:
            raise ValueError(f"{path}: {_KNOWN}; received a kernel {kernel.shape} where {expected} is expected")
        layer.set_weights([kernel, bias])
    return model


def _convolutions(path: str | os.PathLike) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, in the order of Keras' numbers; the displacement's, which has a name, is last."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def visit(name: str, item) -> None:
        part = _PARAMETER.search(name)
        if isinstance(item, h5py.Dataset) and part:
            found.setdefault(part[1], {})[part[2]] = item[()]

    with opened(str(path)) as file:
        file.visititems(visit)
    if not found or any(set(parts) != {"kernel", "bias"} for parts in found.values()):
        raise ValueError(f"{path}: {_KNOWN}; received the layers {sorted(found)[:4]}")
    ordered = sorted(found, key=lambda name: (name.startswith("flow"), _number(name)))
    return [(found[name]["kernel"], found[name]["bias"]) for name in ordered]


def _number(name: str) -> int:
    digits = re.search(r"(\d+)$", name)
    return int(digits[1]) if digits else 0


def _features(path: str | os.PathLike, shapes: Sequence[tuple[int, ...]]) -> tuple[list[list[int]], int]:
    """[encoder, decoder] and the number of spatial axes; a kernel that takes more than came before has a skip."""
    ndims = len(shapes[0]) - 2
    known = ndims in (2, 3) and all(len(shape) == ndims + 2 and set(shape[:ndims]) == {3} for shape in shapes)
    outputs = [shape[-1] for shape in shapes] if known else []
    depth = sum(shape[-2] > before for shape, before in zip(shapes[1:], outputs[:-1], strict=False))
    decoder = outputs[depth:-1]
    if not known or shapes[0][-2] != 2 or outputs[-1] != ndims or len(decoder) < depth + 2:
        raise ValueError(f"{path}: {_KNOWN}; received kernels {', '.join(map(str, shapes[:3]))} …")
    return [outputs[:depth], decoder], ndims
