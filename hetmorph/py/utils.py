"""VoxelMorph's numpy utilities where its users import them; see `hetmorph.voxelmorph.py.utils`."""

from hetmorph.voxelmorph.py.utils import *  # noqa: F403
