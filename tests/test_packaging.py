"""What `pip install` is told agrees with the code: dependencies, version, packages, tool settings."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Import name -> name on PyPI, where they differ. Extras are imported only where they are used; google is protobuf,
# which TensorFlow brings.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow"}
EXTRAS = {"onnx", "onnxruntime", "SimpleITK", "google", "grpc", "requests", "tensorflow_serving"}
EXTRAS |= {"napari", "magicgui", "qtpy", "dask", "distributed", "dask_jobqueue"}


def setup_value(*flags):
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", *flags], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def name_of(requirement):
    return requirement.split("#")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip().lower()


def test_every_requirement_is_justified_beside_it():
    assert all("#" in line for line in requirements())


def test_voxelmorph_and_neurite_are_pinned():
    pinned = {line.split("#")[0].strip() for line in requirements()}
    assert {"voxelmorph==0.2", "neurite==0.2"} <= pinned


def test_setup_reads_the_version_file():
    pytest.importorskip("setuptools")
    from hetmorph.version import __version__

    assert setup_value("--version").splitlines()[-1] == __version__


def test_setup_needs_no_tensorflow():
    source = (ROOT / "setup.py").read_text()
    modules = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert not {module.split(".")[0] for module in modules} & {"tensorflow", "keras", "hetmorph"}


def test_every_imported_package_is_required_and_every_required_one_is_used():
    imported = set()
    for path in [*ROOT.glob("hetmorph/**/*.py"), *ROOT.glob("training/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    outside = imported - sys.stdlib_module_names - EXTRAS - {"hetmorph", "training"}
    outside = {DISTRIBUTIONS.get(name, name).lower() for name in outside}
    # hetmorph.voxelmorph.original loads the first two by name; keras.callbacks.TensorBoard writes what the third shows.
    assert outside | {"voxelmorph", "neurite", "tensorboard"} == {name_of(line) for line in requirements()}


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for path in ROOT.glob("hetmorph/**/*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_training_and_tests_are_not_installed():
    find_packages = pytest.importorskip("setuptools").find_packages
    found = find_packages(str(ROOT), include=["hetmorph", "hetmorph.*"])
    assert "hetmorph" in found
    assert all(name.split(".")[0] == "hetmorph" for name in found)


def test_pyproject_holds_tool_settings_only():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib comes with Python 3.11")
    import tomllib

    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"tool"}


def test_what_a_report_is_made_of_is_installed_with_the_package():
    from fnmatch import fnmatch

    from hetmorph import viz

    folder = Path(viz.__file__).parent
    source = (ROOT / "setup.py").read_text()
    patterns = re.search(r'"hetmorph.viz": \[(.*?)\]', source).group(1).replace('"', "").split(", ")
    others = [path.relative_to(folder) for path in folder.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert others and all(any(fnmatch(str(path), pattern) for pattern in patterns) for path in others)


def test_a_wheel_holds_the_trained_models(tmp_path):
    for needed in ("setuptools", "wheel"):
        pytest.importorskip(needed)
    flags = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path)]
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "runs", "tests", "docs"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *flags, str(source)], check=True, capture_output=True)
    held = set(zipfile.ZipFile(*tmp_path.glob("hetmorph-*.whl")).namelist())
    models = [path.relative_to(ROOT) for path in (ROOT / "saved_models").rglob("*") if path.is_file()]
    assert models and {f"hetmorph/{path.as_posix()}" for path in models} <= held
