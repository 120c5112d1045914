"""A summary as a table to read."""

import re
from collections.abc import Iterable

COLUMNS = (
    # metric, heading, factor, decimals
    ("dice_mean", "Dice mean", 1, 3),
    ("hd_px", "HD px", 1, 2),
    ("hd95_px", "HD95 px", 1, 2),
    ("assd_px", "ASSD px", 1, 2),
    ("asd_px", "ASD px", 1, 2),
    ("hd95_mm", "HD95 mm", 1, 2),
    ("tre_px", "TRE px", 1, 2),
    ("tre_mm", "TRE mm", 1, 2),
    ("folds_percent", "folds %", 1, 3),
    ("sdlogj", "SDlogJ", 1, 3),
    ("inverse_error", "inverse error px", 1, 5),
    ("inverse_error_mm", "inverse error mm", 1, 5),
    ("mse", "MSE ·10³", 1e3, 2),
    ("ause", "AUSE ·10⁴", 1e4, 2),
    ("ause_foreground", "AUSE fg ·10⁴", 1e4, 2),
    ("coverage1_foreground", "within ±σ fg % (68.3)", 1e2, 1),
    ("coverage2_foreground", "within ±2σ fg % (95.4)", 1e2, 1),
    ("z_sd_foreground", "sd of r/σ fg (1)", 1, 2),
    ("z_normal_distance_foreground", "r/σ from N(0, 1) fg", 1, 2),
    ("sigma_ece_foreground", "ECE σ fg ·10³", 1e3, 2),
    ("epe", "EPE px", 1, 2),
    ("epe_labels", "EPE labels px", 1, 2),
    ("epe_artefact", "EPE in artefact px", 1, 2),
    ("epe_around", "EPE around it px", 1, 2),
    ("ause_displacement_foreground", "AUSE EPE fg px²", 1, 3),
    ("sigma_correlation_foreground", "r(σ) fg", 1, 2),
    ("sigma_rank_correlation_foreground", "rank r(σ) fg", 1, 2),
    ("sigma_auroc_foreground", "AUROC σ fg", 1, 2),
    ("bound_mean", "bound of the EPE px", 1, 2),
    ("seconds_per_pair", "s/pair", 1, 3),
)
SURFACES = ("hd", "hd95", "assd", "asd")  # beginnings of the metrics that are of the main structure
# What is said below a table that has a heading with this word.
WORDS = {
    "HD": "HD, HD95, ASSD, ASD: largest, 95th percentile and mean distance of the outlines, both ways and one way",
    "TRE": "TRE: mean distance of landmarks, moved ones from those of the moving image",
    "SDlogJ": "SDlogJ: how unevenly volume changes, standard deviation of log Jacobian determinants",
    "inverse": "inverse error: mean distance of φ_AB(φ_BA(x)) from x, of the registrations of both directions",
    "AUSE": "AUSE: squared error left when the most uncertain voxels are removed, above what the best order leaves; "
    "0 is best",
    "r/σ": "r: fixed − moved; in brackets what a right σ_I gives",
    "ECE": "ECE: mean difference of σ_I and the residual it predicts",
    "EPE": "EPE: length of the displacement's error",
    "r(": "r(σ), rank r(σ): correlation with the true noise, of values and of ranks; of a map, with the true error",
    "AUROC": "AUROC σ: how often σ_I is higher inside an artefact than outside; 1 always, 0.5 by chance",
    "nAURC": "nAURC: how a map ranks the true error; 0 as the error itself would, 1 by chance",
    "fg": "fg: in the foreground, where an image is not 0",
}
FEW = 5  # structures that get a line each; of more, the main one and the mean


def markdown(summary: dict) -> str:
    """The summary as a Markdown table: a line per metric, undeformed beside registered, mean ± standard
    deviation.

    Args:
        summary: as `evaluation.summary.summarise` returns it.
    """
    rows = [("", "undeformed", "registered")]
    for metric, heading, factor, decimals in columns(summary):
        cells = [_cell(summary[block], metric, factor, decimals) for block in ("undeformed", "registered")]
        if any(cells):
            rows.append((heading, *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([_heading(summary), "", *lines, "", *explained(heading for heading, *_ in rows)])


def columns(summary: dict) -> list[tuple[str, str, int, int]]:
    """What a table of a summary shows: metric, heading, factor and decimals of the shown number."""
    main = summary["main"]
    common = [(metric, _of_main(metric, heading, main), *rest) for metric, heading, *rest in COLUMNS]
    return [*_dice_columns(summary), *common, *_map_columns(summary)]


def explained(headings: Iterable[str]) -> list[str]:
    """What the abbreviations in some headings mean, a line each."""
    text = " ".join(headings)
    return [line for word, line in WORDS.items() if re.search(rf"(?<!\w){re.escape(word)}", text)]


def structure_heading(name: str) -> str:
    """Abbreviations in capitals, names as they are."""
    return name.upper() if len(name) <= 4 else name


def shown_structures(summary: dict) -> list[str]:
    """The structures that get a line of their own, the main one first."""
    names = [metric.removeprefix("dice_") for metric in summary["n"]["registered"] if metric.startswith("dice_")]
    names = [name for name in names if name != "mean"]
    return names if len(names) <= FEW else [name for name in names if name == summary["main"]]


def _of_main(metric: str, heading: str, main: str | None) -> str:
    """A distance of surfaces says of which structure: "HD95 MYO mm"."""
    if main is None or metric.partition("_")[0] not in SURFACES:
        return heading
    name, unit = heading.split()
    return f"{name} {structure_heading(main)} {unit}"


def _dice_columns(summary: dict) -> list[tuple[str, str, int, int]]:
    return [(f"dice_{name}", f"Dice {structure_heading(name)}", 1, 3) for name in shown_structures(summary)]


def _map_columns(summary: dict) -> list[tuple[str, str, int, int]]:
    """Of each map of uncertainty: its mean, in millimetres where it has any, and how it ranks the true error."""
    ending = "_valid_share"
    names = [metric.removesuffix(ending) for metric in summary["n"]["registered"] if metric.endswith(ending)]
    columns = []
    for name in names:
        in_mm = f"{name}_mean_mm" in summary["registered"]
        columns.append((f"{name}_mean_mm", f"{name} mm", 1, 2) if in_mm else (f"{name}_mean", f"{name} ·10³", 1e3, 2))
        columns += [(f"{name}_spearman", f"rank r({name})", 1, 2), (f"{name}_naurc", f"nAURC {name}", 1, 2)]
    return columns


def _heading(summary: dict) -> str:
    text = f"{summary['n_cases']} cases of {summary['per_patient']['n_patients']} patients"
    text += f", {summary['n_failed']} failed, {summary['n_unscored']} not scored, convention {summary['convention']}"
    if "verdicts" in summary:
        text += "".join(f", {flag} {number}" for flag, number in sorted(summary["verdicts"].items()))
    reasons = {}
    for told in [*summary["failures"], *summary["unscored"]]:
        reasons.setdefault(told["reason"], []).append(told["case_id"])
    return "\n".join([text, *(f"  {len(cases)} × {reason}: {_abridged(cases)}" for reason, cases in reasons.items())])


def _abridged(cases: list[str], most: int = 4) -> str:
    return ", ".join(cases[:most]) + (f" … and {len(cases) - most} more" if len(cases) > most else "")


def _cell(block: dict, metric: str, factor: float, decimals: int) -> str:
    mean = block.get(metric)
    if mean is None:
        return ""
    return f"{mean * factor:.{decimals}f} ± {block[f'{metric}_std'] * factor:.{decimals}f}"
