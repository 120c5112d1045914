"""Steps: from two images to a transform, made of networks and of each other."""

from hetmorph.steps.base import DIRECTIONS, Step, check_direction, displacement_on, moved_by
from hetmorph.steps.combined import AtResolution, Consistent, Repeated, Then
from hetmorph.steps.consistent import TwoStepConsistent
from hetmorph.steps.features import FeatureStep
from hetmorph.steps.implicit import ImplicitStep
from hetmorph.steps.known import Ends, View, check_known, split_known
from hetmorph.steps.networks import AffineStep, FieldStep, NetworkStep, VelocityStep
from hetmorph.steps.registered import Registered
from hetmorph.steps.smoothed import Smoothed
from hetmorph.steps.turned import Turned

__all__ = [
    "DIRECTIONS",
    "AffineStep",
    "AtResolution",
    "Consistent",
    "Ends",
    "FeatureStep",
    "FieldStep",
    "ImplicitStep",
    "NetworkStep",
    "Registered",
    "Repeated",
    "Smoothed",
    "Step",
    "Then",
    "Turned",
    "TwoStepConsistent",
    "VelocityStep",
    "View",
    "check_direction",
    "check_known",
    "displacement_on",
    "moved_by",
    "split_known",
]
