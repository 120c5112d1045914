"""Everything an evaluation leaves in its folder."""

from pathlib import Path

from hetmorph import evaluation
from hetmorph.viz.curves import calibration_figure, sparsification_figure
from hetmorph.viz.figures import summary_figure


def write_results(out: Path, predictor, loaded, rows: list[dict], curves, summary: dict, picture: str) -> list[Path]:
    """Write cases.csv, summary.json and the picture; of a predicted variance also its curves and their figures.

    Without a predicted variance, curves of an earlier evaluation in the folder are removed.

    Args:
        out: folder; made if missing.
        predictor: the model, called again for the cases of the picture.
        loaded: the `hetmorph.data.LoadedSet` that was evaluated.
        rows: of `evaluation.evaluate`.
        curves: the `evaluation.Curves` that it filled; empty for a model without variance.
        summary: of `evaluation.summarise`.
        picture: name of the picture's file.

    Returns:
        The paths written.
    """
    written = [out / name for name in ("cases.csv", "summary.json", picture)]
    of_curves = [out / name for name in ("curves.csv", "sparsification.png", "calibration.png")]
    evaluation.write_cases(written[0], rows)
    evaluation.write_summary(written[1], summary)
    summary_figure(predictor, loaded.pairs, rows, written[2], summary["convention"], loaded.labels, loaded.main)
    if not curves:
        for path in of_curves:
            path.unlink(missing_ok=True)
        return written
    evaluation.write_cases(of_curves[0], curves.table())
    sparsification_figure(curves, of_curves[1])
    calibration_figure(curves, of_curves[2])
    return written + of_curves
