"""What is wrong with a file, said with its name."""

import zipfile
import zlib
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

UNREADABLE = (
    EOFError,
    HeaderDataError,
    ImageFileError,
    MemoryError,
    OSError,
    SyntaxError,  # Pillow's word for a damaged PNG
    ValueError,
    WrapStructError,
    zipfile.BadZipFile,
    zlib.error,
)


class DataError(ValueError):
    """A data file or folder that cannot be used; the message names it and says what would help."""


class DataWarning(UserWarning):
    """Something about data that is probably not meant, though a result is defined."""


def damaged(path: Path, kind: str, error: Exception) -> DataError:
    """The error that says why a file is not a complete one of its kind."""
    told = last_line(error) if isinstance(error, RuntimeError) else error
    reason = " ".join(f"{type(error).__name__}: {told}".split())
    if isinstance(error, MemoryError):
        reason = "its header promises more than the memory holds"
    return DataError(f"{path}: not a complete {kind} file, it may be truncated or damaged ({reason}); fetch it again.")


def last_line(error: Exception) -> str:
    """The end of a long message: of those of ITK, what they are about."""
    return (str(error).strip() or "no reason given").splitlines()[-1]
