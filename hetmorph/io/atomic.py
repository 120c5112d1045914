"""Files that appear complete or not at all."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def suffix_of(path: Path | str) -> str:
    """The ending that says what a file is, in lower case: ".nii.gz" counts as one, as does ".gz" after any other."""
    endings = Path(Path(path).name.lower()).suffixes
    return "".join(endings[-2:] if endings[-1:] == [".gz"] else endings[-1:])


def stem_of(path: Path | str) -> str:
    """The name of a file without that ending."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A path to write to instead; it takes the place of `path` when the block ends without an error.

    Both lie in one folder, so that the change is a single step: whoever looks sees the old file or the new one, also
    where the disk fills up or the program is stopped. Missing folders are made. The path inside has the same ending.

    Args:
        path: the file to be written or replaced.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full, told with `path`; nothing is left behind.

    Example:
        >>> with replacing("out/moved.nii.gz") as part:
        ...     nib.save(image, part)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex[:12]}{suffix_of(path)}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:  # what is written may not know its name, or knows one that says nothing to anybody
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def clear_parts(folder: Path | str) -> None:
    """Remove what programs that were killed while they wrote have left in a folder; of one nobody is writing to.

    Args:
        folder: it need not exist.
    """
    for path in Path(folder).glob(".*"):
        if re.match(r"\.[0-9a-f]{12}(\.|$)", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write a whole file through `replacing`, and return its path."""
    with replacing(path) as part:
        part.write_bytes(content)
    return Path(path)


def write_text(path: Path | str, text: str) -> Path:
    """The same of a text, in UTF-8."""
    return write_bytes(path, text.encode())
