"""Which errors are a user's to mend, in one line."""

from __future__ import annotations

_EXPECTED = (ValueError, OSError, ImportError)
# by name: their modules import TensorFlow
_NAMED = {"RegistrationFailed", "ServingError", "OpError", "MemoryError"}


def line_of(error: BaseException) -> str | None:
    """The message of an error that files, options or the machine may cause, in one line; None for a bug."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not isinstance(error, _EXPECTED) and not kinds & _NAMED:
        return None
    if "MemoryError" in kinds or "ResourceExhaustedError" in kinds:
        return "not enough memory; give a larger --spacing or a --mask, or register fewer things at once"
    text = " ".join(str(error).split())
    return text[:600] or type(error).__name__
