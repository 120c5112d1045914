"""hetmorph: unsupervised deformable registration that also says how sure it is.

`import hetmorph as vxm` is the one-line change for VoxelMorph code: `networks`, `layers`, `losses`, `utils`,
`generators` and `py` are there under their VoxelMorph names.
"""

from hetmorph import compat  # first: it says what to do where the wrong voxelmorph or Keras is installed

# isort: split
from hetmorph import (
    callbacks,
    config,
    data,
    evaluation,
    generators,
    layers,
    losses,
    metrics,
    networks,
    objectives,
    ops,
    py,
    serving,
    tf,
    uncertainty,
    utils,
    viz,
)
from hetmorph.networks import default_unet_features
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
    "layers",
    "losses",
    "metrics",
    "networks",
    "objectives",
    "ops",
    "py",
    "serving",
    "tf",
    "uncertainty",
    "utils",
    "viz",
]
