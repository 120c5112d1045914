"""Scores of a registration on numpy arrays, 2-D and 3-D: overlap, surface distance, deformation, uncertainty.

An undefined score is NaN (an empty structure has no surface); bad input (NaN, soft masks, mismatched shapes)
is an error.
"""

from hetmorph.metrics import calibration, deformation, overlap, ranking, surface
from hetmorph.metrics.calibration import calibration_error, coverage, normal_distance, reliability_curve, standardised
from hetmorph.metrics.deformation import endpoint_error, flips, folds_percent, sdlogj, target_error
from hetmorph.metrics.overlap import dice
from hetmorph.metrics.ranking import aurc, auroc, ause, naurc, pearson, sparsification, spearman
from hetmorph.metrics.surface import asd, assd, hausdorff, hausdorff95, surface_distances

__all__ = [
    "asd",
    "assd",
    "aurc",
    "auroc",
    "ause",
    "calibration",
    "calibration_error",
    "coverage",
    "deformation",
    "dice",
    "endpoint_error",
    "flips",
    "folds_percent",
    "hausdorff",
    "hausdorff95",
    "naurc",
    "normal_distance",
    "overlap",
    "pearson",
    "ranking",
    "reliability_curve",
    "sdlogj",
    "sparsification",
    "spearman",
    "standardised",
    "surface",
    "surface_distances",
    "target_error",
]
