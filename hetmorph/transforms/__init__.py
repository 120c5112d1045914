"""Transforms: functions of points, by matrices, displacements or velocities, composed and inverted."""

from hetmorph.transforms.affine import Affine
from hetmorph.transforms.arrays import voxels
from hetmorph.transforms.base import Identity, Transform
from hetmorph.transforms.composition import Composition
from hetmorph.transforms.displacement import ContinuedDisplacement, Displacement, InverseDisplacement
from hetmorph.transforms.frame import in_frame, unit_cube, world
from hetmorph.transforms.inversion import Preimages, preimages
from hetmorph.transforms.velocity import Velocity

__all__ = [
    "Affine",
    "Composition",
    "ContinuedDisplacement",
    "Displacement",
    "Identity",
    "InverseDisplacement",
    "Preimages",
    "Transform",
    "Velocity",
    "in_frame",
    "preimages",
    "unit_cube",
    "voxels",
    "world",
]
