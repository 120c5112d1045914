"""Overlap of warped labels during training."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from hetmorph.callbacks.checkpoint import save_atomically
from hetmorph.callbacks.sanity import SanityWarning
from hetmorph.metrics.overlap import dice
from hetmorph.ops.warp import warp

_VOXELS_TOGETHER = 16 * 128 * 128  # of the images that go through the model at once
_NOTICEABLE = 0.005  # a Dice below the undeformed one by less is no reason for a warning: labels are cut at one half


class _KeepsBest(keras.callbacks.Callback):
    """Keeps the model with the best score so far in a file; where a model warms one of two networks up first, as
    `HetVxmDense`, the best of those epochs only until both are trained.

    Args:
        path: where to save it; None saves none.
        best: score to beat, for a resumed run.
    """

    def __init__(self, path: str | Path | None, best: float):
        super().__init__()
        self.best_path, self.best, self._best_warming_up = path and Path(path), best, -1.0

    def _keep(self, score: float) -> None:
        # A model of the warm start has a network that nobody has trained yet: it is no rival of the later ones.
        name = "_best_warming_up" if getattr(self.model, "warming_up", False) else "best"
        better = score > getattr(self, name)
        setattr(self, name, max(score, getattr(self, name)))
        if better and self.best_path:
            save_atomically(self.model, self.best_path)


class ValidationDice(_KeepsBest):
    """After each epoch add `val_dice`, the mean Dice of one label over the validation pairs, to the logs.

    Labels are warped linearly and cut at one half, as in evaluation. Pairs that lack the label in either image do
    not count. Training starts with a line that says what the pairs score undeformed; each time the model falls below
    that, a `SanityWarning` says so. The best model so far is kept in a file; where a model warms one of two networks up
    first, as `HetVxmDense`, the best of those epochs only until both are trained.

    Args:
        pairs: samples with `moving`, `fixed`, `moving_labels`, `fixed_labels`, of one shape; each is read when it is
            needed.
        label: 2 is the myocardium in ACDC.
        best_path: where to save the best model; None saves none.
        best: score to beat, for a resumed run.
        name: what to call the label.

    Attributes:
        undeformed: mean Dice of the same pairs without registration.
    """

    def __init__(
        self,
        pairs: Sequence,
        label: int = 2,
        best_path: str | Path | None = None,
        best: float = -1.0,
        name: str | None = None,
    ):
        super().__init__(best_path, best)
        self.label, self.name = label, f"label {label}" if name is None else name
        before = [_undeformed(pair, label) for pair in pairs]
        self.pairs, self.used = pairs, [number for number, score in enumerate(before) if score is not None]
        if not self.used:
            raise ValueError(f"none of the {len(pairs)} validation pairs has label {label} in both images")
        self.undeformed = float(np.mean([before[number] for number in self.used]))
        self._below = False

    def on_train_begin(self, logs=None):
        print(f"validation Dice of {self.name}, undeformed: {self.undeformed:.4f} (mean of {len(self.used)} pairs)")

    def on_epoch_end(self, epoch, logs=None):
        score = self.after(epoch)
        if logs is not None:
            logs["val_dice"] = score
        self._keep(score)

    def after(self, epoch: int) -> float:
        """The score of the current model; a warning where it has fallen below that of the undeformed pairs.

        Args:
            epoch: that has ended, from 0.
        """
        score = self.score()
        self._compare(epoch, score)
        return score

    def score(self) -> float:
        """Mean Dice of the current model."""
        return float(np.mean([score for some in self._batches() for score in self._scores(some)]))

    def _batches(self) -> Iterator[list]:
        """The pairs that count, as many at once as go through the model together."""
        together = max(1, _VOXELS_TOGETHER // math.prod(self.pairs[self.used[0]].moving.shape))
        for first in range(0, len(self.used), together):
            yield [self.pairs[number] for number in self.used[first : first + together]]

    def _scores(self, pairs: list) -> list[float]:
        moving, fixed = (np.stack([getattr(pair, role) for pair in pairs])[..., None] for role in ("moving", "fixed"))
        labels = np.stack([pair.moving_labels == self.label for pair in pairs])[..., None].astype(np.float32)
        displacement = self.model.register(moving, fixed, batch_size=len(pairs))
        warped = warp(labels, displacement).numpy()[..., 0] >= 0.5
        return [dice(one, pair.fixed_labels == self.label) for one, pair in zip(warped, pairs, strict=True)]

    def _compare(self, epoch: int, score: float) -> None:
        """Warn when the model begins to be worse than none."""
        below = score < self.undeformed - _NOTICEABLE
        if below and not self._below:
            warnings.warn(
                f"after epoch {epoch + 1} the validation Dice of {self.name} is {score:.4f}, below that of the "
                f"undeformed pairs, {self.undeformed:.4f}: the images are moved apart. If it stays so: too high a "
                "learning rate, too weak a smoothness weight, or images of different contrast under mean squares",
                SanityWarning,
                stacklevel=2,
            )
        self._below = below


class JointValidationDice(_KeepsBest):
    """`ValidationDice` of several data sets: after each epoch `val_dice_<set>` of each, and `val_dice`, their mean.

    Each set counts alike, whatever its number of pairs, and each has a structure of its own.

    Args:
        sets: what scores each of them, by its name.
        best_path: where to save the model of the best mean so far; None saves none.
        best: mean to beat, for a resumed run.
    """

    def __init__(self, sets: Mapping[str, ValidationDice], best_path: str | Path | None = None, best: float = -1.0):
        super().__init__(best_path, best)
        if not sets:
            raise ValueError("expected a data set to validate on, received none")
        self.sets = dict(sets)

    def set_model(self, model):
        super().set_model(model)
        for one in self.sets.values():
            one.set_model(model)

    def on_train_begin(self, logs=None):
        for one in self.sets.values():
            one.on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        scores = {f"val_dice_{name}": one.after(epoch) for name, one in self.sets.items()}
        mean = float(np.mean([*scores.values()]))
        if logs is not None:
            logs.update(scores, val_dice=mean)
        self._keep(mean)


def _undeformed(pair, label: int) -> float | None:
    """Dice of a label before registration; None where an image lacks it."""
    both = [image == label for image in (pair.moving_labels, pair.fixed_labels) if image is not None]
    return dice(*both) if len(both) == 2 and all(mask.any() for mask in both) else None
