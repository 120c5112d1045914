"""The affine stage of a data set: each pair is aligned once, however often it is read."""

from pathlib import Path

from hetmorph.evaluation import RegistrationFailed
from hetmorph.io import DataError, Image, itk
from hetmorph.io.chain import Linear
from hetmorph.registration.affine import align
from hetmorph.registration.linear_search import KINDS, NEEDS

NOT = "none"


class Aligner:
    """Function `(moving, fixed) → transform` that `hetmorph.data.load` takes as `align`.

    Args:
        kind: "rigid", "similarity" or "affine".

    Raises:
        ValueError: another kind.
        ImportError: no SimpleITK.
    """

    def __init__(self, kind: str):
        if kind not in KINDS:
            raise ValueError(f"the kind of an affine stage is one of {', '.join(KINDS)}, received {kind!r}")
        itk.package(NEEDS)
        self.kind = kind
        self._found: dict[tuple[Path, Path], Linear] = {}

    def __call__(self, moving: Image, fixed: Image) -> Linear:
        """What takes points of the fixed image to the moving one; the same pair of files is searched once."""
        pair = moving.path, fixed.path
        if pair not in self._found:
            try:
                self._found[pair] = align(moving, fixed, self.kind).linear
            except RegistrationFailed as error:
                raise DataError(f"{moving.path}: {error} (fixed image {fixed.path.name}).") from error
        return self._found[pair]


def aligner(kind: str | None) -> Aligner | None:
    """The affine stage of this kind; None for "none" or None.

    Args:
        kind: one of the kinds of `Aligner`, or "none".
    """
    return None if kind in (None, NOT) else Aligner(kind)
