"""Pictures and files of a registration. Matplotlib is imported only to draw, its global state is not touched."""

from hetmorph.viz.curves import calibration_figure, sparsification_figure
from hetmorph.viz.figures import summary_figure
from hetmorph.viz.results import write_results
from hetmorph.viz.uncertainty import known_truth_figure

__all__ = ["calibration_figure", "known_truth_figure", "sparsification_figure", "summary_figure", "write_results"]
