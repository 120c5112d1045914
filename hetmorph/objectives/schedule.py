"""Warm start of the two estimators."""

from enum import Enum


class Phase(Enum):
    """Which estimators a training step updates."""

    DISPLACEMENT = "displacement"
    VARIANCE = "variance"
    JOINT = "joint"


def warm_start_length(epochs: int, warm_start: int | None) -> int:
    """Length of each of the two warm-start phases; None takes the paper's share, 20 of 300 epochs.

    Args:
        epochs: number of epochs of the whole training.
        warm_start: length asked for, epochs.
    """
    return epochs * 20 // 300 if warm_start is None else warm_start


def phase(epoch: int, epochs: int, warm_start: int | None = None) -> Phase:
    """Phase of an epoch: N epochs displacement only, N epochs variance only, then both.

    A pure function, so that a resumed training continues in the right phase.

    Args:
        epoch: 0-based.
        epochs: total number of epochs.
        warm_start: N, or None for a fifteenth of all epochs as in the paper.
    """
    length = warm_start_length(epochs, warm_start)
    if epoch < length:
        return Phase.DISPLACEMENT
    return Phase.VARIANCE if epoch < 2 * length else Phase.JOINT
