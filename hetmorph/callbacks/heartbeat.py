"""A sign of life while a training computes, where nothing else would be written for minutes."""

import threading
import time

import keras
import numpy as np


class Heartbeat(keras.callbacks.Callback):
    """Say what the training is doing: that a step is being compiled, and from time to time step and loss.

    The first step of a graph is traced and compiled, for minutes where images are volumes, and a step of a volume may
    take minutes itself; Keras writes nothing meanwhile, and into a file one line an epoch. Enter it as a context, so
    that it falls silent with the training however that ends.

    Args:
        interval: seconds between two lines.
        steps: whether to tell of steps too; False where Keras draws its bar, which shows them.

    Example:
        >>> with Heartbeat() as heartbeat:
        ...     model.fit(batches, epochs=30, callbacks=[heartbeat])
    """

    def __init__(self, interval: float = 30.0, steps: bool = True):
        super().__init__()
        self.interval, self.steps = interval, steps
        self._over, self._thread = threading.Event(), None
        self._graph, self._compiling, self._since = None, False, 0.0
        self._place, self._loss = "", None

    def __enter__(self):
        self._over.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        self._place = self._where(batch + 1)
        graph = getattr(self.model, "train_function", None)
        if graph is not self._graph or not batch and graph is None:
            self._graph, self._compiling, self._since = graph, True, time.monotonic()
            self._say(f"{self._place}: the training step is traced and compiled; of volumes that takes minutes")

    def on_train_batch_end(self, batch, logs=None):
        self._loss = (logs or {}).get("loss")
        if self._compiling:
            self._compiling = False
            self._say(f"{self.status()}; compiled and done after {time.monotonic() - self._since:.0f} s")

    def status(self) -> str:
        """Where the training is, in one line."""
        if self._compiling:
            return f"{self._place}: still compiling, {time.monotonic() - self._since:.0f} s"
        return self._place if self._loss is None else f"{self._place}: loss {float(np.asarray(self._loss)):.4g}"

    def _where(self, step: int) -> str:
        epochs, steps = (self.params.get(name) for name in ("epochs", "steps"))
        return " ".join(
            f"{what} {number}" + (f"/{last}" if last else "")
            for what, number, last in (("epoch", self._epoch, epochs), ("step", step, steps))
        )

    def _beat(self) -> None:
        while not self._over.wait(self.interval):
            if self._place and (self.steps or self._compiling):
                self._say(self.status())

    def _say(self, line: str) -> None:
        print(line, flush=True)
