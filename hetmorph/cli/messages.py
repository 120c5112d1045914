"""Stderr is for what the user has to know: a mistake or a warning in one line, no notes of TensorFlow."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import click

from hetmorph.cli.phases import phase

_LEVEL, _ERRORS = "TF_CPP_MIN_LOG_LEVEL", "3"  # 3: no notes on the processor, no warnings
_EXPECTED = (ValueError, OSError, ImportError)
_NAMED = {"RegistrationFailed", "ServingError", "OpError", "MemoryError"}  # by name: their modules import TensorFlow
_LESS_MEMORY = {
    "register": "; give a larger --spacing or a --mask, or register fewer things at once",
    "report": "; give a larger --spacing or a --mask",
    "uncertainty": "; give a larger --spacing or a --mask",
    "train": "; give a smaller --batch-size or --size, more --slabs, or less --memory to the images",
    "evaluate": "; give a smaller --size",
}


class Verb(click.Command):
    """A command that needs TensorFlow; it is imported once the options are parsed, so after --help."""

    def invoke(self, ctx: click.Context):
        with phase("imports"):
            import_tensorflow()
        with warning_in_a_line(self.name):
            return super().invoke(ctx)


class FileVerb(click.Command):
    """A command that reads and writes files without TensorFlow."""

    def invoke(self, ctx: click.Context):
        with warning_in_a_line(self.name):
            return super().invoke(ctx)


def import_tensorflow() -> None:
    """Import TensorFlow; the notes that its libraries write before their log level counts are dropped.

    Who has set another level wants to read them. `import hetmorph` alone leaves both to the program that imports it.
    """
    with _silent() if os.environ.setdefault(_LEVEL, _ERRORS) == _ERRORS else nullcontext():
        import tensorflow  # noqa: F401


@contextmanager
def warning_in_a_line(verb: str) -> Iterator[None]:
    """What the library says of the data as one line on stderr; other warnings as Python shows them."""
    from hetmorph.io import DataWarning

    def show(message, category, *where, **further) -> None:
        if issubclass(category, DataWarning):
            click.echo(f"hetmorph {verb}: warning: {' '.join(str(message).split())}", err=True)
        else:
            otherwise(message, category, *where, **further)

    with warnings.catch_warnings():
        otherwise, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", DataWarning)
        yield


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


def exit_status(prog: str, run: Callable[[], int | None]) -> int:
    """What a program exits with: what it returns; 2 where its options or files were wrong, which is told on stderr.

    Args:
        prog: what the program is called.
        run: does its work.
    """
    from hetmorph.serving import ServingError

    try:
        return run() or 0
    except (ServingError, ValueError, OSError, ImportError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2


@contextmanager
def _silent() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
