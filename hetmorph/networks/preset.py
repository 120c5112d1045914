"""A model as a folder that people and hubs can read: its config, its weights, and a card with their checksums."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import keras

from hetmorph.io.atomic import write_text
from hetmorph.io.sidecar import sha256_of
from hetmorph.stored import CARD

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_CHECKSUMS = "sha256"


def is_preset(folder: str | os.PathLike) -> bool:
    """Whether a folder holds the config and the weights of a model."""
    return all((Path(folder) / name).is_file() for name in (CONFIG, WEIGHTS))


def read_preset(folder: str | os.PathLike) -> keras.Model:
    """The model of a folder that `write_preset` has written.

    Args:
        folder: holds `config.json`, `model.weights.h5`, and `model.json`, whose checksums they are compared with.

    Raises:
        FileNotFoundError: it lacks the config or the weights.
        ValueError: a file is not the one of the card, or no model of Keras.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: expected a preset, which has {CONFIG} and {WEIGHTS}; lacks {missing}")
    _verify(folder)
    try:
        model = keras.saving.deserialize_keras_object(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        model.load_weights(str(folder / WEIGHTS))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ValueError(f"{folder} does not load as a Keras model: {str(error).splitlines()[0]}") from error
    return model


def write_preset(model: keras.Model, folder: str | os.PathLike, card: Mapping | None = None) -> Path:
    """Write a model's config and weights, and a card with their checksums, into a folder.

    Args:
        model: model of this library, or any that Keras can serialise.
        folder: is made where it does not exist; what else lies there stays.
        card: name, purpose, anatomy, modality, ndims, direction, training_data; None keeps the one that is there.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    written = json.dumps(config, indent=1)  # first: of networks within steps, Keras empties what it reads
    bare = keras.saving.deserialize_keras_object(config)  # without optimisers, whose state is no part of a preset
    bare.set_weights(model.get_weights())
    write_text(folder / CONFIG, written + "\n")
    bare.save_weights(str(folder / WEIGHTS))
    stored = json.loads((folder / CARD).read_text(encoding="utf-8")) if (folder / CARD).is_file() else {}
    checksums = {name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS)}
    card = {**stored, **(card or {}), _CHECKSUMS: checksums}
    write_text(folder / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return folder


def _verify(folder: Path) -> None:
    """Compare the files with the checksums of the card, where there is one."""
    if not (folder / CARD).is_file():
        return
    try:
        expected = json.loads((folder / CARD).read_text(encoding="utf-8")).get(_CHECKSUMS, {}).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CARD}: expected a JSON object with {_CHECKSUMS} of each file ({error})") from error
    for name, checksum in expected:
        found = sha256_of(folder / name)
        if found != checksum:
            raise ValueError(
                f"{folder / name}: expected SHA-256 {checksum[:16]}…, as {CARD} says, received {found[:16]}…: it is "
                "damaged or another one"
            )
