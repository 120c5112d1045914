"""One pair or one sequence of `hetmorph register`: files in, files out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from hetmorph import registration, viz
from hetmorph.cli.files import IMAGES, PICTURES, check_files, stored_type, summary, transform_endings
from hetmorph.cli.models import check_instance, find_model, load_model, optimised
from hetmorph.data import Pair
from hetmorph.evaluation import Predictor
from hetmorph.io import (
    Chain,
    DataError,
    Grid,
    Image,
    Transform,
    matched_grid,
    provenance,
    read_chain,
    read_image,
    resample,
    write_image,
    write_sidecar,
    write_transform,
)
from hetmorph.io.atomic import stem_of, suffix_of
from hetmorph.io.chain import path_of
from hetmorph.registration import Registration, pair
from hetmorph.uncertainty import estimate, estimate_names
from hetmorph.uncertainty.estimates import AT_ONCE

TRANSFORMS = ("transform", "inverse")
MAPS = ("uncertainty", "variance", "jacobian")
RESULTS = ("moved", *TRANSFORMS, *MAPS, "labels_out")
_NO_MILLIMETRES = (*AT_ONCE, "ensemble")
_SAYS = {
    "moved": {"what": "moving image on the grid of the fixed one", "unit": "intensity of the moving image"},
    "uncertainty": {"what": "standard deviation of the displacement, NaN where not known", "unit": "mm"},
    "variance": {"what": "variance of the noise of the fixed image", "unit": "squared intensity, images in 0 … 1"},
    "jacobian": {"what": "volume in the moving image per volume in the fixed one, folds <= 0", "unit": "1"},
    "labels_out": {"what": "labels of the moving image on the grid of the fixed one", "unit": "label"},
}


@dataclass(frozen=True)
class Settings:
    """What decides a result beside the images."""

    model: str
    passes: int = 1
    spacing: float | None = None
    instance_optimise: int | None = None
    instance_window: int | None = None
    instance_lambda: float | None = None
    method: str = "equivariance"
    draws: int = 50
    seed: int = 0
    format: str | None = None
    reference: str | None = None

    def predictor(self) -> Predictor:
        """Load the model."""
        model = load_model(find_model(self.model), self.passes)
        return optimised(model, self.instance_optimise, self.instance_window, self.instance_lambda)

    def check(self) -> None:
        """Raise ValueError for what does not go together."""
        check_instance(self.instance_optimise, self.instance_window, self.instance_lambda)
        names = [name for name in estimate_names() if name not in _NO_MILLIMETRES]
        if self.method not in names:
            raise ValueError(f"--method {self.method}: expected one of {', '.join(names)}")


@dataclass(frozen=True)
class Job:
    """What to read and what to write.

    Attributes:
        moving: an image, or with `Settings.reference` the sequence.
        fixed: an image; None for a sequence.
        labels, mask: of the moving image or reference frame, and of the fixed image.
        outputs: paths by a name of `RESULTS`.
        curve: table of a sequence.
        report: page on a pair.
        labels_fixed: of the fixed image, for the scores on that page.
        initial: of a pair, the transform that the moving image goes through first, as `io.read_chain` takes it.
    """

    moving: Path
    fixed: Path | None
    labels: Path | None = None
    mask: Path | None = None
    outputs: Mapping[str, Path] = field(default_factory=dict)
    curve: Path | None = None
    report: Path | None = None
    labels_fixed: Path | None = None
    initial: str | None = None

    @property
    def inputs(self) -> dict[str, Path]:
        named = {"--moving": self.moving, "--fixed": self.fixed, "--labels-moving": self.labels, "--mask": self.mask}
        named["--labels-fixed"] = self.labels_fixed
        named["--initial"] = None if self.initial is None else path_of(self.initial)[0]
        return {option: path for option, path in named.items() if path is not None}

    def written(self) -> list[Path]:
        return [*self.outputs.values(), *(path for path in (self.curve, self.report) if path)]

    def check(self, settings: Settings) -> None:
        """Raise ValueError for what is missing, in the way or does not go together."""
        settings.check()
        if (self.fixed is None) != (settings.reference is not None):
            raise ValueError("give either --fixed, or --reference for a sequence in --moving")
        other_use = self.labels is not None and (self.curve or self.report)
        if (self.labels is None) != ("labels_out" not in self.outputs) and not other_use:
            raise ValueError("--labels-moving and --labels-out belong together")
        if self.curve and (settings.reference is None or self.labels is None):
            raise ValueError("--curve needs a sequence (--reference) and --labels-moving, the labels of that frame")
        if self.initial and settings.reference is not None:
            raise ValueError("--initial is of a pair, not of a sequence")
        if self.report and settings.reference is not None:
            raise ValueError("--report is of a pair, not of a sequence")
        if self.labels_fixed and not (self.report and self.labels):
            raise ValueError("--labels-fixed is for --report, beside --labels-moving")
        endings = {name: IMAGES for name in MAPS} | {"moved": PICTURES, "labels_out": PICTURES}
        endings |= dict.fromkeys(TRANSFORMS, transform_endings(settings.format))
        outputs = {_option(name): (path, endings[name]) for name, path in self.outputs.items()}
        if self.curve:
            outputs["--curve"] = (self.curve, (".csv",))
        if self.report:
            outputs["--report"] = (self.report, (".html",))
        check_files(self.inputs, outputs)

    def preview(self, settings: Settings, predictor: Predictor) -> list[str]:
        """Reads all and says what would be done."""
        read = self._read()
        moving, fixed = _example(read, settings)
        by_slice = pair.by_slice(moving, fixed, predictor.ndims)
        initial = self._initial(read)
        _, grid, _ = pair.model_pair(moving, fixed, settings.spacing, read["mask"], by_slice, initial)
        how = "slice by slice, " if by_slice else ""
        seen = f"{' × '.join(map(str, grid.shape))} voxels of {' × '.join(f'{size:.4g}' for size in grid.spacing)} mm"
        lines = [summary(role, image) for role, image in read.items() if image is not None]
        if settings.reference is not None:
            lines.append(f"reference: frame {registration.reference_frame(read['moving'], settings.reference)}")
        lines.append(f"model: {find_model(settings.model)}, sees {how}{seen}")
        return [*lines, *(f"would write {path}" for path in self._planned(read["moving"], settings))]

    def run(self, settings: Settings, predictor: Predictor, command: Sequence[str]) -> list[Path]:
        """Register and write; the paths written."""
        about = provenance(command, find_model(settings.model), self._names(), settings=asdict(settings))
        read = self._read()
        options = {"spacing": settings.spacing, "mask": read["mask"], "estimate": self._estimate(settings)}
        if settings.reference is None:
            options["initial"] = self._initial(read)
            result = registration.register(read["moving"], read["fixed"], predictor, **options)
            return self._write_pair(result, read, settings, about)
        frame = registration.reference_frame(read["moving"], settings.reference)
        results = registration.register_sequence(read["moving"], frame, predictor, **options)
        return self._write_sequence(results, frame, read, settings, about)

    def _planned(self, moving: Image, settings: Settings) -> list[Path]:
        """What will be written; of a sequence, a transform for each frame."""
        if settings.reference is None:
            return self.written()
        frames = range(moving.array.shape[-1])
        numbered = [_numbered(self.outputs[name], t) for name in TRANSFORMS if name in self.outputs for t in frames]
        others = [path for name, path in self.outputs.items() if name not in TRANSFORMS]
        return [*numbered, *others, *([self.curve, self.curve.with_suffix(".png")] if self.curve else [])]

    def _names(self) -> dict[str, str]:
        return {option.lstrip("-"): str(path) for option, path in self.inputs.items()}

    def _read(self) -> dict[str, Image | None]:
        paths = {"moving": self.moving, "fixed": self.fixed, "labels": self.labels, "mask": self.mask}
        paths["labels of the fixed image"] = self.labels_fixed
        return {role: None if path is None else read_image(path) for role, path in paths.items()}

    def _initial(self, read: dict) -> Transform | Chain | None:
        if self.initial is None:
            return None
        own = matched_grid(read["moving"], read["fixed"])
        return read_chain([self.initial], read["fixed"].grid, own)

    def _estimate(self, settings: Settings):
        if "uncertainty" not in self.outputs and self.report is None:
            return None
        return functools.partial(estimate, settings.method, n=settings.draws, seed=settings.seed, progress=False)

    def _write_pair(self, result: Registration, read: dict, settings: Settings, about: dict) -> list[Path]:
        moving, fixed, labels = read["moving"], read["fixed"], read["labels"]
        maps = [name for name in self.outputs if name not in TRANSFORMS]
        arrays = {name: _result(name, result, moving, fixed, labels) for name in maps}
        for name in TRANSFORMS:
            if name in self.outputs:
                _write_transform(self.outputs[name], result, name, settings.format, about)
        for name, (array, kind) in arrays.items():
            _write_image(self.outputs[name], array, fixed, kind, name, about)
        if self.report:
            self._write_report(result, read, settings, about)
        return self.written()

    def _write_report(self, result: Registration, read: dict, settings: Settings, about: dict) -> None:
        """The page of the pair as the model saw it, labels brought onto that grid."""
        labels, values = {}, []
        if self.labels_fixed:
            roles = {"moving_labels": "labels", "fixed_labels": "labels of the fixed image"}
            through = {"moving_labels": result.initial, "fixed_labels": None}
            labels = {
                name: _labels_on(result.grid, read[role], read["fixed"], through[name]) for name, role in roles.items()
            }
            values = [int(value) for value in np.unique(labels["fixed_labels"]) if value != 0]
        names = {f"label_{value}": value for value in values}
        shown = dict.fromkeys(("moving_labels", "fixed_labels")) | labels
        case = Pair(stem_of(self.report), "", None, None, *result.seen, **shown, spacing=result.grid.spacing)
        facts = {"model": settings.model, "command": " ".join(about["command"]), **self._names()}
        viz.case_report(
            case,
            result.prediction,
            self.report,
            maps={} if result.map is None else {settings.method: result.map},
            labels=names,
            main=next(iter(names), None),
            affine=result.grid.affine if result.grid.ndim == 3 else None,
            about=facts,
        )

    def _write_sequence(self, results, frame: int, read: dict, settings: Settings, about: dict) -> list[Path]:
        sequence, labels = read["moving"], _frame_labels(read["labels"], frame)
        frames, paths, transforms, warped = sequence.frames(3), [], [], []
        arrays: dict[str, list] = {name: [] for name in self.outputs if name not in TRANSFORMS}
        kinds = {}
        for number, (result, fixed) in enumerate(zip(results, frames, strict=True)):
            for name in arrays:
                array, kinds[name] = _result(name, result, frames[frame], fixed, labels)
                arrays[name].append(array)
            for name in TRANSFORMS:
                if name in self.outputs:
                    path = _numbered(self.outputs[name], number)
                    paths.append(_write_transform(path, result, name, settings.format, about))
            if labels is not None:
                transforms.append(result.transform)
                warped.append(arrays["labels_out"][-1] if "labels_out" in arrays else result.labels(labels, fixed))
        for name, parts in arrays.items():
            paths.append(_write_image(self.outputs[name], np.stack(parts, -1), sequence, kinds[name], name, about))
        if self.curve:
            paths += self._write_curve(transforms, warped, sequence, labels)
        return paths

    def _write_curve(self, transforms: list[Transform], warped: list, sequence: Image, labels: Image) -> list[Path]:
        values = [int(value) for value in np.unique(labels.array) if value != 0]
        if not values:
            raise DataError(f"{labels.path}: holds no label, so there is no curve.")
        axis = pair.slice_axis(sequence.grid)
        rows = registration.curve(transforms, warped, sequence.spacing[3], values, axis)
        picture = self.curve.with_suffix(".png")
        return [registration.write_curve(self.curve, rows), registration.draw_curve(picture, rows, values)]


def _result(name: str, result: Registration, moving: Image, fixed: Image, labels: Image | None):
    """An array on the fixed grid, and the type to store it with."""
    if name == "moved":
        return result.moved, stored_type(moving.array)
    if name == "labels_out":
        return result.labels(labels, fixed), labels.array.dtype
    if name == "jacobian":
        return registration.jacobian(result.transform), np.dtype(np.float32)
    values = result.variance if name == "variance" else result.uncertainty_mm
    if values is None:
        raise ValueError("--variance needs a model with a variance network, such as HetVxmDense; this one has none")
    return values, np.dtype(np.float32)


def _write_image(path: Path, array: np.ndarray, like: Image | Grid, kind: np.dtype, name: str, about: dict) -> Path:
    says = _SAYS[name]
    write_image(path, array, like, kind, f"{name}, {says['unit']}")
    write_sidecar(path, {**about, "frame": "voxels and orientation of the fixed image", **says})
    return path


def _write_transform(path: Path, result: Registration, name: str, format: str | None, about: dict) -> Path:
    forth = name == "transform"
    transform = result.transform if forth else result.inverse()
    there = result.moving if forth else result.transform.grid
    between = ("fixed", "moving") if forth else ("moving", "fixed")
    way = f"points of the {between[0]} image to the {between[1]} one; images of the {between[1]} onto the {between[0]}"
    return write_transform(path, transform, format, moving=there, provenance={**about, "takes": way})


def _labels_on(grid: Grid, labels: Image, fixed: Image, through: Transform | Chain | None) -> np.ndarray:
    """Labels where the model saw them."""
    values = resample(labels.array, matched_grid(labels, fixed), grid, "nearest", through=through)
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)


def _frame_labels(labels: Image | None, frame: int) -> Image | None:
    return None if labels is None else (labels.frames(3)[frame] if labels.array.ndim == 4 else labels)


def _example(read: dict, settings: Settings) -> tuple[Image, Image]:
    """Moving and fixed image; of a sequence, its reference and first frame."""
    if settings.reference is None:
        return read["moving"], read["fixed"]
    frame, frames = registration.reference_frame(read["moving"], settings.reference), read["moving"].frames(3)
    return frames[frame], frames[0]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{stem_of(path)}_frame-{number:02d}{suffix_of(path)}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def default_curve(first: Path) -> Path:
    """Where the table of a sequence goes, beside its first result."""
    return first.with_name(f"{stem_of(first)}_curve.csv")
