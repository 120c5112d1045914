"""What is known of a pair beside its images, on their voxels: where they count, what matches, what mass they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POINTS_WEIGHT = 0.01


@dataclass(frozen=True, eq=False)
class Guide:
    """Masks of the image loss, corresponding points, labels and volumes, for a predictor that optimises a pair.

    Attributes:
        mask_fixed: `[*S]`, not 0 where the fixed image counts; None counts everywhere.
        mask_moving: the same of the moving image, whose mask is moved with it.
        points_fixed: `[P, N]` voxels, of the fixed image; None for none.
        points_moving: `[P, N]` voxels, where each of them lies in the moving image.
        weight: weight of the mean squared distance between φ(points_fixed) and points_moving in the loss.
        spacing: length of a voxel along each axis, in the unit of the distance; None measures in voxels.
        labels_fixed: `[*S]` whole numbers, structures of the fixed image; None for none.
        labels_moving: the same of the moving image.
        dice_weight: weight of 1 − Dice of the structures in the loss.
        structures: values of the structures; None takes those that both images have.
        volume: `[*S]` of three axes, volume of the moving image that each voxel shows, relative to that of the fixed
            one. Given, intensities are densities, and the image that is moved conserves its mass while it is compared;
            None compares it as it is.

    Raises:
        ValueError: masks or labels of two shapes, labels of one image alone or without a structure in common, points
            that do not belong together, or volumes of a slice.
    """

    mask_fixed: np.ndarray | None = None
    mask_moving: np.ndarray | None = None
    points_fixed: np.ndarray | None = None
    points_moving: np.ndarray | None = None
    weight: float = POINTS_WEIGHT
    spacing: Sequence[float] | None = None
    labels_fixed: np.ndarray | None = None
    labels_moving: np.ndarray | None = None
    dice_weight: float = 0.0
    structures: Sequence[int] | None = None
    volume: np.ndarray | None = None

    def __post_init__(self) -> None:
        for what, arrays in (("masks", self.masks), ("labels", self.labels)):
            shapes = {np.shape(array) for array in arrays}
            if len(shapes) > 1:
                raise ValueError(f"expected {what} of one shape, received {' and '.join(map(str, sorted(shapes)))}")
        if len(self.labels) == 1:
            raise ValueError("expected labels of both images, received those of one")
        points = [None if p is None else np.shape(p) for p in (self.points_fixed, self.points_moving)]
        if points != [None, None] and (points[0] != points[1] or len(points[0]) != 2 or not points[0][0]):
            raise ValueError(f"expected as many points [P, N] of either image, received {points[0]} and {points[1]}")
        if not self.weight >= 0:
            raise ValueError(f"the weight of points must be 0 or more, received {self.weight}")
        if not self.dice_weight >= 0:
            raise ValueError(f"the weight of labels must be 0 or more, received {self.dice_weight}")
        if self.volume is not None and (np.ndim(self.volume) != 3 or min(np.shape(self.volume)) < 2):
            raise ValueError(f"mass is conserved in volumes of two slices or more, received {np.shape(self.volume)}")
        if self.labels and self.structures is None:
            object.__setattr__(self, "structures", self._shared())

    @property
    def masks(self) -> list[np.ndarray]:
        """The masks that there are."""
        return [mask for mask in (self.mask_fixed, self.mask_moving) if mask is not None]

    @property
    def labels(self) -> list[np.ndarray]:
        """The labels that there are, of the fixed and the moving image."""
        return [labels for labels in (self.labels_fixed, self.labels_moving) if labels is not None]

    def _shared(self) -> list[int]:
        shared = [int(value) for value in np.intersect1d(*self.labels) if value != 0]
        if not shared:
            raise ValueError("expected labels with a structure in common, received two without any")
        return shared

    @property
    def idle(self) -> bool:
        """Whether nothing of the images counts, and neither a point nor a structure pulls."""
        pulled = self.points_fixed is not None or bool(self.labels)
        return not pulled and bool(self.masks) and not np.all(self.masks, axis=0).any()

    def slices(self, count: int) -> list[Guide]:
        """The guides of slices along the last axis; a point belongs to the nearest of them.

        Args:
            count: slices that there are.

        Raises:
            ValueError: a point lies in none of the slices, or moves to another one; or mass is to be
                conserved, which leaves them.
        """
        if self.volume is not None:
            raise ValueError("mass is conserved by models of volumes; this one takes them slice by slice")
        at = None if self.points_fixed is None else self._slice_of_points(count)

        def one(z: int) -> Guide:
            masks = [None if mask is None else mask[..., z] for mask in (self.mask_fixed, self.mask_moving)]
            here = [None, None]
            if at is not None and (at == z).any():
                here = [points[at == z, :-1] for points in (self.points_fixed, self.points_moving)]
            spacing = None if self.spacing is None else self.spacing[:-1]
            labels = [None if labels is None else labels[..., z] for labels in (self.labels_fixed, self.labels_moving)]
            return Guide(*masks, *here, self.weight, spacing, *labels, self.dice_weight, self.structures)

        return [one(z) for z in range(count)]

    def _slice_of_points(self, count: int) -> np.ndarray:
        depth = np.stack([self.points_fixed[:, -1], self.points_moving[:, -1]])
        at = np.round(depth[0]).astype(int)
        for number, (z, there) in enumerate(zip(*depth, strict=True), start=1):
            if not -0.5 <= z <= count - 0.5:
                raise ValueError(f"point {number} lies at slice {z:.1f} of the fixed image, which has 0 to {count - 1}")
            if abs(z - there) > 0.5:
                raise ValueError(
                    f"point {number} lies at slice {z:.1f} of the fixed image and {there:.1f} of the moving one: "
                    "nothing moves across the slices of a 2-D model"
                )
        return at.clip(0, count - 1)
