"""Pictures, reports and files of a registration. Matplotlib is imported only to draw, its global state is untouched."""

from hetmorph.viz.case_report import case_report
from hetmorph.viz.cohort_report import cohort_report
from hetmorph.viz.evaluation_files import write_reports, write_results
from hetmorph.viz.figures import calibration_figure, known_truth_figure, sparsification_figure
from hetmorph.viz.summary_figure import summary_figure
from hetmorph.viz.verdict import Verdict, verdict

__all__ = [
    "Verdict",
    "calibration_figure",
    "case_report",
    "cohort_report",
    "known_truth_figure",
    "sparsification_figure",
    "summary_figure",
    "verdict",
    "write_reports",
    "write_results",
]
