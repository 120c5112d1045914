"""Uncertainty of any registration at test time, and what it is worth: maps, their combination, their calibration."""

from hetmorph.data.transforms import (
    FAMILIES,
    BSpline,
    Composition,
    Family,
    Rotation,
    Scale,
    Shear,
    Translation,
)
from hetmorph.uncertainty.calibrate import (
    EXPECTED,
    ExpectedError,
    calibrate,
    calibrated_estimates,
    divide,
    expected_error,
)
from hetmorph.uncertainty.combination import Combination
from hetmorph.uncertainty.conformal import FLAGS, Bound, Calibration, Triage, risk_coverage
from hetmorph.uncertainty.consistency import incoherence_uncertainty, inverse_uncertainty
from hetmorph.uncertainty.draws import Moments
from hetmorph.uncertainty.equivariance import equivariance_uncertainty
from hetmorph.uncertainty.estimates import ESTIMATES, estimate, estimate_names, estimates_for, pair_estimates
from hetmorph.uncertainty.intensity import dissimilarity_uncertainty, residual_uncertainty, variance_uncertainty
from hetmorph.uncertainty.repeated import (
    dropout_uncertainty,
    ensemble_uncertainty,
    noise_uncertainty,
    posterior_uncertainty,
)
from hetmorph.uncertainty.result import UncertaintyMap

__all__ = [
    "BSpline",
    "Bound",
    "Calibration",
    "Combination",
    "Composition",
    "ESTIMATES",
    "EXPECTED",
    "ExpectedError",
    "FAMILIES",
    "FLAGS",
    "Family",
    "Moments",
    "Rotation",
    "Scale",
    "Shear",
    "Translation",
    "Triage",
    "UncertaintyMap",
    "calibrate",
    "calibrated_estimates",
    "divide",
    "dropout_uncertainty",
    "ensemble_uncertainty",
    "equivariance_uncertainty",
    "estimate",
    "estimate_names",
    "expected_error",
    "estimates_for",
    "incoherence_uncertainty",
    "inverse_uncertainty",
    "noise_uncertainty",
    "pair_estimates",
    "posterior_uncertainty",
    "dissimilarity_uncertainty",
    "residual_uncertainty",
    "risk_coverage",
    "variance_uncertainty",
]
