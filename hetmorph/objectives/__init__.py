"""Published methods: how losses, weights and schedules go together."""

from hetmorph.objectives.likelihoods import Heteroscedastic, JointLikelihood
from hetmorph.objectives.recipes import RECIPES, Recipe, recipe
from hetmorph.objectives.sampled import JacobianInverseConsistency, SampledCorrelation, SmallCodes
from hetmorph.objectives.schedule import Phase, phase, warm_start_length
from hetmorph.objectives.terms import (
    GradientInverseConsistency,
    InverseConsistency,
    Landmarks,
    Overlap,
    Similarity,
    Smoothness,
    Term,
    VelocityDiffusion,
)

__all__ = [
    "RECIPES",
    "GradientInverseConsistency",
    "Heteroscedastic",
    "InverseConsistency",
    "JacobianInverseConsistency",
    "JointLikelihood",
    "Landmarks",
    "Overlap",
    "Phase",
    "Recipe",
    "SampledCorrelation",
    "Similarity",
    "SmallCodes",
    "Smoothness",
    "Term",
    "VelocityDiffusion",
    "phase",
    "recipe",
    "warm_start_length",
]
