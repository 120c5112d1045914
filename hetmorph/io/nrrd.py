"""What ITK does not say of the files it reads: unit and frame in the text headers of NRRD."""

import re
from pathlib import Path

from hetmorph.io.atomic import suffix_of
from hetmorph.io.errors import DataError

_SUFFIXES = (".nrrd", ".nhdr")
_MM = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "nm": 1e-6}
_NAMES = {"meter": "m", "metre": "m", "centimeter": "cm", "millimeter": "mm", "micron": "um", "micrometer": "um"}
_NOT_OF_SPACE = {"", "?", "s", "sec", "second", "seconds", "ms", "msec", "us", "usec", "none"}
_LPS = ("left-posterior-superior", "lps", "left-posterior-superior-time", "lpst")
_LONGEST = 2**16  # bytes of a header


def unit_of(path: Path, said: str = "") -> float:
    """Millimetres of one unit of a file's geometry; 1 where it says nothing, as every program takes it.

    Args:
        path: the file.
        said: what ITK knows of it.

    Raises:
        DataError: more than one unit of space, or one of no known length.
    """
    header = _header(path)
    words = header.get("space units", header.get("units", ""))
    named = {said, *re.findall(r'"([^"]*)"', words)} - _NOT_OF_SPACE
    lengths = {_MM.get(_short(name)) for name in named}
    if len(lengths) > 1 or None in lengths:
        raise DataError(
            f"{path}: expected one unit of length for all axes, {', '.join(_MM)}, received {sorted(named)}."
        )
    return lengths.pop() if lengths else 1.0


def check_frame(path: Path, unit: float) -> None:
    """Refuse vectors of which it is not clear that they are what ITK takes them for, LPS millimetres.

    Args:
        path: the file.
        unit: millimetres of one unit of its geometry.

    Raises:
        DataError: the header of a NRRD file names another space than LPS, or a measurement frame that is not the
            identity; or the geometry is in another unit than mm.
    """
    header, doubt = _header(path), None
    space, frame = (
        header.get("space", "").lower(),
        re.findall(r"[-+]?\d[-+.\deE]*", header.get("measurement frame", "")),
    )
    n = round(len(frame) ** 0.5)
    if unit != 1:
        doubt = "its geometry is not in mm, and its vectors may be in either unit"
    elif space and space not in _LPS:
        doubt = f"its space is {space}, which ITK leaves out of account with vectors, and others do not"
    elif any(float(x) != (place % (n + 1) == 0) for place, x in enumerate(frame)):
        doubt = "its measurement frame turns the vectors, which ITK leaves out of account"
    if doubt:
        raise DataError(
            f"{path}: {doubt}; say with field_convention (--field-convention) whether they are lps or ras, in mm, or "
            "voxel."
        )


def _short(name: str) -> str:
    name = name.strip().lower().replace("µ", "u").replace("μ", "u")
    return name if name in _MM else _NAMES.get(name.removesuffix("s"), name)


def _header(path: Path) -> dict[str, str]:
    """The fields of a NRRD header by their names in lower case; none of other files."""
    if suffix_of(path) not in _SUFFIXES:
        return {}
    with open(path, "rb") as file:
        text = file.read(_LONGEST).replace(b"\r\n", b"\n").split(b"\n\n")[0].decode("utf-8", "replace")
    pairs = (line.partition(": ") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if value}
