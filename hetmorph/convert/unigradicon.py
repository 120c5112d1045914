"""Weights of the authors' uniGradICON, multiGradICON and GradICON checkpoints (PyTorch) for `UniGradICON`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hetmorph.networks.unigradicon import PUBLISHED_SIZE, UniGradICON

# Of the four networks, in the order in which the step asks them: what their parameters' names begin with.
_NETWORKS = (
    "netPhi.netPhi.net.netPhi.net.net.",
    "netPhi.netPhi.net.netPsi.net.",
    "netPhi.netPsi.net.",
    "netPsi.net.",
)
_COUNTED = re.compile(r"batchNorms\.\d+\.num_batches_tracked$")
_NORM = ("weight", "bias", "running_mean", "running_var")


def convert_unigradicon(
    state_dict: Mapping[str, np.ndarray], inshape: Sequence[int] | None = PUBLISHED_SIZE
) -> UniGradICON:
    """The model of a checkpoint of the authors' network, batch statistics included.

    The authors' arrays have the axes (z, y, x) of ITK, those of this library (x, y, z): the weights are turned, so that
    the model takes images as this library reads them.

    Args:
        state_dict: names to arrays, as `read_checkpoint` returns them.
        inshape: voxels that every image is resized to, which the checkpoint does not say; None entries, or None, take
            images as they are.

    Returns:
        The model, equal to the authors' in evaluation mode.

    Raises:
        ValueError: a checkpoint of another architecture, or weights that are missing or of another shape.

    Example:
        >>> model = convert_unigradicon(read_checkpoint("Step_2_final.trch"))
    """
    arrays = {key: np.asarray(value) for key, value in state_dict.items() if not _COUNTED.search(str(key))}
    features, ndims = _features(arrays)
    expected = [list(_names(prefix, len(features[0]))) for prefix in _NETWORKS]
    _check_names(arrays, {name for names in expected for name in names})
    inshape = (None,) * ndims if inshape is None else tuple(inshape)
    if len(inshape) != ndims:
        raise ValueError(f"expected {ndims} sizes of images, as the checkpoint's kernels have axes, received {inshape}")
    model = UniGradICON(inshape, nb_unet_features=features)
    converted = [_turned(name, arrays[name]) for names in expected for name in names]
    for (name, array), variable in zip(zip(sum(expected, []), converted, strict=True), _variables(model), strict=True):
        if array.shape != tuple(variable.shape):
            raise ValueError(f"{name} becomes {array.shape} here, where the network has {tuple(variable.shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
    for array, variable in zip(converted, _variables(model), strict=True):
        variable.assign(array)
    return model


def _features(arrays: Mapping[str, np.ndarray]) -> tuple[list[list[int]], int]:
    """[encoder, decoder] of the networks, from the biases of the last, and the number of their spatial axes."""
    prefix, levels = _NETWORKS[-1], 0
    while f"{prefix}downConvs.{levels}.bias" in arrays and f"{prefix}upConvs.{levels}.bias" in arrays:
        levels += 1
    last = arrays.get(f"{prefix}lastConv.bias")
    if not levels or last is None or last.shape not in ((2,), (3,)):
        raise ValueError(
            "expected a checkpoint of GradICON's four networks, uniGradICON or multiGradICON, with parameters such as "
            f"{prefix}downConvs.0.weight, received {_some(arrays)}"
        )

    def counts(part: str) -> list[int]:
        return [len(arrays[f"{prefix}{part}.{level}.bias"]) for level in range(levels)]

    return [counts("downConvs"), counts("upConvs")[::-1]], len(last)


def _names(prefix: str, levels: int) -> Iterator[str]:
    """The authors' names of a network's parameters, in the order of ours."""
    for level in range(levels):
        yield from (f"{prefix}downConvs.{level}.{part}" for part in ("weight", "bias"))
    for level in reversed(range(levels)):
        yield from (f"{prefix}upConvs.{level}.{part}" for part in ("weight", "bias"))
        yield from (f"{prefix}batchNorms.{level}.{part}" for part in _NORM)
    yield from (f"{prefix}lastConv.{part}" for part in ("weight", "bias"))


def _variables(model: UniGradICON) -> Iterator:
    """Of the four networks one after the other, each in the order of its layers."""
    coarse, whole, refined = model.step.steps
    coarsest, half = coarse.step.steps
    for step in (coarsest.step, half, whole, refined):
        for layer in step.network.layers:
            yield from layer.weights


def _check_names(arrays: Mapping[str, np.ndarray], expected: set[str]) -> None:
    missing, unexpected = sorted(expected - arrays.keys()), sorted(arrays.keys() - expected)
    if missing or unexpected:
        raise ValueError(
            f"the checkpoint is not of GradICON's four networks: it lacks {len(missing)} of their {len(expected)} "
            f"parameters ({_some(missing)}) and has {len(unexpected)} others ({_some(unexpected)})"
        )


def _some(names) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:2]) + (" …" if len(names) > 2 else "") if names else "none"


def _turned(name: str, array: np.ndarray) -> np.ndarray:
    """A parameter in the layout of Keras, with the axes in the order (x, y, z)."""
    turned = array.astype(np.float32).T
    return turned[..., ::-1] if ".lastConv." in name else turned  # whose outputs are the axes themselves
