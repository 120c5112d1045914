"""hetmorph: unsupervised deformable registration that also says how sure it is.

`import hetmorph as vxm` is the one-line change for VoxelMorph code: `networks`, `layers`, `losses`, `utils`,
`generators` and `py` are there under their VoxelMorph names.
"""

import importlib
import os
import platform

from hetmorph.keras_classes import register_with_keras
from hetmorph.version import __version__
from hetmorph.voxelmorph import original  # noqa: F401  from now on `import neurite` and `import voxelmorph` work

# On processors without AVX-512 TensorFlow leaves oneDNN off, without which 3-D convolutions take four times as long. It
# reads this once, when it is imported; who has set it is left alone.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = [
    "__version__",
    "callbacks",
    "config",
    "data",
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
    "presets",
    "py",
    "registration",
    "serving",
    "steps",
    "tf",
    "transforms",
    "uncertainty",
    "utils",
    "viz",
    "voxelmorph",
]


def __getattr__(name: str):
    """A part, imported when it is first asked for."""
    if name == "from_preset":
        return importlib.import_module("hetmorph.presets").from_preset
    if name == "default_unet_features":
        return importlib.import_module("hetmorph.networks").default_unet_features
    if name in __all__:
        return importlib.import_module(f"hetmorph.{name}")
    raise AttributeError(f"module 'hetmorph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "from_preset"})


register_with_keras()
