"""Stderr is for what the user has to know: no notes of TensorFlow on the processor, a warning in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click


class Verb(click.Command):
    """A command that needs TensorFlow; it is imported once the options are parsed, so after --help."""

    def invoke(self, ctx: click.Context):
        import_tensorflow()
        with warning_in_a_line(self.name):
            return super().invoke(ctx)


class FileVerb(click.Command):
    """A command that reads and writes files without TensorFlow."""

    def invoke(self, ctx: click.Context):
        with warning_in_a_line(self.name):
            return super().invoke(ctx)


def import_tensorflow() -> None:
    """Import TensorFlow; the notes that its libraries write before their log level counts are dropped."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent():
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
