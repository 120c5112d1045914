"""Installs the package: runtime dependencies from requirements.txt, the version from hetmorph/version.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def requirements():
    """Requirement specifiers of requirements.txt, without comments and blank lines."""
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line]


def version():
    """The string assigned to `__version__`, read as text so that installing needs no TensorFlow."""
    return re.search(r'__version__ = "(.+)"', (ROOT / "hetmorph" / "version.py").read_text()).group(1)


# tensorflow-serving-api, for gRPC and warm-up requests, is not listed: each release asks for the distribution called
# `tensorflow`, of its own version or newer. The Makefile installs it with --no-deps beside the TensorFlow at hand.
SERVING = ["grpcio>=1.60", "requests>=2.31"]
REPORTS = ["SimpleITK>=2.3"]
ONNX = ["tf2onnx>=1.17", "onnxruntime>=1.20"]  # hetmorph export --format onnx, and its comparison with the model
# Programs by others that run what hetmorph serves: a client of TensorFlow Serving, a runtime not of TensorFlow.
OTHERS = ["ovmsclient>=2023.1", "openvino>=2024.0"]
FORMATS = ["SimpleITK>=2.3"]  # MetaImage, NRRD, DICOM series and ITK's transform files, see docs/files.md
# The plug-in runs in a napari that is there, whose users choose its Qt: napari[all] brings one.
NAPARI = ["napari>=0.5", "magicgui>=0.8", "qtpy>=2", *FORMATS]
COHORT = ["distributed>=2024.8", "dask-jobqueue>=0.9"]  # --workers and --scheduler: docs/cohorts.md
HUB = ["huggingface_hub>=0.20"]  # hf:// models
TESTS = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "SimpleITK>=2.3",
    "scikit-image>=0.22",
    "nitransforms>=24.1",  # an independent reader of displacement fields
    *SERVING,
    *COHORT,
]
BENCH = ["SimpleITK>=2.3"]
# The reports are looked at in a Chromium, of the system or from `playwright install chromium`; skipped without.
BROWSER = ["playwright>=1.45"]
# The API reference: pdoc renders docstrings of Google's form as they are, in one command without configuration.
DOCS = ["pdoc>=15"]
CLASSICAL = ["SimpleITK>=2.3", "antspyx>=0.5"]
DEV = ["ruff>=0.12", *TESTS, *OTHERS, *REPORTS, *FORMATS, *BENCH, *BROWSER, *DOCS]

setup(
    name="hetmorph",
    version=version(),
    description="Deformable registration of medical images that says how sure it is (Keras 3, TensorFlow)",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The trained models lie at the top of the clone, where people look, and inside the installed package.
    packages=[*find_packages(include=["hetmorph", "hetmorph.*"]), "hetmorph.saved_models"],
    package_dir={"hetmorph.saved_models": "saved_models"},
    package_data={
        "hetmorph.viz": ["page/*"],
        "hetmorph.napari": ["napari.yaml"],
        "hetmorph.saved_models": ["**/*"],
    },
    python_requires=">=3.10,<3.14",
    entry_points={
        "console_scripts": ["hetmorph=hetmorph.cli.main:cli"],
        "napari.manifest": ["hetmorph = hetmorph.napari:napari.yaml"],
    },
    install_requires=requirements(),
    extras_require={
        "cohort": COHORT,
        "serving": SERVING,
        "formats": FORMATS,
        "hub": HUB,
        "napari": NAPARI,
        "onnx": ONNX,
        "reports": REPORTS,
        "tests": TESTS,
        "bench": BENCH,
        "browser": BROWSER,
        "classical": CLASSICAL,
        "docs": DOCS,
        "dev": sorted(set(DEV)),
    },
    classifiers=[
        "Framework :: napari",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
