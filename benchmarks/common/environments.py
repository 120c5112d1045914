"""A virtual environment for every peer, made on first use and kept."""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".environments"

# name: (Python versions that will do, requirements). Each peer gets the versions its authors released it for.
REQUIREMENTS = {
    "voxelmorph-tf": (
        ("3.10",),  # neurite 0.2 calls what Python 3.11 has no more
        ["tensorflow-cpu==2.15.1", "voxelmorph==0.2", "neurite==0.2", "numpy<2", "nibabel<5"],
    ),
    "voxelmorph-torch": (("3.11", "3.12", "3.10"), ["torch==2.13.0", "voxelmorph==0.3.4", "monai==1.6.*"]),
    "unigradicon": (
        ("3.11", "3.12", "3.10"),
        ["torch==2.13.0", "torchvision", "unigradicon==1.0.6", "icon-registration==1.1.9"],
    ),
    "classical": (("3.11", "3.12", "3.10"), ["SimpleITK==2.5.*", "antspyx==0.6.*", "picsl_greedy==1.4.*"]),
}


def python_of(name: str, given: dict[str, str]) -> str:
    """Interpreter of an environment: the one that runs this, one given by hand, or a new environment's.

    Args:
        name: "hetmorph" or a key of `REQUIREMENTS`.
        given: interpreters by name that are to be used as they are.
    """
    if name == "hetmorph":
        return sys.executable
    if name in given:
        return given[name]
    python = FOLDER / name / "bin" / "python"
    if not (FOLDER / name / ".complete").exists():
        versions, requirements = REQUIREMENTS[name]
        print(f"making the environment {name}: {', '.join(requirements)}", file=sys.stderr)
        subprocess.run([_interpreter(versions), "-m", "venv", "--clear", str(FOLDER / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        (FOLDER / name / ".complete").touch()
    return str(python)


def _interpreter(versions: tuple[str, ...]) -> str:
    if f"{sys.version_info.major}.{sys.version_info.minor}" in versions:
        return sys.executable
    for version in versions:
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:  # pyenv's may be empty
            return found
    raise SystemExit(f"this peer needs Python {' or '.join(versions)}, and none is on the PATH")
