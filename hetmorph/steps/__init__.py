"""Steps: from two images to a transform, made of networks and of each other."""

from hetmorph.steps.base import Step, displacement_on, moved_by
from hetmorph.steps.combined import AtResolution, Consistent, Repeated, Then
from hetmorph.steps.consistent import TwoStepConsistent
from hetmorph.steps.networks import AffineStep, FieldStep, NetworkStep, VelocityStep

__all__ = [
    "AffineStep",
    "AtResolution",
    "Consistent",
    "FieldStep",
    "NetworkStep",
    "Repeated",
    "Step",
    "Then",
    "TwoStepConsistent",
    "VelocityStep",
    "displacement_on",
    "moved_by",
]
