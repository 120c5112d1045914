"""Evaluation of a registration model: predictor → one row per slice → summary → files and table."""

from hetmorph.evaluation.cases import CONVENTIONS, evaluate, evaluate_pair
from hetmorph.evaluation.paired import compare, read_cases
from hetmorph.evaluation.predictor import Prediction, Predictor, load, wrap
from hetmorph.evaluation.summary import pick_cases, summarise, write_cases, write_summary
from hetmorph.evaluation.table import markdown

__all__ = [
    "CONVENTIONS",
    "Prediction",
    "Predictor",
    "compare",
    "evaluate",
    "evaluate_pair",
    "load",
    "markdown",
    "pick_cases",
    "read_cases",
    "summarise",
    "wrap",
    "write_cases",
    "write_summary",
]
