"""What an evaluation leaves in its folder: tables, pictures, a page of all cases and one for each of the worst."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from hetmorph import evaluation
from hetmorph.evaluation import Curves, Prediction, RegistrationFailed
from hetmorph.viz.case_report import case_report
from hetmorph.viz.cohort_report import cohort_report
from hetmorph.viz.figures import calibration_figure, sparsification_figure
from hetmorph.viz.scores import as_numbers, worst_first
from hetmorph.viz.summary_figure import summary_figure

INDEX, CASES = "index.html", "cases"


def write_results(out: Path, predictor, loaded, rows: list[dict], curves, summary: dict, picture: str) -> list[Path]:
    """Write cases.csv, summary.json and the picture; of a predicted variance also its curves and their figures.

    Without a predicted variance, curves of an earlier evaluation in the folder are removed.

    Args:
        out: folder; made if missing.
        predictor: the model, called again for the cases of the picture.
        loaded: the `hetmorph.data.LoadedSet` that was evaluated.
        rows: the table that `evaluation.evaluate` returned.
        curves: the `evaluation.Curves` that it filled; empty for a model without variance.
        summary: what `evaluation.summarise` made of it.
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


def write_reports(
    folder,
    predictor: Callable[..., Prediction],
    loaded,
    rows: Sequence[Mapping],
    curves: Curves | None = None,
    maps: Mapping[str, Callable] | None = None,
    calibration=None,
    convention: str = "hetmorph",
    most: int | None = None,
    about: Mapping[str, object] | None = None,
    progress: bool = True,
) -> list[Path]:
    """Write `index.html`, and `cases/<case>.html` of the worst cases, into a folder.

    The cases shown are registered once more, and their maps made once more.

    Args:
        folder: made if missing; older reports in it stay, unless one of the same case replaces them.
        predictor: called as `predictor(moving, fixed)`.
        loaded: the `hetmorph.data.LoadedSet` that was evaluated.
        rows: the table that `evaluation.evaluate` returned, in the order of its pairs.
        curves: that it filled, or None.
        maps: estimates of uncertainty by name, functions of a pair, as of `uncertainty.pair_estimates`.
        calibration: `uncertainty.Calibration` that judges the maps, as it did for the rows; or None.
        convention: the one the rows were made with.
        most: how many cases get a page, the worst of those that have a score before the others; None for all.
        about: lines on where the result comes from.
        progress: show a progress bar on stderr.

    Returns:
        The paths written, `index.html` first.

    Raises:
        ValueError: pairs and rows of different number, or of other cases.
    """
    cases = [case.case_id for case in loaded.cases]
    if cases != [row["case_id"] for row in rows]:
        raise ValueError(f"expected one row for each pair, in their order, got {len(cases)} and {len(rows)}")
    folder, rows = Path(folder), as_numbers(rows)
    names = file_names(cases)
    links, written = {}, []
    for i in tqdm(worst_first(rows, loaded.main)[:most], desc="reports", unit="case", disable=not progress):
        pair, row = loaded.pairs[i], rows[i]
        prediction, own = _registered(predictor, pair, maps or {})
        links[pair.case_id] = f"{CASES}/{names[i]}"
        written.append(
            case_report(
                pair,
                prediction,
                folder / links[pair.case_id],
                row,
                own,
                calibration,
                convention,
                loaded.labels,
                loaded.main,
                about=about,
                home=f"../{INDEX}",
            )
        )
    index = cohort_report(rows, folder / INDEX, links, curves, convention, loaded.main, about)
    return [index, *written]


def file_names(case_ids: Sequence[str]) -> list[str]:
    """A file name for each case: what a name should not hold becomes "_", and equal ones are numbered."""
    names, taken = [], set()
    for case_id in case_ids:
        stem = re.sub(r"[^\w.-]+", "_", case_id).strip(".")[:100] or "case"
        name, number = stem, 1
        # Letters that differ by case alone are one file on some systems.
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(f"{name}.html")
    return names


def _registered(predictor, pair, maps: Mapping[str, Callable]) -> tuple[Prediction | None, dict]:
    try:
        return predictor(pair.moving, pair.fixed), {name: estimate(pair) for name, estimate in maps.items()}
    except RegistrationFailed:
        return None, {}
