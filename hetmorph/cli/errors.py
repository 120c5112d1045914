"""Which errors are a user's to mend, in one line."""

from __future__ import annotations

_EXPECTED = (ValueError, OSError, ImportError)
# by name: their modules import TensorFlow
_NAMED = {"RegistrationFailed", "ServingError", "OpError", "MemoryError"}
_LESS_MEMORY = {
    "register": "; give a larger --spacing or a --mask, or register fewer things at once",
    "report": "; give a larger --spacing or a --mask",
    "uncertainty": "; give a larger --spacing or a --mask",
    "train": "; give a smaller --batch-size or --size, more --slabs, or less --memory to the images",
    "evaluate": "; give a smaller --size",
}


def line_of(error: BaseException, verb: str = "register") -> str | None:
    """The message of an error that files, options or the machine may cause, in one line; None for a bug.

    Args:
        error: any.
        verb: whose options the message may advise.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not isinstance(error, _EXPECTED) and not kinds & _NAMED:
        return None
    if "MemoryError" in kinds or "ResourceExhaustedError" in kinds:
        return f"not enough memory{_LESS_MEMORY.get(verb, '')}"
    text = " ".join(str(error).split())
    return text[:600] or type(error).__name__
