"""VoxelMorph's generators where its users import them; see `hetmorph.voxelmorph.generators`."""

from hetmorph.voxelmorph.generators import *  # noqa: F403
