"""`vxm.tf`, under which VoxelMorph's scripts reach its TensorFlow parts."""

from hetmorph import layers, losses, networks, utils

__all__ = ["layers", "losses", "networks", "utils"]
