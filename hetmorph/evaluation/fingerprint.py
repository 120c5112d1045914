"""A model as its files lie on disk, so that an evaluation does not go on with another."""

from pathlib import Path


def fingerprint(model) -> list[list]:
    """Name, size and time of change of each file of a model on disk; empty for a classical program.

    Args:
        model: path of a file or folder; anything else is no file.
    """
    path = Path(model)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]
