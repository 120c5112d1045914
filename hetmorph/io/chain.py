"""Transforms one after the other, some of them backwards, and the inverse of all with what it misses."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hetmorph.io import itk
from hetmorph.io.atomic import suffix_of
from hetmorph.io.errors import DataError, DataWarning
from hetmorph.io.geometry import Grid, SupportsWorld, slabs
from hetmorph.io.transforms import ITK, NUMPY, Transform, read_transform
from hetmorph.transforms.inversion import preimages
from hetmorph.transforms.sampling import pull

SMALL = 0.1  # voxels; what an inverse is off by less is not worth a word
TOLERANCE = 1.0  # voxels; what is off by more is taken for no inverse
_BACKWARDS = re.compile(r"\[(?P<path>.+?)(?:\s*,\s*(?P<way>inverse|1|0))?\]")


@dataclass(frozen=True, eq=False)
class Linear:
    """A rigid or affine transform.

    Attributes:
        matrix: `(4, 4)`, RAS+ mm to RAS+ mm.
    """

    matrix: np.ndarray
    understood: str = "ITK transform, linear"

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places `[…, 3]` taken to places."""
        return places @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def inverse(self) -> Linear:
        """From the moving image to the fixed one."""
        return Linear(np.linalg.inv(self.matrix), self.understood)


class Inverted:
    """A transform backwards: from the moving image to the fixed one. Linear between voxels as the transform is.

    Args:
        transform: fixed to moving.
        tolerance: how far from a place the transform may take what was found for it, voxels of its grid.
    """

    def __init__(self, transform: Transform, tolerance: float = TOLERANCE):
        self.transform, self.grid, self.tolerance = transform, transform.grid, tolerance
        self.understood = transform.understood
        self._displacement = transform.displacement.astype(float)

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places `[…, 3]` taken to places."""
        return self.search(places)[0]

    def search(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places `[…, 3]` taken to places, and how far from each of them the transform takes what was found.

        Returns:
            `[…, 3]`, and `[2, P]` in voxels and in mm; the latter 0 where the former is not worth a word.
        """
        index = self.grid.index(places)
        points, residual = preimages(self._displacement, index)
        missed = np.stack([residual, np.zeros_like(residual)])
        told = residual > SMALL
        error = points[told] + pull(self._displacement, points[told]) - index[told]
        missed[1, told] = np.linalg.norm(error @ self.grid.linear.T, axis=-1)
        return places + (points - index) @ self.grid.linear.T, missed.reshape(2, -1)

    def inverse(self) -> Transform:
        """The transform itself."""
        return self.transform

    def check(self, missed: np.ndarray) -> None:
        """Warn of what is missed, `[2, P]` of `search`; ValueError if it is more than the tolerance."""
        worst, worst_mm = missed.max(-1, initial=0.0)
        if worst <= min(SMALL, self.tolerance):
            return
        share = 100 * float((missed[0] > SMALL).mean())
        text = (
            f"the inverse is wrong by up to {worst:.2g} voxels ({worst_mm:.2g} mm), at {share:.2g} % of the points by "
            f"more than {SMALL} voxels; where a transform folds, it has none"
        )
        if worst > self.tolerance:
            raise ValueError(f"{text}; expected at most {self.tolerance:g}, the inverse tolerance")
        warnings.warn(text, DataWarning, stacklevel=5)


class Chain:
    """Transforms in the order in which points of the fixed image go through them; images come back the other way.

    Args:
        links: the first starts from the fixed image, the last arrives in the moving one.
        grid: grid of the fixed image.
    """

    def __init__(self, links: Sequence[SupportsWorld], grid: Grid):
        self.links = [part for link in links for part in (link.links if isinstance(link, Chain) else [link])]
        self.grid = grid

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places in the moving image of places `[…, 3]` in the fixed one, both RAS+ mm.

        Raises:
            ValueError: an inverse is wrong by more than its tolerance at one of the places.
        """
        places, missed = self.through(np.asarray(places, float))
        self._check([missed])
        return places

    @cached_property
    def transform(self) -> Transform:
        """All of it as one displacement on the grid; errors as `world`."""
        transform, missed = self.evaluated()
        self._check(missed)
        return transform

    def evaluated(self) -> tuple[Transform, list[list[np.ndarray]]]:
        """As `transform`, and what each of the inverses misses in one part of the grid after another."""
        parts, missed = [], []
        for index, _ in slabs(self.grid.shape):
            places, missed_here = self.through(self.grid.world(index))
            missed.append(missed_here)
            parts.append((self.grid.index(places) - index).astype(np.float32))
        return Transform(np.concatenate(parts), self.grid), missed

    @property
    def understood(self) -> str:
        """How the files of the links were understood."""
        return ", then ".join(link.understood for link in self.links)

    def inverse(self, grid: Grid) -> Chain:
        """The links backwards, the last one first, on the grid of the moving image."""
        return Chain([_backwards(link) for link in reversed(self.links)], grid)

    def through(self, places: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """As `world`, and what each of the inverses misses instead of a word on it."""
        missed = []
        for link in self.links:
            if isinstance(link, Inverted):
                places, missed_here = link.search(places)
                missed.append(missed_here)
            else:
                places = link.world(places)
        return places, missed

    def _check(self, missed: Sequence[Sequence[np.ndarray]]) -> None:
        """What was missed in one part after another, by each of the inverses."""
        inverses = [link for link in self.links if isinstance(link, Inverted)]
        for link, parts in zip(inverses, zip(*missed, strict=True), strict=True):
            link.check(np.concatenate(parts, -1))


def read_chain(
    words: Sequence[str | Path],
    fixed: Grid | None = None,
    moving: Grid | None = None,
    format: str | None = None,
    inverse_tolerance: float = TOLERANCE,
    field_convention: str | None = None,
) -> Chain | Transform:
    """Reads transforms that follow each other.

    Args:
        words: paths, in the order in which points of the fixed image go through them: as ANTs has it, images go through
            the last first. `[path,inverse]` is the inverse of the transform in the file.
        fixed: grid of the fixed image; None: that of the first file, if it has one and is not inverted.
        moving, format: as `read_transform`, of the only transform; several in voxels are between images of one grid.
        inverse_tolerance: how much an inverse may be wrong by, voxels of the transform that is inverted.
        field_convention: as `read_transform`, of every image of vectors among them.

    Returns:
        A `Transform` for a single displacement, else a `Chain`.

    Raises:
        DataError: as `read_transform`, or no `fixed` where it is needed.
    """
    paths = [path_of(word) for word in words]
    if len(paths) == 1 and not paths[0][1] and _linear(paths[0][0]) is None:
        return read_transform(paths[0][0], fixed, moving, format, field_convention)
    links = [_link(*path, fixed, format, inverse_tolerance, field_convention) for path in paths]
    grid = links[0].grid if fixed is None and isinstance(links[0], Transform) else fixed
    if grid is None:
        raise DataError(f"{words[0]}: does not say on which grid the results shall lie; give the fixed image.")
    return Chain(links, grid)


def path_of(word: str | Path) -> tuple[Path, bool]:
    """The path of `path`, `[path]`, `[path,inverse]` or ANTs' `[path,1]`, and whether the inverse is meant."""
    match = _BACKWARDS.fullmatch(str(word))
    return (Path(match["path"]), match["way"] in ("inverse", "1")) if match else (Path(word), False)


def _link(
    path: Path, backwards: bool, fixed: Grid | None, format: str | None, tolerance: float, convention: str | None
) -> SupportsWorld:
    """A transform on its own grid, so that it is asked only where it is known."""
    matrix = _linear(path)
    if matrix is not None:
        return Linear(matrix).inverse() if backwards else Linear(matrix)
    if suffix_of(path) in ITK and path.is_file():
        transform = read_transform(path, None if itk.has_grid(path) else fixed)
    else:
        transform = read_transform(path, fixed if suffix_of(path) in NUMPY else None, None, format, convention)
    return Inverted(transform, tolerance) if backwards else transform


def _linear(path: Path) -> np.ndarray | None:
    """The matrix of a file with a rigid or affine transform; None for others."""
    return itk.read_linear(path) if suffix_of(path) in ITK and path.is_file() else None


def _backwards(link: SupportsWorld) -> SupportsWorld:
    """Linear ones by their matrix, displacements point by point."""
    return Inverted(link) if isinstance(link, Transform) else link.inverse()


@dataclass(frozen=True, eq=False)
class Inverse:
    """Where each point of the moving image lies in the fixed one.

    Attributes:
        transform: on the grid of the moving image, to the fixed one.
        residual: `[*S]` how far from a voxel of the moving image the forward transform leads from where this one leads
            from there, voxels of the fixed image. Of one that was searched for it is 0 up to rounding, unless the
            forward transform folds.
        searched: whether each voxel was searched for; else the model has said where it lies.
    """

    transform: Transform
    residual: np.ndarray
    searched: bool = True

    @property
    def worst(self) -> float:
        """The largest residual, voxels of the fixed image."""
        return float(self.residual.max())

    def summary(self) -> dict:
        """Largest residual and the share of voxels above 0.1 and 1, for the sidecar of the file."""
        return {
            "source": "a search for each voxel" if self.searched else "the model",
            "residual_max_voxels": self.worst,
            "share_above_0.1_voxels": float((self.residual > SMALL).mean()),
            "share_above_1_voxel": float((self.residual > 1).mean()),
        }

    def __str__(self) -> str:
        if self.worst <= SMALL:
            whose = "" if self.searched else " of the model itself"
            return f"inverse{whose}: residual at most {self.worst:.1g} voxels"
        share = 100 * (self.residual > SMALL).mean()
        return f"inverse: residual up to {self.worst:.2g} voxels, above {SMALL} in {share:.2g} % of the voxels"


def inverse(transform: Transform | Chain, moving: Grid) -> Inverse:
    """The inverse of a transform, on the grid of the moving image.

    Every voxel of the moving image is searched for in the fixed one, so that nothing is interpolated but the transform
    itself; of several that follow each other, through the last one first. Where one folds, one of the preimages is
    taken.

    Args:
        transform: fixed to moving.
        moving: grid of the moving image.

    Raises:
        ValueError: grids of different numbers of axes.

    Example:
        >>> back = inverse(read_transform("warp.nii.gz"), moving.grid)
        >>> write_transform("back.nii.gz", back.transform)
    """
    fixed = transform.grid
    if moving.ndim != fixed.ndim:
        raise ValueError(f"a {fixed.ndim}-D transform for a moving image {moving.shape}")
    back, _ = Chain([transform], fixed).inverse(moving).evaluated()
    return check_inverse(transform, back, searched=True)


def check_inverse(transform: Transform | Chain, back: Transform, searched: bool = False) -> Inverse:
    """A transform that is said to be an inverse, with what is left of it.

    Args:
        transform: fixed to moving.
        back: moving to fixed.
        searched: as `Inverse` has it.
    """
    forth, fixed, moving, residuals = Chain([transform], transform.grid), transform.grid, back.grid, []
    for index, rows in slabs(moving.shape):
        again, _ = forth.through(moving.world(index + back.displacement[rows]))
        residuals.append(np.linalg.norm(fixed.index(again) - fixed.index(moving.world(index)), axis=-1))
    return Inverse(back, np.concatenate(residuals), searched)
