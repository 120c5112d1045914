"""The API reference is made of docstrings: every public name has one, and its Args are the arguments there are.

Public is what a module's `__all__` lists; where a module has none, what it defines without an underscore. "Arguments as
`other`" stands for the entries of the other's Args.
"""

import dataclasses
import functools
import inspect
import re
import sys
from pathlib import Path

import hetmorph

ENTRY = re.compile(r" {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^:]*\))?:")


def own(value):
    return getattr(value, "__module__", "").startswith("hetmorph")


def names_of(module):
    if hasattr(module, "__all__"):
        return module.__all__
    return [name for name, value in vars(module).items() if not name.startswith("_") and defined_in(module, value)]


def defined_in(module, value):
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def public(module=hetmorph):
    """Every public module, class and function by its name; what voxelmorph wrote is not ours to document."""
    found = {module.__name__: module}
    for name in names_of(module):
        value = getattr(module, name)
        if inspect.ismodule(value) and value.__name__.startswith("hetmorph"):
            found |= {} if value.__name__ in found else public(value)
        elif (inspect.isclass(value) or inspect.isfunction(value)) and own(value):
            found[f"{module.__name__}.{name}"] = value
    return found


PUBLIC = public()


def listed(docstring, *sections):
    """Names that the entries of these sections begin with, `*` and `**` removed; None without such a section."""
    body = re.search(rf"^(?:{'|'.join(sections)}):\n((?:(?: {{4}}.*)?\n)+)", inspect.cleandoc(docstring) + "\n", re.M)
    if body is None:
        return None
    entries = [entry.group(1) for line in body.group(1).splitlines() if (entry := ENTRY.match(line))]
    return [name.strip().lstrip("*") for entry in entries for name in entry.split(",")]


def parameters(value):
    """Names of the arguments, and whether further ones are passed on (`*args`, `**kwargs`)."""
    ours = inspect.signature(value).parameters.values()
    plain = [p.name for p in ours if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return plain, len(plain) < len(ours)


def mistakes(value):
    """What is wrong with the docstring of a class or function, as sentences."""
    text = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
    if not text.strip():
        return ["has no docstring"]
    if inspect.isclass(value):
        if dataclasses.is_dataclass(value):
            return mistakes_of_fields(value, text)
        if "__init__" not in vars(value):  # its arguments are those of the class above it, which is documented there
            return []
    names, passes_on = parameters(value)
    stated = listed(text, "Args") or []
    if reference := re.search(r"[Aa]rguments[^.`]* as\s+`([\w.]+)`", text):
        there = functools.reduce(getattr, reference.group(1).split("."), sys.modules[value.__module__])
        names = [name for name in names if name not in listed(there.__doc__, "Args")]
    missing = [name for name in names if name not in stated]
    unknown = [] if passes_on else [name for name in stated if name not in names + variadic(value)]
    return [f"does not state {name}" for name in missing] + [f"states {name}, which is no argument" for name in unknown]


def variadic(value):
    return [p.name for p in inspect.signature(value).parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def mistakes_of_fields(value, text):
    """As of arguments, of a dataclass; what is stated may also be a property or a constant of the class."""
    stated = listed(text, "Args", "Attributes") or []
    fields = [field.name for field in dataclasses.fields(value) if field.init and not field.name.startswith("_")]
    unknown = [name for name in stated if name not in fields and not hasattr(value, name)]
    return [f"does not state {name}" for name in fields if name not in stated] + [
        f"states {name}, which is no attribute" for name in unknown
    ]


def test_modules_say_what_they_are():
    modules = {name: value for name, value in PUBLIC.items() if inspect.ismodule(value)}
    assert len(modules) > 20
    assert [name for name, module in modules.items() if not (module.__doc__ or "").strip()] == []


def test_docstrings_state_the_arguments():
    named = {name: value for name, value in PUBLIC.items() if not inspect.ismodule(value)}
    assert len(named) > 100
    assert {name: found for name, value in named.items() if (found := mistakes(value))} == {}


def test_entries_say_what_the_argument_is():
    """Not only whose it is, as in `kernel: of the convolution`."""
    files = sorted((Path(hetmorph.__file__).parent).rglob("*.py"))
    lines = [(path.name, line) for path in files for line in path.read_text().splitlines()]
    assert [(name, line) for name, line in lines if re.match(r" +[\w*]+(, [\w*]+)*: of ", line)] == []


# -- the rule itself can fail -------------------------------------------------------------------------------------


def documented(image, mask=None, **options):
    """A function.

    Args:
        image: `[*S]`.
        mask, **options: of it,
            and more: not a name.

    Returns:
        other: not an argument.
    """


def forgotten(image, mask):
    """A function.

    Args:
        image: `[*S]`.
        masks: renamed since.
    """


def bare(image): ...


def referring(image, mask, steps):
    """A function. Arguments and errors as `documented`."""


@dataclasses.dataclass
class Half:
    """A record.

    Attributes:
        one (int): its first field.
        third: gone since.
    """

    one: int
    two: int


def test_mistakes_are_found():
    assert mistakes(documented) == []
    assert mistakes(forgotten) == ["does not state mask", "states masks, which is no argument"]
    assert mistakes(bare) == ["has no docstring"]
    assert mistakes(referring) == ["does not state steps"]
    assert mistakes(Half) == ["does not state two", "states third, which is no attribute"]
