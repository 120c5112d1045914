"""A training that ends by the clock."""

import math
import time
from collections.abc import Callable

import keras

DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "poly": lambda share: (1 - share) ** 0.9,
    "none": lambda share: 1.0,
}


class Deadline(keras.callbacks.LearningRateScheduler):
    """Let the learning rate decay over so many minutes, and end the training with the epoch that ends nearest to them.

    For a machine that is one's own for a time: how many steps it makes in it is known only afterwards. The rate is
    constant within an epoch; in the first one it is a tenth, as long as moments of the gradient are not known. The logs
    receive the `minutes` of training up to then, the time in which the step was compiled included.

    Args:
        minutes: how long the training lasts in all.
        rate: peak learning rate.
        decay: "cosine" to zero, "poly", (1 − part of the time)^0.9, or "none".
        before: minutes that a training which goes on has lasted already.

    Example:
        >>> model.fit(batches, epochs=10**6, steps_per_epoch=200, callbacks=[Deadline(minutes=10, rate=1e-3)])
    """

    def __init__(self, minutes: float, rate: float, decay: str = "cosine", before: float = 0.0):
        super().__init__(self._rate)
        self.minutes, self.rate, self.decay, self.before = minutes, rate, DECAYS[decay], before
        self._began = self._epoch_began = time.monotonic()

    def on_train_begin(self, logs=None):
        self._began = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_began = time.monotonic()
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["minutes"] = self.elapsed()
        of_epoch = (time.monotonic() - self._epoch_began) / 60
        if self.elapsed() + of_epoch / 2 > self.minutes:
            self.model.stop_training = True

    def elapsed(self) -> float:
        """Minutes of training so far."""
        return self.before + (time.monotonic() - self._began) / 60

    def _rate(self, epoch: int, rate: float = 0.0) -> float:
        share = min(self.elapsed() / self.minutes, 1.0)
        return self.rate * self.decay(share) * (1.0 if epoch else 0.1)
