"""Names that helps list, as the registries have them: to ask those would import TensorFlow."""

from __future__ import annotations

DATASETS = (
    *("acdc", "camus", "echo", "hippocampus", "oasis2d", "oasis2d-tissue", "phantom", "sunnybrook"),
    *("triangles", "triangles-hollow"),
)
CROPS = ("paper", "center", "none", "aspect")
OBJECTIVES = (
    *("mse", "ncc", "mi", "nll", "beta-nll", "adaframe", "adareg"),
    *("vxm-diff", "het", "het-ncc", "het-z"),
)
PROGRAMS = ("undeformed", "demons", "bspline", "ants-syn", "ants-syn-mse", "ants-syn-tuned")
CONVENTIONS = ("hetmorph", "official")
_FAMILIES = ("translation", "shear", "scale", "rotation", "affine", "bspline", "smooth-bspline", "composition")
ESTIMATES = (
    *("equivariance", "variance", "posterior", "dropout", "ensemble", "noise", "residual", "dissimilarity"),
    *(f"equivariance-{family}" for family in _FAMILIES),
)
CALIBRATED = ("equivariance", "dissimilarity", "residual", "variance")  # what calibrate combines unless told
KINDS = ("translation", "affine", "bspline", "composition")
REGIONS = ("foreground", "labels")
