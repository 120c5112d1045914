"""Transforms: functions of points, by matrices, displacements, velocities or networks, composed and inverted."""

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
    "Codes",
    "Composition",
    "ContinuedDisplacement",
    "Displacement",
    "Identity",
    "Implicit",
    "InverseDisplacement",
    "InverseImplicit",
    "Preimages",
    "Transform",
    "Velocity",
    "in_frame",
    "preimages",
    "unit_cube",
    "voxels",
    "world",
]


def __getattr__(name: str):
    """What is made of tensors alone, and imports TensorFlow, when it is first asked for."""
    if name in __all__:
        from hetmorph.transforms import implicit

        globals().update({lazy: getattr(implicit, lazy) for lazy in ("Codes", "Implicit", "InverseImplicit")})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
