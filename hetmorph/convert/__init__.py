"""Weights of others as models of this library."""

from hetmorph.convert.checkpoint import read_checkpoint
from hetmorph.convert.transmorph import convert_transmorph
from hetmorph.convert.unigradicon import convert_unigradicon
from hetmorph.convert.voxelmorph_2018 import convert_voxelmorph_2018

__all__ = ["convert_transmorph", "convert_unigradicon", "convert_voxelmorph_2018", "read_checkpoint"]
