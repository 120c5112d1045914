"""Evaluation of a registration: predictor → one row per case → summary → files and table."""

from hetmorph.evaluation.adapter import FunctionPredictor, wrap
from hetmorph.evaluation.cases import CONVENTIONS, Scorer, evaluate, evaluate_each, evaluate_pair
from hetmorph.evaluation.checks import Checks
from hetmorph.evaluation.classical import PROGRAMS
from hetmorph.evaluation.fingerprint import fingerprint
from hetmorph.evaluation.guide import POINTS_WEIGHT, Guide
from hetmorph.evaluation.known_truth import KINDS, MOTION, Case, known_pair, measure
from hetmorph.evaluation.paired import compare, compare_runs, over_seeds, read_cases
from hetmorph.evaluation.predictor import Prediction, Predictor, RegistrationFailed, load
from hetmorph.evaluation.slices import SliceBySlice, for_cases
from hetmorph.evaluation.summary import pick_cases, summarise, write_cases, write_summary
from hetmorph.evaluation.table import markdown
from hetmorph.evaluation.uncertainty import Curves

__all__ = [
    "CONVENTIONS",
    "Case",
    "Checks",
    "Curves",
    "FunctionPredictor",
    "Guide",
    "KINDS",
    "MOTION",
    "POINTS_WEIGHT",
    "PROGRAMS",
    "Prediction",
    "Predictor",
    "RegistrationFailed",
    "Scorer",
    "SliceBySlice",
    "compare",
    "compare_runs",
    "evaluate",
    "evaluate_each",
    "evaluate_pair",
    "fingerprint",
    "for_cases",
    "known_pair",
    "load",
    "markdown",
    "measure",
    "over_seeds",
    "pick_cases",
    "read_cases",
    "summarise",
    "wrap",
    "write_cases",
    "write_summary",
]
