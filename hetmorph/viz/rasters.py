"""Maps as small pictures: 8 bits a pixel, a palette of their own, written as PNG into the page itself."""

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np

LEVELS = 254  # colours of a scale; the next entry is the special colour, the last is transparent
SPECIAL, NOTHING = 254, 255
STOPS = 17  # of the gradient beside a picture


@dataclass(frozen=True)
class Scale:
    """How values become colours.

    Attributes:
        low, high: values of the first and last colour; what lies beyond takes these.
        colours: name of a matplotlib colour map.
        unit: unit of the values, as it stands below the colour bar.
        centre: the value of the middle colour, for the words of a diverging scale; None for others.
        logarithmic: colours are even in log(value); values ≤ 0 take the special colour.
        special: that colour.
    """

    low: float
    high: float
    colours: str
    unit: str
    centre: float | None = None
    logarithmic: bool = False
    special: str = "#000000"

    def index(self, values: np.ndarray) -> np.ndarray:
        """Palette entries, uint8; NaN and infinity are transparent."""
        values = np.asarray(values, np.float64)
        low, high, known = self.low, self.high, np.isfinite(values)
        safe = np.where(known, values, 1.0)
        special = np.zeros(values.shape, bool)
        if self.logarithmic:
            special = safe <= 0
            safe, low, high = np.log(np.where(special, 1.0, safe)), np.log(low), np.log(high)
        place = np.clip((safe - low) / (high - low), 0, 1)
        entries = np.rint(place * (LEVELS - 1)).astype(np.uint8)
        entries[special] = SPECIAL
        entries[~known] = NOTHING
        return entries

    def palette(self) -> np.ndarray:
        """RGB of the entries, `[256, 3]` uint8."""
        from matplotlib import colormaps, colors

        rgb = colormaps[self.colours](np.linspace(0, 1, LEVELS))[:, :3]
        special = colors.to_rgb(self.special)
        return np.rint(255 * np.concatenate([rgb, [special], [(0, 0, 0)]])).astype(np.uint8)

    def gradient(self) -> str:
        """The colours from low to high as a CSS gradient."""
        entries = np.linspace(0, LEVELS - 1, STOPS).round().astype(int)
        colours = ["#" + bytes(rgb).hex() for rgb in self.palette()[entries]]
        return f"linear-gradient(to right, {', '.join(colours)})"

    def uri(self, values: np.ndarray) -> str:
        """The picture of values `[H, W]`, row by row from the top, as a data URI."""
        return "data:image/png;base64," + base64.b64encode(png(self.index(values), self.palette())).decode()


def png(entries: np.ndarray, palette: np.ndarray) -> bytes:
    """A PNG of palette entries, of which the last is transparent.

    Args:
        entries: `[H, W]` uint8.
        palette: `[256, 3]` uint8.

    Reference:
        W3C, Portable Network Graphics specification, third edition.
    """
    height, width = entries.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    # Filter type 0 before each row: the others help little where neighbouring entries are no neighbouring colours.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), entries], 1).tobytes()
    transparency = bytes([255] * NOTHING + [0])
    chunks = {b"IHDR": header, b"PLTE": palette.tobytes(), b"tRNS": transparency, b"IDAT": zlib.compress(rows, 9)}
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in (chunks | {b"IEND": b""}).items())


def reduced(values: np.ndarray, factor: int, combine=None) -> np.ndarray:
    """Means over blocks of factor × factor, NaN left out; or `combine(blocks, axes)`, such as `np.min`.

    A last block that is not full repeats its border.
    """
    if factor == 1:
        return values
    rows, columns = (-n % factor for n in values.shape)
    padded = np.pad(values, ((0, rows), (0, columns)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor).swapaxes(1, 2)
    if combine is not None:
        return combine(blocks, (2, 3))
    known = np.isfinite(blocks)
    total, count = np.where(known, blocks, 0).sum((2, 3)), known.sum((2, 3))
    return np.where(count, total / np.maximum(count, 1), np.nan)


def spread(maps, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of the finite values of all maps, at least a little apart; maps may be None."""
    values = np.concatenate([np.zeros(0), *(np.ravel(x) for x in maps if x is not None)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    lower, upper = np.percentile(values, [low, high])
    return float(lower), float(max(upper, lower + 1e-6))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
