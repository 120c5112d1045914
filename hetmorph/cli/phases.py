"""How long a command takes for what it does, for `--verbose`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click


class Phases:
    """Seconds by phase. One inside another takes its time from that one, so that all add up.

    Example:
        >>> phase = Phases()
        >>> with phase("reading"):
        ...     image = read_image("m.nii.gz")
        >>> str(phase)
        'reading 0.1 s'
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """What is done inside belongs to a phase; also as a decorator of a function.

        Args:
            name: the name of the phase.
        """
        self._add()
        self._running.append(name)
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._add()
            self._running.pop()

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())

    def _add(self) -> None:
        """The time since the last change belongs to the innermost phase."""
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


phase = Phases()  # of the command that runs


def _tell(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    phase.seconds.clear()
    if value:
        ctx.call_on_close(lambda: click.echo(str(phase)))


verbose = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_tell,
    help="Say in the end how many seconds each phase took: imports, model, reading, registration, writing.",
)
