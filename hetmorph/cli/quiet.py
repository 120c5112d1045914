"""TensorFlow, imported without its notes on the processor: stderr is for what the user has to know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click


class Verb(click.Command):
    """A command that needs TensorFlow; it is imported once the options are parsed, so after --help."""

    def invoke(self, ctx: click.Context):
        import_tensorflow()
        return super().invoke(ctx)


def import_tensorflow() -> None:
    """Import TensorFlow; the notes that its libraries write before their log level counts are dropped."""
    with _silent():
        import tensorflow  # noqa: F401


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
