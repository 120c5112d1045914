"""What a message advises can be typed: every flag that it names is an option of the verb that shows it."""

import argparse
import ast
import re
from functools import cache
from pathlib import Path

import pytest

from hetmorph.cli import calibrate, evaluate, train
from hetmorph.cli.main import cli
from training import compare, uncertainty

ROOT = Path(__file__).resolve().parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*\w")
# "hetmorph VERB … --flag", "VERB.py … --flag", "pip … --flag": of whom the words before a flag speak
SPEAKER = re.compile(r"(?:hetmorph ([a-z][a-z-]*)|(\w+)\.py|\b(pip) )[^.,;:]*$")
SCRIPTS = {"compare": compare, "uncertainty.py": uncertainty}
# Who shows messages of the parts that are no command's own. Elsewhere anybody does: such a message names no flag.
SHOWN_BY = {"data": {"train", "evaluate"}, "cohort": {"register", "evaluate", "uncertainty.py"}}
# Of those who read transforms.
SHOWN_BY |= dict.fromkeys(("io/nrrd.py", "io/vectors.py", "io/voxel_fields.py"), {"apply", "jacobian", "register"})
GROUP = {"--help", "--debug"}
# Messages on combinations of options that `register` alone has, in what the other verbs share with it.
OF_REGISTER = {("register_job", "Job"), ("settings", "Settings"), ("results", "image_of"), ("results", "transform_of")}
OF_REGISTER |= {("models", "calibration_of"), ("options", "calibration")}
OF_REGISTER |= {("guidance", name) for name in ("check_guidance", "check_mass", "read_guidance")}
OTHERS = {"serving/deploy.py", "io/foreign.py"}  # flags of tensorflow_model_server and docker; of who wrote a file


def options(verb):
    """Flags of a verb or script."""
    forwarded = {"train": train, "evaluate": evaluate, "calibrate": calibrate}
    if verb in forwarded or verb in SCRIPTS:
        module = forwarded.get(verb) or SCRIPTS[verb]
        return parsed(module)
    return {flag for param in cli.commands[verb].params for flag in param.opts} | GROUP


@cache
def parsed(module):
    """Flags of the parser that a module makes."""

    class Stop(Exception):
        pass

    def stop(parser, *_, **__):
        raise Stop(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        make = getattr(module, "arguments", None) or module.main
        with pytest.raises(Stop) as caught:
            make([])
    return {flag for action in caught.value.args[0]._actions for flag in action.option_strings} | GROUP


def texts(tree):
    """Messages in a piece of code, with their line and, of an entry of a table by verbs, the verb.

    The parts of an f-string are joined; docstrings are left out, and so are single flags: those are declarations.
    """
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bodies = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    skipped = {id(first.value) for first in bodies if isinstance(first, ast.Expr)}
    tables = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    of_verb = {
        id(value): key.value
        for node in tables
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value in cli.commands
    }
    for node in ast.walk(tree):
        text = None
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            text = node.value
        if text is not None and not FLAG.fullmatch(text):
            yield node.lineno, text, of_verb.get(id(node))


def units(tree):
    """{name: code} of what a module defines at its top level."""
    found = {}
    for node in tree.body:
        names = [node.name] if hasattr(node, "name") else []
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        found |= dict.fromkeys(names, node)
    return found


def uses(tree, unit, module):
    """(module, name) of what a unit of a module uses of the command, by its own name or as `module.name`."""
    names, modules = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hetmorph.cli"):
            for alias in node.names:
                if node.module == "hetmorph.cli":
                    modules[alias.asname or alias.name] = alias.name
                else:
                    names[alias.asname or alias.name] = (node.module.removeprefix("hetmorph.cli."), alias.name)
    for node in ast.walk(unit):
        if isinstance(node, ast.Name):
            yield names.get(node.id, (module, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


@cache
def shown_by():
    """{(module, unit): verbs that may show its messages}, from who uses what in the package of the command."""
    trees = {path.stem: ast.parse(path.read_text()) for path in (ROOT / "hetmorph" / "cli").glob("*.py")}
    parts = {name: units(tree) for name, tree in trees.items()}
    result = {}
    for verb, command in cli.commands.items():
        home = command.callback.__module__.rpartition(".")[2]
        home = verb if home == "parsers" else home  # which hands the words on to the verb's own file
        shared = {other.replace("-", "_") for other in cli.commands if other != verb}  # what its file also holds
        todo = [(module, name) for module in (home, "main") for name in parts[module] if name not in shared]
        while todo:
            place = module, name = todo.pop()
            if name in parts.get(module, {}) and verb not in result.setdefault(place, set()):
                result[place].add(verb)
                todo += uses(trees[module], parts[module][name], module)
    return result


def speakers(text, place, who):
    """Whom a message speaks of at a place: a verb, script or other program named just before, else who shows it."""
    found = SPEAKER.search(text[:place])
    verb, script, pip = found.groups() if found else (None, None, None)
    if pip:
        return set()
    if verb in cli.commands:
        return {verb}
    if script in cli.commands or script in SCRIPTS:
        return {f"{script}.py" if f"{script}.py" in SCRIPTS else script}
    return who


def wrong(where, tree, who):
    """Flags named in a piece of code that one of those who show them has not."""
    for line, text, verb in texts(tree):
        for match in FLAG.finditer(text):
            verbs = speakers(text, match.start(), {verb} if verb else who or {None})
            lacking = sorted(str(one) for one in verbs if one is None or match[0] not in options(one))
            if lacking:
                yield f"{where}:{line}: {match[0]} is no option of {', '.join(lacking)}, who may show it"


def code():
    """Every piece of the library and the scripts, with who shows its messages."""
    command = ROOT / "hetmorph" / "cli"
    for path in sorted([*(ROOT / "hetmorph").rglob("*.py"), *(ROOT / "training").glob("*.py")]):
        tree, where = ast.parse(path.read_text()), str(path.relative_to(ROOT))
        if path.parent == command:
            for name, unit in units(tree).items():
                if who := shown_by().get((path.stem, name)):
                    yield where, unit, {"register"} if (path.stem, name) in OF_REGISTER else who
        elif path.parent.name == "training":
            name = f"{path.stem}.py" if f"{path.stem}.py" in SCRIPTS else path.stem
            if name in SCRIPTS or name in cli.commands:
                yield where, tree, {name}
        elif where.removeprefix("hetmorph/") not in OTHERS:
            place = path.relative_to(ROOT / "hetmorph")
            yield where, tree, SHOWN_BY.get(place.as_posix(), SHOWN_BY.get(place.parts[0]))


def test_flags_in_messages_are_options_of_who_shows_them():
    assert [line for piece in code() for line in wrong(*piece)] == []


def test_a_flag_of_another_verb_is_found():
    tree = ast.parse(
        '"""Docstring --nowhere."""\n'
        'one = "leave it out (--skip-bad)"\n'
        'two = f"{one}: hetmorph evaluate --split all; give --skip-bad"\n'
        'three = {"register": "; give --mask", "train": "; give --mask"}\n'
        'four = f"see {one}; pip install --no-deps x"\n'
    )
    found = [line.split(",")[0] for line in wrong("module.py", tree, {"train", "evaluate"})]
    assert found == ["module.py:4: --mask is no option of train"]
    assert [line.split(":")[1] for line in wrong("module.py", tree, {"train", "register"})] == ["2", "3", "4"]
    assert [line.split(":")[1] for line in wrong("module.py", tree, None)] == ["2", "3", "4"]
    assert shown_by()["messages", "line_of"] == set(cli.commands)
    assert shown_by()["options", "model_options"] == {"bids", "register", "report", "uncertainty"}
