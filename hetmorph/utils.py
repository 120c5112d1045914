"""VoxelMorph's tensor utilities where its users import them; see `hetmorph.voxelmorph.utils`."""

from hetmorph.voxelmorph.utils import *  # noqa: F403
