"""hetmorph: unsupervised deformable registration that also says how sure it is.

`import hetmorph as vxm` is the one-line change for VoxelMorph code: `networks`, `layers`, `losses`, `utils`,
`generators` and `py` are there under their VoxelMorph names.
"""

from hetmorph import (
    callbacks,
    config,
    data,
    evaluation,
    layers,
    losses,
    metrics,
    networks,
    objectives,
    ops,
    serving,
    viz,
)
from hetmorph.networks import default_unet_features
from hetmorph.version import __version__

__all__ = [
    "__version__",
    "callbacks",
    "config",
    "data",
    "default_unet_features",
    "evaluation",
    "layers",
    "losses",
    "metrics",
    "networks",
    "objectives",
    "ops",
    "serving",
    "viz",
]
