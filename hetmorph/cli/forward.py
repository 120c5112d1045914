"""`hetmorph train`, `evaluate` and `calibrate`: verbs of many words, which read them themselves, as the scripts do."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import click

from hetmorph.cli.quiet import import_tensorflow, warning_in_a_line


def run(verb: str, words: Sequence[str], prog: str) -> int:
    """A verb with its words; its help is shown, and mistakes are told, without waiting for TensorFlow.

    Args:
        verb: which.
        words: what was typed after it.
        prog: what the program is called.
    """
    importlib.import_module(f"hetmorph.cli.{verb}_options").parser(prog).parse_args(words)
    import_tensorflow()
    with warning_in_a_line(verb):
        return importlib.import_module(f"hetmorph.cli.{verb}").main(list(words), prog)


def _forwarded(verb: str, summary: str) -> click.Command:
    """A verb whose words all go to `hetmorph.cli.<verb>.main`, after its options have read them or shown a help."""

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    return click.Command(
        verb,
        settings,
        lambda words: run(verb, words, f"hetmorph {verb}"),
        [words],
        short_help=summary,
        add_help_option=False,
    )


train = _forwarded("train", "Train a model on a data set or a table of pairs.")
evaluate = _forwarded("evaluate", "Score a model, or a program, on a data set.")
calibrate = _forwarded("calibrate", "Learn from patients a bound of a model's error, and its verdicts.")
