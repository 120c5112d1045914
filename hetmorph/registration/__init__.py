"""Images with headers in, images with headers out: one pair, a stack by a 2-D model, a sequence."""

from hetmorph.registration.affine import Alignment, align
from hetmorph.registration.affine_stage import Aligner, aligner
from hetmorph.registration.guidance import Guidance
from hetmorph.registration.intensities import Intensities, Scale
from hetmorph.registration.pair import Registration, jacobian, model_pair, register
from hetmorph.registration.sequence import (
    curve,
    draw_curve,
    reference_frame,
    register_sequence,
    strains,
    volumes_ml,
    write_curve,
)

__all__ = [
    "Aligner",
    "Alignment",
    "Guidance",
    "Intensities",
    "Registration",
    "Scale",
    "align",
    "aligner",
    "curve",
    "draw_curve",
    "jacobian",
    "model_pair",
    "reference_frame",
    "register",
    "register_sequence",
    "strains",
    "volumes_ml",
    "write_curve",
]
