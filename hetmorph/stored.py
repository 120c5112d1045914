"""How models lie in folders: names of their files, and versions in folders of their own."""

from pathlib import Path

CARD = "model.json"  # says for what a model was made
SAVED_MODEL = "saved_model.pb"


def version_folders(path) -> dict[int, Path]:
    """The complete versions of a SavedModel in a folder, ascending.

    Args:
        path: the folder, which need not exist.
    """
    folders = (found.parent for found in Path(path).glob(f"*/{SAVED_MODEL}") if found.parent.name.isdecimal())
    return dict(sorted((int(folder.name), folder) for folder in folders))


def is_savedmodel(path) -> bool:
    """Whether a folder holds a SavedModel, or versions of one.

    Args:
        path: the folder.
    """
    return Path(path, SAVED_MODEL).exists() or bool(version_folders(path))


def savedmodel_folder(path) -> Path:
    """The SavedModel at a folder: the folder itself, or the largest integer version inside it.

    Args:
        path: the folder.

    Raises:
        ValueError: neither.
    """
    path = Path(path)
    if (path / SAVED_MODEL).exists():
        return path
    if found := version_folders(path):
        return found[max(found)]
    there = sorted(entry.name for entry in path.iterdir())[:8]
    raise ValueError(
        f"{path} is not a SavedModel: expected {SAVED_MODEL}, or version folders 1, 2, … holding one; "
        f"found {', '.join(there) or 'nothing'}"
    )
