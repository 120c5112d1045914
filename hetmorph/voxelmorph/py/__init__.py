"""Plain Python tools under VoxelMorph's name `py`."""

from hetmorph.voxelmorph.py import utils

__all__ = ["utils"]
