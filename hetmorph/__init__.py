"""hetmorph: unsupervised deformable registration that also says how sure it is.

`import hetmorph as vxm` is the one-line change for VoxelMorph code: `networks`, `layers`, `losses`, `utils`,
`generators` and `py` are there under their VoxelMorph names.
"""

import importlib

from hetmorph.keras_classes import register_with_keras
from hetmorph.version import __version__

__all__ = [
    "__version__",
    "callbacks",
    "compat",
    "config",
    "data",
    "default_unet_features",
    "evaluation",
    "generators",
    "instance",
    "io",
    "layers",
    "losses",
    "metrics",
    "networks",
    "objectives",
    "ops",
    "py",
    "registration",
    "serving",
    "tf",
    "uncertainty",
    "utils",
    "viz",
]


def __getattr__(name: str):
    """A part, imported when it is first asked for."""
    if name == "default_unet_features":
        return importlib.import_module("hetmorph.networks").default_unet_features
    if name in __all__:
        return importlib.import_module(f"hetmorph.{name}")
    raise AttributeError(f"module 'hetmorph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_keras()
