"""Checkpoints from which a training continues as if it had never stopped."""

from pathlib import Path

import keras

from hetmorph.io import replacing


class Checkpoint(keras.callbacks.Callback):
    """After each epoch save the whole model (weights, optimisers, random state) as `<folder>/<epochs done>.keras`.

    The file appears under its name in one step, after everything else the epoch writes: a run killed at any moment
    has a whole checkpoint of its last finished epoch, or none.

    Args:
        folder: only the newest checkpoint is kept in it.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.folder = Path(folder)

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        save_atomically(self.model, self.folder / f"{done:05d}.keras")
        for path in self.folder.glob("*.keras"):
            if path.stem.isdigit() and int(path.stem) < done:
                path.unlink()


def save_atomically(model: keras.Model, path: Path) -> None:
    """Save a `.keras` file that is either whole or not there."""
    with replacing(path) as part:
        model.save(part)


def latest_checkpoint(folder: str | Path) -> tuple[Path, int] | None:
    """Newest checkpoint and the number of epochs done, or None.

    Args:
        folder: the one of `Checkpoint`; it may be missing.
    """
    numbered = [p for p in Path(folder).glob("*.keras") if p.stem.isdigit()]
    if not numbered:
        return None
    newest = max(numbered, key=lambda p: int(p.stem))
    return newest, int(newest.stem)
