"""The architecture, enforced: a module imports only from the floors below its own (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = {
    0: {"backend", "cohort", "config", "configured", "stored", "version"},
    1: {"ops"},
    2: {"transforms"},
    3: {"layers", "losses", "steps", "metrics", "io"},
    4: {"objectives", "training"},
    5: {"networks", "data"},
    6: {"evaluation", "callbacks", "convert", "voxelmorph"},
    7: {
        "uncertainty",
        "viz",
        "serving",
        "instance",
        "registration",
        "generators",
        "utils",
        "py",
        "keras_classes",
        "presets",
    },
    8: {"cli", "tf"},
    9: {
        "scripts",
        "napari",
        "hetmorph",
    },  # scripts; the plug-in of a viewer; hetmorph/__init__.py: what users see, above everything it gathers
}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}


def part_of(module):
    """The part of the house a dotted module name belongs to; None for code of others."""
    names = module.split(".")
    if names[0] == "training":
        return "scripts"
    if names[0] != "hetmorph":
        return None
    return names[1] if len(names) > 1 else "hetmorph"


def imports(source, module, is_package=False):
    """Absolute dotted names of everything that `source` imports, wherever in the file the import stands."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source, module, is_package=False):
    """Sentences, one for each import of `source` that does not point to a lower floor."""
    here = part_of(module)
    found = []
    for name in imports(source, module, is_package):
        there = part_of(name)
        if there is None or there == here:
            continue
        if there not in FLOOR_OF:
            # `from hetmorph import X` where X is no part of the house: the top itself is imported.
            there = "hetmorph"
        if FLOOR_OF[there] >= FLOOR_OF[here]:
            found.append(f"{module} (floor {FLOOR_OF[here]}) imports {name} (floor {FLOOR_OF[there]})")
    return found


def sources():
    """(module, path) of every file of the library and of the training scripts."""
    for path in sorted([*ROOT.glob("hetmorph/**/*.py"), *ROOT.glob("training/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


SOURCES = list(sources())


def test_imports_point_down():
    homeless = [module for module, _ in SOURCES if part_of(module) not in FLOOR_OF]
    assert not homeless, f"give the parts of {homeless} a floor in {__file__}"
    found = [v for module, path in SOURCES for v in violations(path.read_text(), module, path.name == "__init__.py")]
    assert found == []


def test_only_voxelmorphs_room_imports_voxelmorph():
    others = [
        module
        for module, path in SOURCES
        for name in imports(path.read_text(), module, path.name == "__init__.py")
        if name.split(".")[0] in ("voxelmorph", "neurite") and part_of(module) != "voxelmorph"
    ]
    assert others == [], "what exists for VoxelMorph's sake belongs into hetmorph/voxelmorph"


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import hetmorph.viz.figures", "hetmorph.ops.warp"),
        ("from hetmorph.networks import VxmDense", "hetmorph.layers.spatial"),
        ("from ..networks import vxm", "hetmorph.layers.spatial"),
        ("from .. import losses", "hetmorph.layers.spatial"),
        ("def f():\n    from hetmorph import serving", "hetmorph.data.acdc"),
        ("import hetmorph", "hetmorph.networks.vxm"),
        ("import hetmorph as vxm", "hetmorph.cli"),
        ("import training.train", "hetmorph.serving"),
    ],
)
def test_upward_and_sideways_imports_are_found(source, module):
    assert violations(source, module)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import numpy\nimport tensorflow as tf", "hetmorph.ops.warp"),
        ("from hetmorph.ops import fields\nfrom ..ops.warp import warp", "hetmorph.layers.spatial"),
        ("from . import encoder\nfrom .decoder import Decoder", "hetmorph.networks.vxm"),
        ("from hetmorph import networks, data", "training.train"),
    ],
)
def test_downward_imports_pass(source, module):
    assert not violations(source, module)
