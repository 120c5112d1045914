"""Transforms one after the other, some of them backwards: points through all, images interpolated once."""

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
from hetmorph.io.geometry import Grid, SupportsWorld, slabs
from hetmorph.io.images import DataError, DataWarning
from hetmorph.io.inverse import Inverse
from hetmorph.io.transforms import ITK, NUMPY, Transform, read_transform

_NOTED, _REFUSED = 0.1, 1.0  # voxels that an inverse may be wrong by
_BACKWARDS = re.compile(r"\[(?P<path>.+?)(?:\s*,\s*(?P<way>inverse|1|0))?\]")


@dataclass(frozen=True, eq=False)
class Linear:
    """A rigid or affine transform.

    Attributes:
        matrix: `(4, 4)`, RAS+ mm to RAS+ mm.
    """

    matrix: np.ndarray

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places `[P, 3]` taken to places."""
        return places @ self.matrix[:3, :3].T + self.matrix[:3, 3]


class Inverted:
    """A transform backwards: from the moving image to the fixed one. Linear between voxels as the transform is.

    Args:
        transform: fixed to moving.

    Attributes:
        residuals: of each call, how far from each place `[P]` the transform takes what was found, in voxels of its
            grid, and the same in mm.
    """

    def __init__(self, transform: Transform):
        self.grid, self.residuals = transform.grid, []
        self._inverse = Inverse(transform.displacement)

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places `[P, 3]` taken to places."""
        index = self.grid.index(places)
        points, errors = self._inverse(index)
        self.residuals.append(tuple(np.linalg.norm(e, axis=-1) for e in (errors, errors @ self.grid.linear.T)))
        return places + (points - index) @ self.grid.linear.T


class Chain:
    """Transforms in the order in which points of the fixed image go through them; images come back the other way.

    Args:
        links: the first starts from the fixed image, the last arrives in the moving one.
        grid: of the fixed image.
        inexact: take inverses whatever they are wrong by.
    """

    def __init__(self, links: Sequence[SupportsWorld], grid: Grid, inexact: bool = False):
        self.links, self.grid, self.inexact = list(links), grid, inexact

    def world(self, places: np.ndarray) -> np.ndarray:
        """Places in the moving image of places `[P, 3]` in the fixed one, both RAS+ mm.

        Raises:
            ValueError: an inverse is wrong by more than a voxel at one of the places.
        """
        places = self._through(np.asarray(places, float))
        self._check()
        return places

    @cached_property
    def transform(self) -> Transform:
        """All of it as one displacement on the grid; errors as `world`."""
        parts = []
        for index, _ in slabs(self.grid.shape):
            places = self._through(self.grid.world(index.reshape(-1, self.grid.ndim)))
            parts.append((self.grid.index(places).reshape(index.shape) - index).astype(np.float32))
        self._check()
        return Transform(np.concatenate(parts), self.grid)

    def _through(self, places: np.ndarray) -> np.ndarray:
        for link in self.links:
            places = link.world(places)
        return places

    def _check(self) -> None:
        for link in self.links:
            if isinstance(link, Inverted) and link.residuals:
                _check_residuals(link, self.inexact)


def inverse(transform: Transform, grid: Grid, inexact: bool = False) -> Transform:
    """From the moving image back to the fixed one.

    Args:
        transform: fixed to moving.
        grid: of the moving image.
        inexact: take it whatever it is wrong by.

    Returns:
        The inverse on `grid`. Where it is wrong by more than a tenth of a voxel, a `DataWarning` says so.

    Raises:
        ValueError: it is wrong by more than a voxel somewhere.
    """
    return Chain([Inverted(transform)], grid, inexact).transform


def read_chain(
    words: Sequence[str | Path],
    fixed: Grid | None = None,
    moving: Grid | None = None,
    format: str | None = None,
    inexact: bool = False,
) -> Chain | Transform:
    """Reads transforms that follow each other.

    Args:
        words: paths, in the order in which points of the fixed image go through them: as ANTs has it, images go through
            the last first. `[path,inverse]` is the inverse of the transform in the file.
        fixed: grid of the fixed image; None: that of the first file, if it has one and is not inverted.
        moving, format: as `read_transform`, of the only transform; several in voxels are between images of one grid.
        inexact: as of `Chain`.

    Returns:
        A `Transform` for a single displacement, else a `Chain`.

    Raises:
        DataError: as `read_transform`, or no `fixed` where it is needed.
    """
    paths = [path_of(word) for word in words]
    if len(paths) == 1 and not paths[0][1] and _linear(paths[0][0]) is None:
        return read_transform(paths[0][0], fixed, moving, format)
    links = [_link(path, backwards, fixed, format) for path, backwards in paths]
    grid = links[0].grid if fixed is None and isinstance(links[0], Transform) else fixed
    if grid is None:
        raise DataError(f"{words[0]}: does not say on which grid the results shall lie; give the fixed image.")
    return Chain(links, grid, inexact)


def path_of(word: str | Path) -> tuple[Path, bool]:
    """The path of `path`, `[path]`, `[path,inverse]` or ANTs' `[path,1]`, and whether the inverse is meant."""
    match = _BACKWARDS.fullmatch(str(word))
    return (Path(match["path"]), match["way"] in ("inverse", "1")) if match else (Path(word), False)


def _link(path: Path, backwards: bool, fixed: Grid | None, format: str | None) -> SupportsWorld:
    """A transform on its own grid, so that it is asked only where it is known."""
    matrix = _linear(path)
    if matrix is not None:
        return Linear(np.linalg.inv(matrix) if backwards else matrix)
    if suffix_of(path) in ITK and path.is_file():
        transform = Transform(*itk.read_transform(path, None if itk.has_grid(path) else fixed))
    else:
        transform = read_transform(path, fixed if suffix_of(path) in NUMPY else None, None, format)
    return Inverted(transform) if backwards else transform


def _linear(path: Path) -> np.ndarray | None:
    """The matrix of a file with a rigid or affine transform; None for others."""
    return itk.read_linear(path) if suffix_of(path) in ITK and path.is_file() else None


def _check_residuals(link: Inverted, inexact: bool) -> None:
    voxels, mm = (np.concatenate(parts) for parts in zip(*link.residuals, strict=True))
    link.residuals.clear()
    worst = voxels.max(initial=0.0)
    if worst <= _NOTED:
        return
    share = 100 * float((voxels > _NOTED).mean())
    text = (
        f"the inverse is wrong by up to {worst:.2g} voxels ({mm.max():.2g} mm), at {share:.2g} % of the points by more "
        f"than {_NOTED} voxels; where a transform folds, it has none"
    )
    if worst > _REFUSED and not inexact:
        raise ValueError(f"{text}; take it all the same with --inexact")
    warnings.warn(text, DataWarning, stacklevel=4)
