"""Where a file comes from: a JSON file beside it with versions, model, command and frames."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from hetmorph.io.atomic import stem_of, suffix_of, write_text
from hetmorph.version import __version__

_OF_BIDS = (".nii.gz", ".nii")
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "nibabel")


def provenance(
    command: Sequence[str] | None = None,
    model: Path | str | None = None,
    inputs: Mapping[str, Path | str] | None = None,
    **further,
) -> dict:
    """What is known about a result.

    Args:
        command: the words of the command line.
        model: file or SavedModel folder, whose SHA-256 is taken; or the name of a classical program.
        inputs: files by what they were, e.g. {"moving": …, "fixed": …}.
        further: more entries, such as `seed` or `frames`.

    Returns:
        A dictionary for `write_sidecar`.
    """
    entries = {"hetmorph": __version__, "created": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    if command is not None:
        entries["command"] = list(command)
    if model is not None:
        stored = Path(model).exists()
        entries["model"] = {"name": str(model)} | ({"sha256": sha256_of(model)} if stored else {})
    if inputs:
        entries["inputs"] = {what: str(path) for what, path in inputs.items()}
    return entries | further | {"python": platform.python_version(), "packages": _versions()}


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file; of a folder, over names and contents of all files in it, in the order of their names."""
    path, digest = Path(path), hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sidecar_of(path: Path | str) -> Path:
    """The JSON file beside a file: `warp.json` of `warp.nii.gz`, as BIDS names it; `warp.h5.json` of `warp.h5`.

    The whole name of what is no NIfTI: an image and a transform may then be called alike.

    Args:
        path: the file beside which it lies; it need not exist.
    """
    path = Path(path)
    return path.with_name(f"{stem_of(path) if suffix_of(path) in _OF_BIDS else path.name}.json")


def write_sidecar(path: Path | str, entries: Mapping) -> Path:
    """Writes the entries into the JSON file beside `path`, atomically, and returns its path.

    Args:
        path: the file that the entries are about.
        entries: what JSON can hold.
    """
    return write_text(sidecar_of(path), json.dumps(dict(entries), indent=2) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
