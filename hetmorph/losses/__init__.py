"""Losses: VoxelMorph's under their names (`vxm`), and the likelihoods of the heteroscedastic model (`likelihood`)."""

from hetmorph.losses.vxm import KL, MSE, NCC, Dice, Grad, MutualInformation, TukeyBiweight

__all__ = ["KL", "MSE", "NCC", "Dice", "Grad", "MutualInformation", "TukeyBiweight"]
