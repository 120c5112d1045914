"""hetmorph: unsupervised deformable registration that also says how sure it is.

`import hetmorph as vxm` is the one-line change for VoxelMorph code: `networks`, `layers`, `losses`, `utils`,
`generators` and `py` are there under their VoxelMorph names.
"""

import importlib
import os
import platform
import sys
from pathlib import PurePath

from hetmorph.version import __version__

# On processors without AVX-512 TensorFlow leaves oneDNN off, without which 3-D convolutions take four times as long. It
# reads this once, when it is imported; who has set it is left alone.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

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
    "steps",
    "tf",
    "transforms",
    "uncertainty",
    "utils",
    "viz",
]


def __getattr__(name: str):
    """A part that is not imported yet."""
    if name == "default_unet_features":
        return importlib.import_module("hetmorph.networks").default_unet_features
    if name in __all__:
        return importlib.import_module(f"hetmorph.{name}")
    raise AttributeError(f"module 'hetmorph' has no attribute {name!r}")


# Everything is imported at once, because Keras finds the classes of a saved model only after they were registered;
# except by the command, whose --help shall not wait for TensorFlow.
if PurePath(sys.argv[0] if sys.argv else "").stem != "hetmorph":
    from hetmorph import compat  # first: it says what to do where the wrong voxelmorph or Keras is installed

    # isort: split
    from hetmorph import (
        callbacks,
        config,
        data,
        evaluation,
        generators,
        instance,
        io,
        layers,
        losses,
        metrics,
        networks,
        objectives,
        ops,
        py,
        registration,
        serving,
        steps,
        tf,
        transforms,
        uncertainty,
        utils,
        viz,
    )
    from hetmorph.networks import default_unet_features
