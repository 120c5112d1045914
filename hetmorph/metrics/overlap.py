"""Overlap of two masks."""

import numpy as np

from hetmorph.metrics.masks import binary_pair


def dice(a, b) -> float:
    """Dice overlap 2|A∩B| / (|A| + |B|) of two binary masks.

    Two empty masks have no overlap to speak of: the result is NaN, so that a structure absent from a slice
    neither rewards nor punishes a mean (averages leave NaN out and report how many values they hold). One
    empty mask against a filled one is 0.

    Args:
        a: `[*S]`, False/True or 0/1.
        b: same shape.

    Returns:
        Between 0 and 1, or NaN when both masks are empty.

    Raises:
        ValueError: shapes differ, or a mask is not binary.

    Example:
        >>> dice([1, 1, 0, 0], [0, 1, 1, 0])
        0.5

    Reference:
        Dice, Ecology 1945, doi:10.2307/1932409.
    """
    a, b = binary_pair(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else float("nan")
