"""The fenced blocks of a page: found, run, or read by the parser of the command that they call."""

import argparse
import collections
import contextlib
import functools
import importlib
import os
import re
import runpy
import shlex
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import click
from click.testing import CliRunner

from hetmorph.cli.main import cli
from hetmorph.cli.outcome import FAILED_VERDICT
from hetmorph.cli.train import configuration
from hetmorph.data.csv_pairs import COLUMNS

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "saved_models/**/*.md")
SHOWN = ("text", "mermaid")  # what nobody can run
OTHERS = ("cd", "curl", "docker", "export", "git", "source")  # programs that are not ours
SCRIPTS = ("train", "evaluate", "calibrate")  # verbs that leave their words to argparse
FOLDERS = ("benchmarks", "docs", "hetmorph", "saved_models", "tests", "training")


def pages() -> list[str]:
    """Paths of all pages, from the top of the repository."""
    return sorted(str(path.relative_to(ROOT)) for pattern in PAGES for path in ROOT.glob(pattern))


# -- what a page holds --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """One fenced block and where its first fence is."""

    place: str
    language: str
    text: str


def blocks(text: str, page: str = "page") -> list[Block]:
    """The fenced blocks in their order; ValueError for a fence that nothing closes."""
    found, start, language, lines = [], None, "", []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif start is None:
            start, language, lines = number, line.strip("` "), []
        else:
            found.append(Block(f"{page}:{start}", language, "\n".join(lines) + "\n"))
            start = None
    if start is not None:
        raise ValueError(f"{page}:{start}: nothing closes this block")
    return found


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M)


@dataclass(frozen=True)
class Command:
    """One line of a shell: words, variables set before them, and what a heredoc feeds it."""

    words: list[str]
    variables: dict[str, str]
    stdin: str | None = None


def commands(text: str) -> list[Command]:
    """The commands of a bash block; ValueError for what is more of a shell than that."""
    found, lines = [], iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        stdin = None
        if heredoc := re.search(r"<<'(\w+)'$", line):
            stdin, line = "", line[: heredoc.start()]
            for fed in iter(functools.partial(next, lines), heredoc.group(1)):
                stdin += f"{fed}\n"
        words = shlex.split(line, comments=True)
        if any(set(word) & set("|&;<>$") for word in words):
            raise ValueError(f"pipes, redirections and variables are not understood: {line}")
        variables = {}
        while words and (assigned := re.fullmatch(r"(\w+)=(.*)", words[0])):
            variables[assigned[1]] = assigned[2]
            words = words[1:]
        if words:
            found.append(Command(words, variables, stdin))
    return found


# -- reading a command without running it -------------------------------------------------------------------------


class Stopped(BaseException):
    """A script came as far as parsing its command line."""

    def __init__(self, parser: argparse.ArgumentParser, parsed: argparse.Namespace | None):
        super().__init__(parser.prog)
        self.parser, self.parsed = parser, parsed


def _refuse(parser, message):
    raise ValueError(f"{parser.prog}: {message}")


@contextlib.contextmanager
def _stopping(parse: bool):
    """Scripts stop where they would parse their words, after it or (`parse=False`) before."""
    arguments, error = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.error

    def stop(parser, words=None, namespace=None):
        parser.allow_abbrev = False  # the page names flags as they are
        raise Stopped(parser, arguments(parser, words, namespace) if parse else None)

    argparse.ArgumentParser.parse_args, argparse.ArgumentParser.error = stop, _refuse
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args, argparse.ArgumentParser.error = arguments, error


def stopped(program: str, words: list[str], parse: bool = True) -> Stopped:
    """What a script of the repository, or `hetmorph train`, makes of its words."""
    argv, path, modules = sys.argv, list(sys.path), set(sys.modules)
    try:
        with _stopping(parse):
            if program in SCRIPTS:
                importlib.import_module(f"hetmorph.cli.{program}").main(list(words), prog=f"hetmorph {program}")
            else:
                sys.argv, sys.path[:0] = [program, *words], [str((ROOT / program).parent)]
                runpy.run_path(str(ROOT / program), run_name="__main__")
    except Stopped as reached:
        return reached
    finally:
        sys.argv, sys.path[:] = argv, path
        for name in set(sys.modules) - modules:  # modules of a script's own folder
            if name.partition(".")[0] in ("common", "contenders"):
                del sys.modules[name]
    raise ValueError(f"{program} parses no command line")


def check(command: Command) -> None:
    """ValueError for a program, verb, flag, value, target, extra or file that there is not."""
    program, *words = command.words
    if program == "hetmorph":
        _check_verb(words)
    elif program in ("python", "python3"):
        _check_python(words, command.stdin)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        _require(all(word in targets for word in words if "=" not in word), f"no such target: make {words}")
    elif program == "pip":
        extras = re.findall(r'^        "(\w+)": [A-Za-z]', (ROOT / "setup.py").read_text(), re.M)
        asked = [
            name for word in words for part in re.findall(r"^(?:hetmorph|\.)\[(.*)\]", word) for name in part.split(",")
        ]
        _require(words[0] == "install" and set(asked) <= set(extras), f"no such extra: pip {words}, there are {extras}")
    elif program == "bash":
        _require((ROOT / words[0]).is_file(), f"no such file: {words[0]}")
    else:
        _require(program in OTHERS, f"unknown program: {program}")
    for before, word in pairwise([program, *words]):
        if word.partition("/")[0] in FOLDERS and "/" in word and before != "--out":
            _require((ROOT / word).exists(), f"no such file: {word}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_verb(words: list[str]) -> None:
    verb, *words = words
    _require(verb in cli.commands, f"no such verb: hetmorph {verb}")
    if verb in SCRIPTS:
        _check_run(verb, words)
    else:
        try:
            cli.commands[verb].make_context(verb, list(words), obj=["hetmorph"]).close()
        except click.ClickException as error:
            raise ValueError(f"hetmorph {verb}: {error.format_message()}") from error


def _check_python(words: list[str], stdin: str | None) -> None:
    if words == ["-"] and stdin is not None:
        compile(stdin, "heredoc", "exec")
    elif words[:2] != ["-m", "venv"]:
        _require(re.fullmatch(r"(training|benchmarks)/\w+\.py", words[0]), f"no script of ours: python {words}")
        _require((ROOT / words[0]).is_file(), f"no such file: {words[0]}")
        _check_run(words[0], words[1:])


def _check_run(program: str, words: list[str]) -> None:
    reached = stopped(program, words)
    if Path(program).stem == "train":
        configuration(reached.parsed)  # which refuses options that do not go together


@functools.cache
def flags(program: str) -> frozenset[str]:
    """The long options of a verb ("register") or script ("training/train.py")."""
    if program in cli.commands and program not in SCRIPTS:
        return frozenset(flag for option in cli.commands[program].params for flag in option.opts) | {"--help"}
    return frozenset(stopped(program, [], parse=False).parser._option_string_actions)


def programs() -> list[str]:
    """All verbs and scripts."""
    scripts = [*ROOT.glob("training/*.py"), *ROOT.glob("benchmarks/*.py")]
    return [*cli.commands, *sorted(str(path.relative_to(ROOT)) for path in scripts)]


# -- playing a page -----------------------------------------------------------------------------------------------


@dataclass
class Page:
    """A page that is played from top to bottom, its Python blocks in one namespace."""

    name: str
    names: dict = field(default_factory=dict)
    tally: collections.Counter = field(default_factory=collections.Counter)
    output: str = ""

    def __post_init__(self):
        self.left = blocks((ROOT / self.name).read_text(encoding="utf-8"), self.name)

    def run(self, *changes: tuple[str, str]) -> None:
        """Run the next block that is more than shown, after changes that make it short or find its files."""
        block = self._next()
        text = block.text
        for old, new in changes:
            assert old in text, f"{block.place} does not have {old!r} any more"
            text = text.replace(old, new)
        if block.language == "python":
            exec(compile(text, block.place, "exec"), self.names)
        else:
            for command in commands(text):
                check(command)
                self._run(command, block.place)
        self.tally["run"] += 1

    def read(self) -> None:
        """Let the parsers of its commands read the next block, which would take minutes; a --dry-run is run."""
        block = self._next()
        assert block.language == "bash", f"{block.place}: only commands can be read without running them"
        for command in commands(block.text):
            try:
                check(command)
            except ValueError as error:
                raise AssertionError(f"{block.place}: {error}") from error
            if command.words[0] == "hetmorph" and "--dry-run" in command.words:
                self._run(command, block.place)
        self.tally["parsed"] += 1

    def rest(self) -> None:
        """Run all Python that is left, read all commands."""
        while self.more():
            self.run() if self.left[0].language == "python" else self.read()

    def _next(self) -> Block:
        assert self.more(), f"{self.name} has no further block"
        return self.left.pop(0)

    def more(self) -> bool:
        """Whether there is a further block to run or read; counts those before it, which are only shown."""
        while self.left and self.left[0].language not in ("python", "bash"):
            block = self.left.pop(0)
            if block.language == "csv":
                header = block.text.splitlines()[0].split(",")
                assert set(header) <= set(COLUMNS), f"{block.place}: columns of pairs.csv are {COLUMNS}"
            else:
                assert block.language in SHOWN, f"{block.place}: {block.language!r} is neither run nor one of {SHOWN}"
            self.tally["shown"] += 1
        return bool(self.left)

    def _run(self, command: Command, place: str) -> None:
        program, *words = command.words
        if program == "export":
            os.environ.update(word.split("=", 1) for word in words)
        elif program == "hetmorph":
            result = CliRunner().invoke(cli, words)
            done = (0, FAILED_VERDICT)  # the models here have random weights: what they answer may well be rejected
            assert result.exit_code in done, f"{place}: {result.output}{result.exception!r}"
            self.output += result.output
        elif command.stdin is not None:
            os.environ.update(command.variables)
            exec(compile(command.stdin, place, "exec"), {"__name__": "__main__"})
        elif program not in ("pip", "python3", "source"):
            raise AssertionError(f"{place}: {program} is not run by a test; let it be read")
