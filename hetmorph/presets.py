"""Trained models by name: those that are shipped, those of folders, those of the Hugging Face Hub.

Example:
    >>> model = hetmorph.from_preset("acdc_vxm_het")
    >>> displacement = model.register(moving, fixed)  # [B, H, W, 1] in [0, 1]
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hetmorph.stored import CARD, is_savedmodel

if TYPE_CHECKING:
    import keras

HUB = "hf://"
_PACKAGE = Path(__file__).resolve().parent
_CARD_FIELDS = ("name", "purpose", "anatomy", "modality", "ndims", "training_data")


@dataclass(frozen=True)
class Card:
    """For what a model was made, as its `model.json` says.

    Attributes:
        name: the name of the model.
        purpose: what it does, a clause.
        anatomy, modality: as words, those of the images.
        ndims: their spatial axes.
        training_data: what it was trained on.
    """

    name: str
    purpose: str
    anatomy: str
    modality: str
    ndims: int
    training_data: str

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.purpose}; made for: {self.anatomy}, {self.modality}, {self.ndims}-D; trained on: "
            f"{self.training_data}"
        )


def from_preset(preset: str | os.PathLike) -> keras.Model:
    """A trained model, ready to register, to be trained further, or to be saved.

    Args:
        preset: name of a shipped model or of a folder in HETMORPH_MODELS; a folder; or `hf://user/repository`, with
            `@revision` where one is meant, which is downloaded once (`pip install hetmorph[hub]`).

    Returns:
        The model; its files are compared with the SHA-256 of its card.

    Raises:
        ValueError: no such name, or files that are damaged or no model.
        FileNotFoundError: the folder holds no preset.
        ImportError: a model of the Hub without `huggingface_hub`.

    Example:
        >>> model = from_preset("acdc_vxm_ncc")
    """
    from hetmorph.networks.preset import read_preset  # imports TensorFlow, which names do not need

    return read_preset(find(preset))


def model_folders() -> list[Path]:
    """Where models are looked for by name: HETMORPH_MODELS, the clone that the package is in, the package itself."""
    given = [Path(folder) for folder in os.environ.get("HETMORPH_MODELS", "").split(os.pathsep) if folder]
    return [*given, _PACKAGE.parent / "saved_models", _PACKAGE / "saved_models"]


def models() -> Iterator[Path]:
    """The folders of all models that can be asked for by name; of equal names the first."""
    names = set()
    for folder in (folder for folder in model_folders() if folder.is_dir()):
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            if ((path / CARD).is_file() or is_savedmodel(path)) and path.name not in names:
                names.add(path.name)
                yield path


def find(preset: str | os.PathLike) -> Path:
    """The folder or file of a model.

    Args:
        preset: as `from_preset`, or a path of any other model.

    Raises:
        ValueError: nothing is there, and no model is called so.
        ImportError: a model of the Hub without `huggingface_hub`.
    """
    if str(preset).startswith(HUB):
        return _downloaded(str(preset))
    if Path(preset).exists():
        return Path(preset)
    if Path(preset).name == str(preset):
        for folder in model_folders():
            if (folder / preset).is_dir():
                return folder / preset
    known = ", ".join(sorted(path.name for path in models())) or "none"
    raise ValueError(
        f"no model {str(preset)!r}: no such file or folder, and none of that name in "
        f"{', '.join(map(str, model_folders()))} (HETMORPH_MODELS adds folders; there are: {known}; "
        f"{HUB}user/repository is one of the Hugging Face Hub)"
    )


def card(path: str | os.PathLike) -> Card | None:
    """What `model.json` beside a model, in its folder or above its version, says of it; None without one.

    Args:
        path: path of a model, a folder or a file.

    Raises:
        ValueError: the file cannot be read, or lacks a field.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    found = next((place / CARD for place in (folder, folder.parent) if (place / CARD).is_file()), None)
    if found is None:
        return None
    try:
        stored = json.loads(found.read_text(encoding="utf-8"))
        return Card(**{name: stored[name] for name in _CARD_FIELDS})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{found}: expected {', '.join(_CARD_FIELDS)} ({error})") from error


def _downloaded(address: str) -> Path:
    """The folder of a repository of the Hub in the cache of `huggingface_hub`."""
    repository, _, revision = address.removeprefix(HUB).partition("@")
    if len(repository.split("/")) != 2 or not all(repository.split("/")):
        raise ValueError(f"expected {HUB}user/repository or {HUB}user/repository@revision, received {address}")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(f"{address} needs huggingface_hub: pip install 'hetmorph[hub]'") from error
    try:
        return Path(hub.snapshot_download(repository, revision=revision or None))
    except (OSError, ValueError) as error:  # of the network, the cache, or a repository that is not there
        raise ValueError(f"{address} cannot be fetched: {str(error).splitlines()[0]}") from error
