"""`hetmorph train` and `hetmorph evaluate`: their options are those of the scripts, which read them themselves."""

from __future__ import annotations

import importlib

import click

from hetmorph.cli.quiet import Verb


def _forwarded(verb: str, summary: str) -> click.Command:
    """A verb whose words all go to `hetmorph.cli.<verb>.main`, --help among them."""

    def run(words: tuple[str, ...]) -> int:
        return importlib.import_module(f"hetmorph.cli.{verb}").main(list(words), prog=f"hetmorph {verb}")

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    return Verb(verb, settings, run, [words], short_help=summary, add_help_option=False)


train = _forwarded("train", "Train a model on a data set or a table of pairs.")
evaluate = _forwarded("evaluate", "Score a model, or a program, on a data set.")
