"""What `hetmorph apply` does: files in, through a transform, files out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hetmorph import io
from hetmorph.cli.files import (
    PICTURES,
    POINTS,
    check_files,
    read_images,
    refuse,
    stored_type,
    summary,
    transform_inputs,
)


@dataclass(frozen=True)
class Application:
    """Paths and choices, as the options are called."""

    transform: tuple[str, ...]
    inverse_tolerance: float
    fixed: Path | None
    format: str | None
    field_convention: str | None
    moving: Path | None
    moved: Path | None
    interpolation: str
    fill_value: float
    labels: Path | None
    labels_out: Path | None
    nearest: bool
    points: Path | None
    points_out: Path | None
    points_frame: str

    def check(self) -> None:
        """Raise ValueError for what is missing, in the way or does not go together."""
        refuse(
            {
                "--labels and --labels-out belong together": (self.labels is None) != (self.labels_out is None),
                "--points and --points-out belong together": (self.points is None) != (self.points_out is None),
                "--moved needs --moving, the image to be moved": self.moved and not self.moving,
            }
        )
        endings = {"--moved": (self.moved, PICTURES), "--labels-out": (self.labels_out, PICTURES)}
        endings["--points-out"] = (self.points_out, POINTS)
        inputs = transform_inputs(self.transform)
        inputs |= {f"--{name}": getattr(self, name) for name in ("fixed", "moving", "labels", "points")}
        check_files(inputs, {option: pair for option, pair in endings.items() if pair[0] is not None})

    def preview(self) -> list[str]:
        """Reads all and says what would be done."""
        grid, lines = self._chain.grid, []
        lines += [summary(role, image) for role, image in self._images.items() if image is not None]
        order = ", then ".join(self.transform)
        lines.append(f"transform: {order}, {' × '.join(map(str, grid.shape))} voxels, fixed to moving")
        lines.append(f"understood as: {self._chain.understood}")
        if self.points is not None:
            count = len(io.read_points(self.points).coordinates)
            lines.append(f"points: {self.points}, {count} of the fixed image, {self.points_frame}")
        outputs = (self.moved, self.labels_out, self.points_out)
        return [*lines, *(f"would write {path}" for path in outputs if path is not None)]

    def run(self, command: Sequence[str]) -> list[Path]:
        """Do it; the paths written."""
        named = {name: getattr(self, name) for name in ("fixed", "moving", "labels", "points")}
        named["transform"] = ", then ".join(self.transform)
        inputs = {name: path for name, path in named.items() if path is not None}
        about = io.provenance(command, inputs=inputs, transform_understood=self._chain.understood)
        written = []
        if self.moved is not None:
            image = self._images["moving"]
            array = io.warp_image(
                self._transform, image.array, self._grid_of(image), self.interpolation, self.fill_value
            )
            written.append(io.write_image(self.moved, array, self._like_frames(image, array), stored_type(image.array)))
            io.write_sidecar(self.moved, about | {"what": "moving image on the grid of the fixed one"})
        if self.labels_out is not None:
            image, method = self._images["labels"], "nearest" if self.nearest else "linear"
            array = io.warp_labels(self._transform, image.array, self._grid_of(image), method)
            written.append(io.write_image(self.labels_out, array, self._like, image.array.dtype))
            io.write_sidecar(
                self.labels_out, about | {"what": "labels of the moving image on the grid of the fixed one"}
            )
        if self.points_out is not None:
            points, image = io.read_points(self.points), self._images["moving"]
            moving = None if image is None else self._grid_of(image)
            there = io.transform_points(self._chain, points.coordinates, self.points_frame, moving)
            written.append(io.write_points(self.points_out, points.moved_to(there)))
            what = {"what": "points of the fixed image in the moving one", "frame": self.points_frame}
            io.write_sidecar(self.points_out, about | what)
        return written

    @cached_property
    def _images(self) -> dict[str, io.Image | None]:
        return read_images({"fixed": self.fixed, "moving": self.moving, "labels": self.labels})

    @property
    def _transform(self) -> io.Transform:
        """On the grid of the results."""
        return self._chain.transform if isinstance(self._chain, io.Chain) else self._chain

    @cached_property
    def _chain(self) -> io.Chain | io.Transform:
        fixed, moving = self._images["fixed"], self._images["moving"] or self._images["labels"]
        grid = None if fixed is None else fixed.grid
        place = None if moving is None else self._place(moving)
        return io.read_chain(self.transform, grid, place, self.format, self.inverse_tolerance, self.field_convention)

    def _place(self, image: io.Image) -> io.Grid:
        fixed = self._images["fixed"]
        return image.grid if fixed is None else io.matched_grid(image, fixed)

    def _grid_of(self, image: io.Image) -> io.Grid:
        if not image.oriented and self._images["fixed"] is None:
            if image.grid.shape != self._chain.grid.shape:
                raise io.DataError(f"{image.path}: states no orientation; give --fixed, on whose voxels its own lie.")
            return self._chain.grid
        return self._place(image)

    def _like_frames(self, image: io.Image, array: np.ndarray) -> io.Image | io.Grid:
        """The grid of the results, and of a sequence its time."""
        if image.array.ndim < 4:
            return self._like
        fixed, grid = self._images["fixed"], self._chain.grid
        return replace(
            image,
            array=array,
            spacing=(*grid.spacing, image.spacing[3]),
            affine=grid.affine,
            codes=grid.codes,
            qform=None if fixed is None else fixed.qform,
            oriented=fixed is None or fixed.oriented,
        )

    @property
    def _like(self) -> io.Image | io.Grid:
        """Whose grid the results get."""
        return self._images["fixed"] or self._chain.grid
