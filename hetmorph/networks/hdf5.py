"""Weights in the HDF5 layout of Keras 2, keyed by layer name, which VoxelMorph's published models use."""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import h5py
import keras
import numpy as np

from hetmorph.layers import Slabs

TRAINING = "hetmorph_training"


def opened(path: str) -> h5py.File:
    """The HDF5 file, or that inside a `.keras` file.

    Args:
        path: path of either.

    Raises:
        ValueError: neither of the two.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if "model.weights.h5" not in file.namelist():
                raise ValueError(f"{path}: expected a file of HDF5 or a .keras file, received another archive")
            return h5py.File(io.BytesIO(file.read("model.weights.h5")), "r")
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: expected a file of HDF5 or a .keras file, received something else") from error


def has_layer_names(path: str) -> bool:
    """Whether the file has the Keras 2 layout and not that of Keras 3's `.weights.h5`."""
    with opened(path) as file:
        return "layer_names" in _weight_group(file).attrs


def count_weights(path: str) -> int:
    """How many variables of layers a file in Keras 3's layout holds."""
    found = []
    with opened(path) as file:
        for name in ("layers", "_layer_checkpoint_dependencies"):  # Keras up to 3.5 called them the latter
            if name in file:
                file[name].visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        return len(found)


class Part(NamedTuple):
    """A layer at any depth of a model, by the names on the way to it, and the variables that are its own."""

    name: str
    layer: keras.layers.Layer

    @property
    def weights(self) -> list[keras.Variable]:
        """As Keras stores them; those of the layers inside are not among them."""
        return [*self.layer._trainable_variables, *self.layer._non_trainable_variables]

    def set_weights(self, arrays) -> None:
        """Assign them."""
        for variable, array in zip(self.weights, arrays, strict=True):
            variable.assign(array)


def parts(layer: keras.layers.Layer, prefix: str = "") -> Iterator[Part]:
    """What a layer or model is made of, down to the last layer inside a layer.

    Args:
        layer: the layer.
        prefix: prefix of the names.
    """
    for inner in layer._flatten_layers(recursive=False, include_self=False):
        yield Part(f"{prefix}{inner.name}", inner)
        yield from parts(inner, f"{prefix}{inner.name}/")


def read_named_weights(path: str) -> dict[str, list[np.ndarray]]:
    """Weights of a file in Keras 3's layout by the names of `parts`; nothing where an older Keras noted no names."""
    stored = {}
    with opened(path) as file:

        def visit(group: h5py.Group, names: tuple[str, ...]) -> None:
            own = group.get("vars")
            name = None if own is None else own.attrs.get("name")
            names = names if name is None else (*names, name)
            if own is not None and len(own) and name is not None:
                stored["/".join(names)] = [own[key][()] for key in sorted(own, key=int)]
            for key in group:
                if key != "vars":
                    visit(group[key], names)

        if "layers" in file:
            visit(file["layers"], ())
    return stored


def read_layer_weights(path: str) -> dict[str, list[np.ndarray]]:
    """Arrays of every layer that has any, in file order."""
    with opened(path) as file:
        group = _weight_group(file)
        if "layer_names" not in group.attrs:
            raise ValueError(f"{path}: expected weights by the names of layers; files of Keras 3 end in .weights.h5")
        layers = {}
        for name in _decode(group.attrs["layer_names"]):
            arrays = [group[name][w][()] for w in _decode(group[name].attrs["weight_names"])]
            if arrays:
                layers[name] = arrays
        return layers


def layer_weights(layers) -> dict[str, list[np.ndarray]]:
    """Arrays of every layer that has any, as `read_layer_weights` reads them from a file.

    Args:
        layers: the layers of a model.
    """
    return {layer.name: layer.get_weights() for layer in named_layers(layers) if layer.weights}


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


def assign_layer_weights(
    layers, stored: dict[str, list[np.ndarray]], optional: tuple[str, ...] = (), skip_mismatch: bool = False
) -> list[str]:
    """Give layers the stored weights of their name.

    Keras numbers the layers that nobody named, "conv2d_7", over a whole program. Such layers get, in order, what is
    left over under the same name but for the number, with the same shapes.

    Args:
        layers: Keras layers.
        stored: from `read_layer_weights`.
        optional: names of layers that may be missing in the file.
        skip_mismatch: take what fits by name and shapes, and leave the other layers as they are.

    Returns:
        Names of the layers that keep their weights: optional ones that were missing, or what did not fit.

    Raises:
        ValueError: a layer without weights in the file, or weights without a layer; both are listed.
    """
    if skip_mismatch:
        return _assign_what_fits(layers, stored)
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


def _assign_what_fits(layers, stored: dict[str, list[np.ndarray]]) -> list[str]:
    layers = [layer for layer in named_layers(layers) if layer.weights]
    names = {layer.name for layer in layers}
    # Of the layers that Keras numbered, each takes what only the file has under the same name but for the numbers.
    numbered = {}
    for name in (name for name in stored if name not in names):
        numbered.setdefault(_unnumbered(name), []).append(stored[name])
    kept = []
    for layer in layers:
        others = numbered.get(_unnumbered(layer.name), []) if layer.name not in stored else []
        arrays = stored.get(layer.name, others.pop(0) if others else None)
        if arrays is not None and _shapes(arrays) == _shapes(layer.weights):
            layer.set_weights(arrays)
        else:
            kept.append(layer.name)
    return kept


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", name)


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
    """Constructor arguments of the saved model.

    Args:
        path: path of an `.h5` file.

    Raises:
        ValueError: a file of weights only.
    """
    config = _model_config(path)["config"]
    if (
        isinstance(config, dict) and config.get("enc_nf") and config.get("dec_nf")
    ):  # the names of VoxelMorph's first releases
        config["nb_unet_features"] = [config.pop("enc_nf"), config.pop("dec_nf")]
    return config


def read_class(path: str) -> str:
    """Name of the saved model's class, with its package where it is registered with Keras."""
    return _model_config(path)["class_name"]


def _model_config(path: str) -> dict:
    with opened(path) as file:
        if "model_config" not in file.attrs:
            raise ValueError(
                f"{path} holds weights only, not the model that they belong to: make the model, and call its "
                "load_weights with this file"
            )
        return json.loads(file.attrs["model_config"])


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
