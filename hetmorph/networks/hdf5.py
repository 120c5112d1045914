"""Weights in the HDF5 layout of Keras 2, keyed by layer name, which VoxelMorph's published models use."""

import json
import re
from collections import Counter

import h5py
import keras
import numpy as np

from hetmorph.layers import Slabs

TRAINING = "hetmorph_training"


def has_layer_names(path: str) -> bool:
    """Whether the file has the Keras 2 layout and not that of Keras 3's `.weights.h5`."""
    with h5py.File(path, "r") as file:
        return "layer_names" in _weight_group(file).attrs


def read_layer_weights(path: str) -> dict[str, list[np.ndarray]]:
    """Arrays of every layer that has any, in file order."""
    with h5py.File(path, "r") as file:
        group = _weight_group(file)
        layers = {}
        for name in _decode(group.attrs["layer_names"]):
            arrays = [group[name][w][()] for w in _decode(group[name].attrs["weight_names"])]
            if arrays:
                layers[name] = arrays
        return layers


def named_layers(layers) -> list[keras.layers.Layer]:
    """The layers that weight files name: those of a `Slabs` by themselves."""
    return [part for layer in layers for part in (layer.chain if isinstance(layer, Slabs) else [layer])]


def write_layer_weights(layers, path: str) -> None:
    """Write the weights of Keras layers so that Keras 2, Keras 3 and `read_layer_weights` read them."""
    with h5py.File(path, "w") as file:
        _write(layers, file)


def name_layers(layers, path: str) -> None:
    """Write the weights of a saved model anew under the layers' own names, where a `Slabs` holds several of them."""
    if any(isinstance(layer, Slabs) for layer in layers):
        with h5py.File(path, "a") as file:
            del file["model_weights"]
            _write(layers, file.create_group("model_weights"))


def _write(layers, group: h5py.Group) -> None:
    layers = named_layers(layers)
    group.attrs["layer_names"] = [layer.name.encode() for layer in layers]
    for layer in layers:
        own = group.create_group(layer.name)
        names = [f"{layer.name}/{i}_{w.name}:0".encode() for i, w in enumerate(layer.weights)]
        own.attrs["weight_names"] = names
        for name, weight in zip(names, layer.weights, strict=True):
            own[name.decode()] = np.asarray(weight)


def assign_layer_weights(layers, stored: dict[str, list[np.ndarray]], optional: tuple[str, ...] = ()) -> list[str]:
    """Give layers the stored weights of their name.

    Keras numbers the layers that nobody named, "conv2d_7", over a whole program. Such layers get, in order, what is
    left over under the same name but for the number, with the same shapes.

    Args:
        layers: Keras layers.
        stored: from `read_layer_weights`.
        optional: names of layers that may be missing in the file.

    Returns:
        Names of the optional layers that were missing.

    Raises:
        ValueError: a layer without weights in the file, or weights without a layer; both are listed.
    """
    stored = dict(stored)
    pairs, unmatched = [], []
    for layer in (layer for layer in named_layers(layers) if layer.weights):
        if layer.name in stored:
            pairs.append((layer, stored.pop(layer.name)))
        else:
            unmatched.append(layer)
    missing = [layer.name for layer in unmatched if layer.name in optional]
    unmatched = [layer for layer in unmatched if layer.name not in optional]
    pairs += _numbered_pairs(unmatched, stored)
    for layer, arrays in pairs:
        expected, received = _shapes(layer.weights), _shapes(arrays)
        if expected != received:
            raise ValueError(f"layer {layer.name!r} expects weights of shape {expected}, the file has {received}")
    for layer, arrays in pairs:
        layer.set_weights(arrays)
    return missing


def _numbered_pairs(layers: list, stored: dict[str, list[np.ndarray]]) -> list[tuple]:
    """Layers and leftover weights that are alike but for the number in their name, in order."""

    def kind(name: str, shapes) -> tuple:
        return re.sub(r"_\d+$", "", name), *shapes

    ours = [(kind(layer.name, _shapes(layer.weights)), layer) for layer in layers]
    theirs = [(kind(name, _shapes(arrays)), arrays) for name, arrays in stored.items()]
    if Counter(k for k, _ in ours) != Counter(k for k, _ in theirs):
        raise ValueError(
            "the file has weights that the model has no layer for: "
            f"{', '.join(f'{name} {_shapes(arrays)}' for name, arrays in stored.items()) or 'none'}; "
            "and lacks weights for these layers of the model: "
            f"{', '.join(f'{layer.name} {_shapes(layer.weights)}' for layer in layers) or 'none'}"
        )
    left = {k: iter([arrays for other, arrays in theirs if other == k]) for k, _ in theirs}
    return [(layer, next(left[k])) for k, layer in ours]


def _shapes(arrays) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in arrays]


def write_training_state(model: keras.Model, optimizers: list, path: str) -> None:
    """Add to a saved model's file how it was compiled and the state of its optimisers.

    Keras' own HDF5 writer knows neither registered losses nor a second optimiser. The class gets its registered name,
    by which `keras.saving.load_model` finds it.
    """
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["class_name"] = keras.saving.get_registered_name(type(model))
        file.attrs["model_config"] = json.dumps(config)
        if not model.compiled:
            return
        group = file.create_group(TRAINING)
        group.attrs["compile_config"] = json.dumps(model.get_compile_config())
        for i, optimizer in enumerate(optimizers):
            for j, variable in enumerate(optimizer.variables):
                group[f"{i}/{j}"] = keras.ops.convert_to_numpy(variable)


def read_config(path: str) -> dict:
    """Constructor arguments of the saved model."""
    with h5py.File(path, "r") as file:
        config = json.loads(file.attrs["model_config"])["config"]
    if config.get("enc_nf") and config.get("dec_nf"):  # the names of VoxelMorph's first releases
        config["nb_unet_features"] = [config.pop("enc_nf"), config.pop("dec_nf")]
    return config


def read_compile_config(path: str) -> dict | None:
    """How the saved model was compiled, or None."""
    with h5py.File(path, "r") as file:
        return json.loads(file[TRAINING].attrs["compile_config"]) if TRAINING in file else None


def read_optimizer_state(optimizers: list, path: str) -> None:
    """Give built optimisers the state of the file."""
    with h5py.File(path, "r") as file:
        for i, optimizer in enumerate(optimizers):
            for j, variable in enumerate(optimizer.variables):
                variable.assign(file[TRAINING][f"{i}/{j}"][()])


def _weight_group(file: h5py.File) -> h5py.Group:
    return file.get("model_weights", file)


def _decode(names) -> list[str]:
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names]
