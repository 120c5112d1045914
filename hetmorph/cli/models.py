"""A model by its name or path."""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = "acdc_vxm_het"
_PACKAGE = Path(__file__).resolve().parents[1]


def model_folders() -> list[Path]:
    """Where models are looked for by name: HETMORPH_MODELS, the clone that the package is in, the package itself."""
    given = [Path(folder) for folder in os.environ.get("HETMORPH_MODELS", "").split(os.pathsep) if folder]
    return [*given, _PACKAGE.parent / "saved_models", _PACKAGE / "saved_models"]


def find_model(name: str) -> str:
    """The path of a model, or as it is: the name of a program, the address of a model on a server.

    Raises:
        ValueError: no such file, and no such name in any of `model_folders()`.
    """
    from hetmorph.evaluation import PROGRAMS
    from hetmorph.serving import is_endpoint

    if name in PROGRAMS or is_endpoint(name) or Path(name).exists():
        return name
    folders = model_folders()
    if Path(name).name == name:
        for folder in folders:
            if (folder / name).is_dir():
                return str(folder / name)
    known = sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()})
    raise ValueError(
        f"no model {name!r}: no such file or folder, and none of that name in {', '.join(map(str, folders))} "
        f"(HETMORPH_MODELS adds folders; there are: {', '.join(known) or 'none'}; programs: {', '.join(PROGRAMS)})"
    )
