"""Published methods: how losses, weights and schedules go together."""

from hetmorph.objectives.likelihoods import Heteroscedastic, JointLikelihood
from hetmorph.objectives.recipes import RECIPES, Recipe, recipe
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
    "JointLikelihood",
    "Landmarks",
    "Overlap",
    "Phase",
    "Recipe",
    "Similarity",
    "Smoothness",
    "Term",
    "VelocityDiffusion",
    "phase",
    "recipe",
    "warm_start_length",
]
