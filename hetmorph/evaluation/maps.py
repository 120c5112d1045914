"""What a map of uncertainty says about one pair, as columns of its row.

A map is anything with `std` `[*S]`, `valid` `[*S]`, `unit`, `std_mm(spacing)` and `seconds`, as
`hetmorph.uncertainty.UncertaintyMap` has them.
"""

import math

import numpy as np

from hetmorph.metrics.ranking import naurc, pearson, spearman

SIZE = ("mean", "mean_mm", "valid_share", "seconds")
TRUTH = ("pearson", "spearman", "naurc")


def map_columns(name: str, unit: str, truth: bool) -> tuple[str, ...]:
    """Names of the columns of one map: millimetres of a displacement only, agreement where the truth is known."""
    size = SIZE if unit == "voxels" else tuple(one for one in SIZE if not one.endswith("_mm"))
    return tuple(f"{name}_{column}" for column in (*size, *(TRUTH if truth else ())))


def map_scores(name: str, result, error: np.ndarray | None, mask: np.ndarray, spacing) -> dict[str, float]:
    """Size of a map, and how well it ranks the true error, over the voxels of a mask in which it is valid.

    Args:
        name: begins the columns.
        result: the map.
        error: `[*S]` length of the displacement's true error, voxels; None where it is not known.
        mask: `[*S]` booleans.
        spacing: millimetres per array axis.

    Returns:
        The columns of `map_columns`; NaN where no voxel is left.
    """
    region = mask & result.valid
    values = {"mean": _mean(result.std[region]), "valid_share": _mean(result.valid[mask]), "seconds": result.seconds}
    if result.unit == "voxels":
        values["mean_mm"] = _mean(result.std_mm(spacing)[region])
    if error is not None:
        values |= agreement(error, result.std, region)
    columns = map_columns(name, result.unit, error is not None)
    return {column: values[column.removeprefix(f"{name}_")] for column in columns}


def agreement(error: np.ndarray, std: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """Correlations of a map with the true error, and nAURC, over the voxels of a region."""
    error, std = error[region], std[region]
    scores = (metric(error, std) for metric in (pearson, spearman, naurc))
    return dict(zip(TRUTH, scores, strict=True))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else math.nan
