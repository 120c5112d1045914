"""What a user knows of a pair beside the images, as files say it, brought to where the model sees the pair."""

from dataclasses import dataclass

import numpy as np

from hetmorph.evaluation import POINTS_WEIGHT, Guide
from hetmorph.io import Chain, DataError, Grid, Image, Transform, check_mask, matched_grid, resample


@dataclass(frozen=True, eq=False)
class Guidance:
    """Masks of the image loss, corresponding points and labels of a pair, each in the frame of its own image; and mass.

    Attributes:
        mask_fixed: not 0 where the fixed image counts, on its grid; None counts everywhere.
        mask_moving: the same of the moving image, on the grid of that; it is moved with the image.
        points_fixed: `[P, 3]` RAS+ mm, points of the fixed image; None for none.
        points_moving: `[P, 3]` RAS+ mm, where each of them lies in the moving image.
        points_weight: weight of their mean squared distance, mm², in the loss; 0: they are only measured.
        labels_fixed: structures of the fixed image, on any grid; None for none.
        labels_moving: the same of the moving image.
        dice_weight: weight of 1 − Dice of the structures that both have, in the loss; 0: they steer nothing.
        conserve_mass: multiply the moved image by how volumes change before it is compared. Of volumes in intensities
            that are proportional to density.
    """

    mask_fixed: Image | None = None
    mask_moving: Image | None = None
    points_fixed: np.ndarray | None = None
    points_moving: np.ndarray | None = None
    points_weight: float = POINTS_WEIGHT
    labels_fixed: Image | None = None
    labels_moving: Image | None = None
    dice_weight: float = 0.0
    conserve_mass: bool = False

    @property
    def steers(self) -> bool:
        """Whether a registration depends on it."""
        pulled = self.points_fixed is not None and self.points_weight > 0
        return bool(self.mask_fixed or self.mask_moving or pulled or self._of_labels or self.conserve_mass)

    @property
    def _of_labels(self) -> bool:
        return self.labels_fixed is not None and self.labels_moving is not None and self.dice_weight > 0

    def on(
        self, grid: Grid, moving: Image, fixed: Image, initial: Transform | Chain | None = None, slices: bool = False
    ) -> Guide:
        """The same on the voxels that a model sees.

        Args:
            grid: those voxels.
            moving, fixed: the images.
            initial: what the moving image goes through before the model sees it.
            slices: whether it sees slices along the last axis.

        Raises:
            DataError: a mask on another grid than its image, or in which nothing counts that the model sees; labels
                without a structure in common there.
            ValueError: points that do not belong together, or that no slice can bring together; mass that is to be
                conserved in slices.
        """
        masks = [
            None if mask is None else _mask_on(grid, mask, image, fixed, through)
            for mask, image, through in ((self.mask_fixed, fixed, None), (self.mask_moving, moving, initial))
        ]
        points = [None, None]
        if self.points_fixed is not None and self.points_weight > 0:
            points = [grid.index(self.points_fixed), grid.index(_before(self.points_moving, initial, fixed.grid))]
        labels = {}
        if self._of_labels:
            seen = labels_on(grid, self.labels_fixed, fixed), labels_on(grid, self.labels_moving, fixed, initial)
            if not np.intersect1d(*seen).any():
                paths = f"{self.labels_fixed.path} and {self.labels_moving.path}"
                raise DataError(f"{paths}: the labels have no structure in common where the model sees them.")
            labels = {"labels_fixed": seen[0], "labels_moving": seen[1], "dice_weight": self.dice_weight}
        volume = _volume(grid, initial) if self.conserve_mass else None
        guide = Guide(*masks, *points, self.points_weight, grid.spacing, **labels, volume=volume)
        if len(guide.masks) == 2 and not np.all(guide.masks, axis=0).any():
            paths = f"{self.mask_fixed.path} and {self.mask_moving.path}"
            raise DataError(f"{paths}: the masks have no voxel in common, so there is nothing to compare.")
        if slices:
            guide.slices(grid.shape[-1])  # says what cannot be
        return guide

    def distances(self, transform: Transform | Chain | None) -> np.ndarray:
        """The target registration error of each point, `[P]` mm: from φ(points_fixed) to points_moving.

        Args:
            transform: fixed to moving; None leaves the points where they are.
        """
        there = self.points_fixed if transform is None else transform.world(self.points_fixed)
        return np.linalg.norm(there - self.points_moving, axis=-1)


def labels_on(grid: Grid, labels: Image, fixed: Image, through: Transform | Chain | None = None) -> np.ndarray:
    """Labels of an image where the model sees them, `[*G]`; their grid may be another than the image's.

    Args:
        grid: the voxels that the model sees.
        labels: labels of the fixed or the moving image.
        fixed: the fixed image.
        through: what those of the moving image go through before the model sees them.
    """
    labels = labels.trimmed().with_axes_of(fixed)
    values = resample(labels.array, matched_grid(labels, fixed), grid, "nearest", through=through)
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)


def _mask_on(grid: Grid, mask: Image, image: Image, fixed: Image, through: Transform | Chain | None) -> np.ndarray:
    mask = mask.trimmed().with_axes_of(fixed)
    check_mask(mask, image)
    there = (mask.array != 0).astype(np.uint8)
    seen = resample(there, matched_grid(image, fixed), grid, "nearest", through=through) != 0
    if not seen.any():
        raise DataError(f"{mask.path}: nothing of the mask lies in what the model sees.")
    return seen


def _volume(grid: Grid, initial: Transform | Chain | None) -> np.ndarray:
    """Volume of the moving image in each voxel that the model sees, relative to that of the fixed one, `[*G]`."""
    return np.ones(grid.shape, np.float32) if initial is None else np.abs(Chain([initial], grid).transform.jacobian())


def _before(places: np.ndarray, initial: Transform | Chain | None, grid: Grid) -> np.ndarray:
    """Places that the initial transform takes to places of the moving image: there the model sees them."""
    return places if initial is None else Chain([initial], grid).inverse(grid).through(places)[0]
