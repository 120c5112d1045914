"""Overlap of warped labels during training."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from hetmorph.callbacks.checkpoint import save_atomically
from hetmorph.metrics.overlap import dice
from hetmorph.ops.warp import warp


class ValidationDice(keras.callbacks.Callback):
    """After each epoch add `val_dice`, the mean Dice of one label over the validation pairs, to the logs.

    Labels are warped linearly and cut at one half, as in evaluation. Pairs that lack the label in either image do
    not count. The best model so far is kept in a file.

    Args:
        pairs: samples with `moving`, `fixed`, `moving_labels`, `fixed_labels`.
        label: 2 is the myocardium in ACDC.
        best_path: where to save the best model; None saves none.
        best: score to beat, for a resumed run.
    """

    def __init__(self, pairs: Sequence, label: int = 2, best_path: str | Path | None = None, best: float = -1.0):
        super().__init__()
        used = [p for p in pairs if _has_label(p, label)]
        if not used:
            raise ValueError(f"none of the {len(pairs)} validation pairs has label {label} in both images")
        self.moving = np.stack([p.moving for p in used])[..., None]
        self.fixed = np.stack([p.fixed for p in used])[..., None]
        self.labels = np.stack([p.moving_labels == label for p in used])[..., None].astype(np.float32)
        self.truth = np.stack([p.fixed_labels == label for p in used])
        self.best_path, self.best = best_path and Path(best_path), best

    def on_epoch_end(self, epoch, logs=None):
        score = self.score()
        if logs is not None:
            logs["val_dice"] = score
        if score > self.best:
            self.best = score
            if self.best_path:
                save_atomically(self.model, self.best_path)

    def score(self) -> float:
        """Mean Dice of the current model."""
        displacement = self.model.register(self.moving, self.fixed, batch_size=16)
        warped = warp(self.labels, displacement).numpy()[..., 0] >= 0.5
        return float(np.mean([dice(a, b) for a, b in zip(warped, self.truth, strict=True)]))


def _has_label(pair, label: int) -> bool:
    both = (pair.moving_labels, pair.fixed_labels)
    return all(image is not None and (image == label).any() for image in both)
