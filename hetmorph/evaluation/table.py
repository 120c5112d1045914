"""A summary as a table to read."""

COLUMNS = (
    # metric, heading, factor, decimals
    ("dice_myo", "Dice MYO", 1, 3),
    ("dice_rv", "Dice RV", 1, 3),
    ("dice_lv", "Dice LV", 1, 3),
    ("dice_mean", "Dice mean", 1, 3),
    ("hd_px", "HD px", 1, 2),
    ("hd95_px", "HD95 px", 1, 2),
    ("assd_px", "ASSD px", 1, 2),
    ("asd_px", "ASD px", 1, 2),
    ("hd95_mm", "HD95 mm", 1, 2),
    ("folds_percent", "folds %", 1, 3),
    ("sdlogj", "SDlogJ", 1, 3),
    ("mse", "MSE ·10³", 1e3, 2),
    ("ause", "AUSE ·10⁴", 1e4, 2),
    ("ause_foreground", "AUSE fg ·10⁴", 1e4, 2),
    ("epe", "EPE px", 1, 2),
    ("epe_heart", "EPE heart px", 1, 2),
    ("sigma_correlation", "r(σ)", 1, 2),
    ("seconds_per_pair", "s/pair", 1, 3),
)


def markdown(summary: dict) -> str:
    """The summary as a Markdown table: a line per metric, undeformed beside registered, mean ± standard
    deviation.

    Args:
        summary: as `evaluation.summary.summarise` returns it.
    """
    rows = [("", "undeformed", "registered")]
    for metric, heading, factor, decimals in COLUMNS:
        cells = [_cell(summary[block], metric, factor, decimals) for block in ("undeformed", "registered")]
        if any(cells):
            rows.append((heading, *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([_heading(summary), "", *lines])


def _heading(summary: dict) -> str:
    text = f"{summary['n_cases']} cases of {summary['per_patient']['n_patients']} patients"
    text += f", {summary['n_failed']} failed, convention {summary['convention']}"
    reasons = {}
    for failure in summary["failures"]:
        reasons.setdefault(failure["reason"], []).append(failure["case_id"])
    return "\n".join([text, *(f"  {len(cases)} × {reason}: {_abridged(cases)}" for reason, cases in reasons.items())])


def _abridged(cases: list[str], most: int = 4) -> str:
    return ", ".join(cases[:most]) + (f" … and {len(cases) - most} more" if len(cases) > most else "")


def _cell(block: dict, metric: str, factor: float, decimals: int) -> str:
    mean = block.get(metric)
    if mean is None:
        return ""
    return f"{mean * factor:.{decimals}f} ± {block[f'{metric}_std'] * factor:.{decimals}f}"
