"""Pure tensor functions on image grids: sampling, displacement fields, statistics.

Everything here is batched (leading axis), works for one to three spatial dimensions and for spatial sizes that are
only known when the graph runs.
"""

from hetmorph.ops import affine, fields, grid, stats
from hetmorph.ops.warp import warp
from hetmorph.ops.xla import compiled_kernels

__all__ = ["affine", "compiled_kernels", "fields", "grid", "stats", "warp"]
