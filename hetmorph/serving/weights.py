"""Weights of a saved model by name, whatever it is saved as: to start another training from them."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from hetmorph.evaluation import load
from hetmorph.evaluation.predictor import ModelPredictor
from hetmorph.networks.preset import is_preset, read_preset
from hetmorph.stored import is_savedmodel, savedmodel_folder

_SHOWN = 3


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """{"layer/variable": values} of a `.keras` file, a preset, or a SavedModel, whose graph is not loaded for that.

    Args:
        path: the file, the folder, or the folder above it that holds integer version folders.

    Raises:
        FileNotFoundError, ValueError: no model, or one that keeps no names of its weights.
    """
    if not Path(path).is_dir():
        predictor = load(path)
        if not isinstance(predictor, ModelPredictor):
            raise ValueError(f"{path}: expected a .keras file or a SavedModel folder")
        return _weights_of(predictor.model)
    if is_preset(path) and not is_savedmodel(path):
        return _weights_of(read_preset(path))
    folder = savedmodel_folder(path)
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        stored = reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(f"{folder}: its variables cannot be read: {str(error).splitlines()[0]}") from error
    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(stored).nodes
    values = [value for node in nodes for value in node.attributes if value.full_name]
    return {value.full_name: reader.get_tensor(value.checkpoint_key) for value in values}


def _weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in model.weights}


def start_from(model: keras.Model, path: str | os.PathLike, later: Sequence[str] = ()) -> list[str]:
    """Gives a model the weights of a saved one of the same architecture, matched by their names.

    Args:
        model: a model of this library; a variance network that the saved one lacks keeps its initial weights.
        path: see `read_weights`; or an `.h5` file in VoxelMorph's layout.
        later: beginnings of names of weights that the saved model may lack likewise, as one of an earlier stage does;
            all of them, or none.

    Returns:
        Names of the weights that keep their initial values.

    Raises:
        FileNotFoundError, ValueError: no model, or one of another architecture; weights that differ are named.
    """
    if str(path).endswith((".h5", ".hdf5")):
        model.load_weights(str(path))
        return []
    given = read_weights(path)
    optional = tuple(getattr(model, "optional_layers", ()))
    if later and not any(name.startswith(tuple(later)) for name in given):
        optional += tuple(later)
    missing = [v.path for v in model.weights if v.path not in given]
    needed = [name for name in missing if not name.startswith(optional)] if optional else missing
    other = [
        f"{v.path} {tuple(v.shape)} instead of {given[v.path].shape}"
        for v in model.weights
        if v.path in given and tuple(v.shape) != given[v.path].shape
    ]
    if needed or other:
        first = [*(f"{name} is not in it" for name in needed), *other][:_SHOWN]
        raise ValueError(
            f"{path}: is of another architecture: of the {len(model.weights)} weights {len(needed)} are missing and "
            f"{len(other)} have another shape ({'; '.join(first)})"
        )
    for variable in model.weights:
        if variable.path in given:
            variable.assign(given[variable.path])
    return missing
