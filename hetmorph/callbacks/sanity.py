"""Warnings for the ways in which a registration training fails without an error."""

import warnings

import keras
import numpy as np

from hetmorph.ops import fields


class SanityWarning(UserWarning):
    """Something about the training looks wrong."""


class SanityCheck(keras.callbacks.Callback):
    """Watch one batch of pairs during training and warn, each time once, when

    - images are not in [0, 1], have NaN or are constant;
    - the displacement is still about 0 after `patience` steps: nothing is learned;
    - more than `max_folds` percent of the voxels fold.

    Args:
        moving, fixed: a few pairs, `[B, *S, C]`, as they are fed to the model.
        patience: steps after which something must have moved, and between two looks at the folds.
        min_displacement: mean length in voxels below which nothing has moved.
        max_folds: percent of voxels with det J ≤ 0 that is tolerated.

    Example:
        >>> model.fit(pairs, callbacks=[SanityCheck(moving[:4], fixed[:4])])
    """

    def __init__(self, moving, fixed, patience: int = 200, min_displacement: float = 0.02, max_folds: float = 2.0):
        super().__init__()
        self.moving, self.fixed = np.asarray(moving, np.float32), np.asarray(fixed, np.float32)
        self.patience, self.min_displacement, self.max_folds = patience, min_displacement, max_folds
        self.steps, self.spoken = 0, set()

    def on_train_begin(self, logs=None):
        for role, images in (("moving", self.moving), ("fixed", self.fixed)):
            self._check_images(role, images)

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps % self.patience == 0 and not np.isnan(self.moving).any() and not np.isnan(self.fixed).any():
            displacement = self.model.register(self.moving, self.fixed)
            self._check_motion(displacement)
            self._check_folds(displacement)

    def _check_images(self, role: str, images: np.ndarray):
        if not np.isfinite(images).all():
            self._say(f"{role} nan", f"the {role} images have NaN or infinite voxels; every loss will be NaN")
        elif images.min() < 0 or images.max() > 1:
            low, high = images.min(), images.max()
            self._say(
                f"{role} range",
                f"the {role} images span [{low:.4g}, {high:.4g}] instead of [0, 1]; the balance of image loss and "
                "smoothness assumes [0, 1]: scale each image, e.g. by its minimum and maximum",
            )
        elif any(np.ptp(image) == 0 for image in images):
            self._say(f"{role} constant", f"some {role} images are constant: there is nothing to register in them")

    def _check_motion(self, displacement: np.ndarray):
        length = float(np.mean(fields.magnitude(displacement)))
        if not np.isfinite(length):
            self._say("nan", f"the displacement is NaN after {self.steps} steps; lower the learning rate")
        elif length < self.min_displacement:
            self._say(
                "still",
                f"after {self.steps} steps the mean displacement is {length:.2g} voxels: nothing is learned. Usual "
                "causes: too low a learning rate, too strong a smoothness weight, images not scaled to [0, 1]",
            )

    def _check_folds(self, displacement: np.ndarray):
        percent = 100 * float(np.mean(fields.jacobian_determinant(displacement).numpy() <= 0))
        if percent > self.max_folds:
            self._say(
                "folds",
                f"{percent:.1f} % of the voxels fold after {self.steps} steps (more than {self.max_folds} %); raise "
                "the smoothness weight or lower the learning rate",
            )

    def _say(self, topic: str, message: str):
        if topic not in self.spoken:
            self.spoken.add(topic)
            warnings.warn(message, SanityWarning, stacklevel=2)
