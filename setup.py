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


# tensorflow-serving-api is not listed: every release pins one exact `tensorflow`, so it is installed
# with `pip install --no-deps tensorflow-serving-api` beside the TensorFlow at hand.
SERVING = ["grpcio>=1.60", "requests>=2.31"]
REPORTS = ["SimpleITK>=2.3"]
TESTS = ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "SimpleITK>=2.3", "scikit-image>=0.22"]
BENCH = ["SimpleITK>=2.3"]
# The reports are looked at in a Chromium, of the system or from `playwright install chromium`; skipped without.
BROWSER = ["playwright>=1.45"]
CLASSICAL = ["SimpleITK>=2.3", "antspyx>=0.5"]
DEV = ["ruff>=0.12", *TESTS, *SERVING, *REPORTS, *BENCH, *BROWSER]

setup(
    name="hetmorph",
    version=version(),
    description="Deformable registration of medical images that says how sure it is (Keras 3, TensorFlow)",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["hetmorph", "hetmorph.*"]),
    package_data={"hetmorph.viz": ["page/*"]},
    python_requires=">=3.10,<3.14",
    install_requires=requirements(),
    extras_require={
        "serving": SERVING,
        "reports": REPORTS,
        "tests": TESTS,
        "bench": BENCH,
        "browser": BROWSER,
        "classical": CLASSICAL,
        "dev": sorted(set(DEV)),
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
