"""A sequence, such as a cine of the heart: its reference frame registered to each of its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hetmorph.evaluation import wrap
from hetmorph.io import DataError, Image
from hetmorph.registration.pair import Registration, register

ED = "ED"


def register_sequence(
    sequence: Image,
    reference: int,
    model,
    spacing: float | None = None,
    mask: Image | None = None,
    estimate: Callable | None = None,
) -> Iterator[Registration]:
    """Registers the reference frame, moving, to each frame, fixed, in their order, itself included.

    So the models of `hetmorph.data.acdc` are trained, end-diastole moving, and the labels of the reference frame are
    warped onto every frame.

    Args:
        sequence: `[X, Y, Z, T]`.
        reference: index of the moving frame.
        model, spacing, mask, estimate: as for `register`.

    Raises:
        DataError: no sequence.
    """
    predictor, frames = wrap(model), sequence.frames(3)
    for frame in frames:
        yield register(frames[reference], frame, predictor, spacing, mask, estimate)


def reference_frame(sequence: Image, reference: str) -> int:
    """The index that "ED" or a number means: cine images start with end-diastole, the trigger being the R wave.

    Args:
        sequence: with frames along its last axis.
        reference: "ED", the first, or a number from 0.

    Raises:
        DataError: no sequence, or it has no such frame.
    """
    if sequence.array.ndim != 4:
        raise DataError(f"{sequence.path}: expected a sequence (X, Y, Z, T), received shape {sequence.array.shape}.")
    count = sequence.array.shape[-1]
    if reference.upper() == ED:
        return 0
    if not reference.isdecimal() or int(reference) >= count:
        raise DataError(f"{sequence.path}: expected a reference frame ED or 0 to {count - 1}, received {reference!r}.")
    return int(reference)
