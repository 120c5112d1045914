"""Losses: VoxelMorph's under their names (`vxm`), those of other methods, and likelihoods with a variance per voxel."""

from hetmorph.losses.adaptive import AdaFrame
from hetmorph.losses.posterior import SmoothPosterior
from hetmorph.losses.vxm import KL, MSE, NCC, Dice, Grad, MutualInformation, TukeyBiweight

__all__ = ["KL", "MSE", "NCC", "AdaFrame", "Dice", "Grad", "MutualInformation", "SmoothPosterior", "TukeyBiweight"]
