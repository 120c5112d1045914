"""Everything an evaluation leaves in its folder."""

from pathlib import Path

from hetmorph import evaluation
from hetmorph.viz.curves import calibration_figure, sparsification_figure
from hetmorph.viz.figures import summary_figure


def write_results(out: Path, predictor, loaded, rows: list[dict], curves, summary: dict, picture: str) -> None:
    """Write cases.csv, summary.json and the picture; of a predicted variance also its curves and their figures.

    Args:
        out: folder; made if missing.
        predictor: the model, called again for the cases of the picture.
        loaded: the `hetmorph.data.LoadedSet` that was evaluated.
        rows: of `evaluation.evaluate`.
        curves: the `evaluation.Curves` that it filled; empty for a model without variance.
        summary: of `evaluation.summarise`.
        picture: name of the picture's file.
    """
    evaluation.write_cases(out / "cases.csv", rows)
    evaluation.write_summary(out / "summary.json", summary)
    summary_figure(predictor, loaded.pairs, rows, out / picture, summary["convention"], loaded.labels, loaded.main)
    if curves:
        evaluation.write_cases(out / "curves.csv", curves.table())
        sparsification_figure(curves, out / "sparsification.png")
        calibration_figure(curves, out / "calibration.png")
