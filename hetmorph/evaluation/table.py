"""A summary as a table to read."""

COLUMNS = (
    # metric, heading, factor, decimals
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
    ("coverage1_foreground", "within ±σ fg % (68.3)", 1e2, 1),
    ("coverage2_foreground", "within ±2σ fg % (95.4)", 1e2, 1),
    ("z_sd_foreground", "sd of r/σ fg (1)", 1, 2),
    ("z_normal_distance_foreground", "r/σ from N(0, 1) fg", 1, 2),
    ("sigma_ece_foreground", "ECE σ fg ·10³", 1e3, 2),
    ("epe", "EPE px", 1, 2),
    ("epe_heart", "EPE heart px", 1, 2),
    ("epe_labels", "EPE labels px", 1, 2),
    ("ause_displacement_foreground", "AUSE EPE fg px²", 1, 3),
    ("sigma_correlation_foreground", "r(σ) fg", 1, 2),
    ("sigma_rank_correlation_foreground", "rank r(σ) fg", 1, 2),
    ("seconds_per_pair", "s/pair", 1, 3),
)
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
    return "\n".join([_heading(summary), "", *lines])


def columns(summary: dict) -> list[tuple[str, str, int, int]]:
    """What a table of a summary shows: metric, heading, factor and decimals of the shown number."""
    return [*_dice_columns(summary), *COLUMNS, *_map_columns(summary)]


def structure_heading(name: str) -> str:
    """Abbreviations in capitals, names as they are."""
    return name.upper() if len(name) <= 4 else name


def shown_structures(summary: dict) -> list[str]:
    """The structures that get a line of their own, the main one first."""
    names = [metric.removeprefix("dice_") for metric in summary["n"]["registered"] if metric.startswith("dice_")]
    names = [name for name in names if name != "mean"]
    return names if len(names) <= FEW else [name for name in names if name == summary["main"]]


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
