"""Losses: how unlike images are, how rough a field is, how labels overlap; likelihoods with a variance per voxel."""

from hetmorph.losses.adaptive import AdaFrame
from hetmorph.losses.consistency import (
    gradient_inverse_consistency,
    inverse_consistency,
    jacobian_inverse_consistency,
    velocity_diffusion,
)
from hetmorph.losses.labels import Dice
from hetmorph.losses.mind import MIND
from hetmorph.losses.ngf import NGF
from hetmorph.losses.similarity import LNCC, MSE, NCC, GlobalNCC, MutualInformation, SquaredLNCC, TukeyBiweight
from hetmorph.losses.smoothness import KL, Grad, SmoothPosterior

__all__ = [
    "KL",
    "LNCC",
    "MIND",
    "MSE",
    "NCC",
    "NGF",
    "AdaFrame",
    "Dice",
    "GlobalNCC",
    "Grad",
    "MutualInformation",
    "SmoothPosterior",
    "SquaredLNCC",
    "TukeyBiweight",
    "gradient_inverse_consistency",
    "inverse_consistency",
    "jacobian_inverse_consistency",
    "velocity_diffusion",
]
