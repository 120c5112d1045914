"""Plain Python tools under VoxelMorph's name `py`."""

from hetmorph.py import utils

__all__ = ["utils"]
