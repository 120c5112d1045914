"""One pair or one sequence of `hetmorph register`: files in, files out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
import numpy as np

from hetmorph import registration, viz
from hetmorph.cli import guidance
from hetmorph.cli.files import IMAGES, PICTURES, check_files, stored_type, summary, transform_endings
from hetmorph.cli.models import NETWORK, calibration_of, check_instance, described, find_model, load_model, optimised
from hetmorph.cli.options import AFFINE
from hetmorph.cli.outcome import Outcome, doubts_of_refinement, mean_line
from hetmorph.cli.phases import phase
from hetmorph.data import Pair
from hetmorph.evaluation import Predictor
from hetmorph.evaluation.checks import worst
from hetmorph.io import (
    FORMATS,
    Chain,
    DataError,
    Grid,
    Image,
    Inverse,
    Transform,
    itk,
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
from hetmorph.io.chain import SMALL, path_of
from hetmorph.registration import Alignment, Registration, linear_search, pair
from hetmorph.uncertainty import calibrated_estimates, estimate, estimate_names
from hetmorph.uncertainty.estimates import AT_ONCE

TRANSFORMS = ("transform", "inverse")
MAPS = ("uncertainty", "variance", "jacobian")
LINEAR = "affine_out"
RESULTS = ("moved", *TRANSFORMS, *MAPS, "labels_out", LINEAR)
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
    instance_similarity: str | None = None
    instance_of: str | None = None
    instance_window: int | None = None
    instance_lambda: float | None = None
    method: str = "equivariance"
    draws: int = 50
    seed: int = 0
    format: str | None = None
    reference: str | None = None
    inverse_tolerance: float = 1.0
    calibration: str | None = None
    affine: str = AFFINE[0]
    affine_start: str | None = None
    affine_metric: str | None = None
    points_weight: float | None = None
    points_frame: str = "LPS"

    @phase("model")
    def predictor(self, few: bool = False) -> Predictor:
        """Load the model.

        Args:
            few: as of `hetmorph.evaluation.load`.
        """
        model = load_model(find_model(self.model), self.passes, compiled=self.instance_of == NETWORK, few=few)
        return optimised(model, *self._instance)

    @property
    def _instance(self) -> tuple:
        of_loss = self.instance_window, self.instance_lambda
        return self.instance_optimise, *of_loss, self.instance_of, self.instance_similarity

    def judging(self):
        """The calibration to judge by, or None, and a line on it."""
        refined = self.instance_optimise is not None
        return calibration_of(self.calibration, find_model(self.model), self.passes, refined)

    def check(self) -> None:
        """Raise ValueError for what does not go together."""
        check_instance(*self._instance)
        names = [name for name in estimate_names() if name not in _NO_MILLIMETRES]
        if self.method not in names:
            raise ValueError(f"--method {self.method}: expected one of {', '.join(names)}")
        self._check_affine()
        if self.calibration and self.reference is not None:
            raise ValueError("--calibration is of pairs, not of a sequence")
        if self.calibration:
            self.judging()

    @property
    def aligns(self) -> bool:
        """Whether an affine stage comes before the model."""
        return self.affine != AFFINE[0]

    def _check_affine(self) -> None:
        if self.aligns and self.reference is not None:
            raise ValueError("--affine is of a pair, not of a sequence")
        for flag, value in (("--affine-start", self.affine_start), ("--affine-metric", self.affine_metric)):
            if value is not None and not self.aligns:
                raise ValueError(f"{flag} has no effect without --affine")
        if self.aligns:
            linear_search.package()


@dataclass
class Done:
    """What a job has done.

    Attributes:
        paths: the files written.
        outcomes: scores of the pair, or of each frame.
        verdict: on the pair; of a sequence that on its worst frame.
        doubts: sentences on what else looks wrong.
        seconds: time that registration and writing took.
        notes: further sentences.
        affine: what the affine stage found; None without one.
    """

    paths: list[Path] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    verdict: viz.Verdict | None = None
    doubts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    affine: Alignment | None = None

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        of_all = self.outcomes[0].lines() if len(self.outcomes) == 1 else [mean_line(self.outcomes)]
        verdict = self.verdict.flag if self.warned else f"{self.verdict.flag}: {self.verdict.reason}"
        return [
            *([] if self.affine is None else [str(self.affine)]),
            *of_all,
            *self.notes,
            f"verdict: {verdict}",
            f"took {self.seconds:.1f} s",
            *(f"wrote {path}" for path in self.paths),
        ]

    @property
    def warned(self) -> bool:
        """Whether the verdict is one to be warned of."""
        return self.verdict.flag != "accept"

    def warnings(self) -> list[str]:
        """What a user has to know even if nobody reads what was done."""
        return [*([f"{self.verdict.flag}: {self.verdict.reason}"] if self.warned else []), *self.doubts]


@dataclass(frozen=True)
class Job:
    """What to read and what to write.

    Attributes:
        moving: an image, or with `Settings.reference` the sequence.
        fixed: an image; None for a sequence.
        labels_moving, mask: label image of the moving image or reference frame; region of interest in the fixed image.
        outputs: paths by a name of `RESULTS`.
        curve: table of a sequence.
        report: page on a pair.
        labels_fixed: label image of the fixed image, for scores.
        initial: transform that the moving image of a pair goes through first, as `io.read_chain` takes it.
        field_convention: what the vectors of `initial` are, where it is an image of vectors that does not say.
        result_option: what the verb calls its one result, where it has one only.
        facts: further entries of the sidecars.
        mask_fixed, mask_moving: where an image counts in the affine stage and in the loss of an optimisation.
        points_fixed, points_moving: tables of the same points in either image.
    """

    moving: Path
    fixed: Path | None
    labels_moving: Path | None = None
    mask: Path | None = None
    outputs: Mapping[str, Path] = field(default_factory=dict)
    curve: Path | None = None
    report: Path | None = None
    labels_fixed: Path | None = None
    initial: str | None = None
    field_convention: str | None = None
    result_option: str | None = None
    facts: Mapping = field(default_factory=dict)
    mask_fixed: Path | None = None
    mask_moving: Path | None = None
    points_fixed: Path | None = None
    points_moving: Path | None = None

    @property
    def inputs(self) -> dict[str, Path]:
        names = ("moving", "fixed", "labels_moving", "mask", "labels_fixed", *self._guiding)
        named = {_option(name): getattr(self, name) for name in names}
        named["--initial"] = None if self.initial is None else path_of(self.initial)[0]
        return {option: path for option, path in named.items() if path is not None}

    @property
    def _guiding(self) -> dict[str, Path | None]:
        return {name: getattr(self, name) for name in (*guidance.MASKS, *guidance.POINTS)}

    def once(self, settings: Settings) -> bool:
        """Whether the model is asked for one registration alone, not for draws or frames too."""
        many = (self.report, settings.calibration, settings.reference)
        return "uncertainty" not in self.outputs and all(one is None for one in many)

    def written(self) -> list[Path]:
        return [*self.outputs.values(), *(path for path in (self.curve, self.report) if path)]

    def check(self, settings: Settings) -> None:
        """Raise ValueError for what is missing, in the way or does not go together."""
        settings.check()
        if (self.fixed is None) != (settings.reference is not None):
            raise ValueError("give either --fixed, or --reference for a sequence in --moving")
        other_use = self.labels_moving is not None and (self.curve or self.report or self.labels_fixed)
        if (self.labels_moving is None) != ("labels_out" not in self.outputs) and not other_use:
            raise ValueError("--labels-moving and --labels-out belong together")
        if self.curve and (settings.reference is None or self.labels_moving is None):
            raise ValueError("--curve needs a sequence (--reference) and --labels-moving, the labels of that frame")
        if self.initial and settings.reference is not None:
            raise ValueError("--initial is of a pair, not of a sequence")
        if self.field_convention and not self.initial:
            raise ValueError("--field-convention is of --initial, the only transform that is read")
        if self.initial and settings.affine_start:
            raise ValueError("--affine-start and --initial both say where the affine stage starts: give one")
        if LINEAR in self.outputs and not settings.aligns:
            raise ValueError("--affine-out has no effect without --affine")
        if self.report and settings.reference is not None:
            raise ValueError("--report is of a pair, not of a sequence")
        if self.labels_fixed and self.labels_moving is None:
            raise ValueError("--labels-fixed needs --labels-moving: the scores are of both")
        if self.labels_fixed and settings.reference is not None:
            raise ValueError("--labels-fixed is of a pair, not of a sequence")
        guidance.check_guidance(self._guiding, settings, "uncertainty" in self.outputs)
        endings = {name: IMAGES for name in MAPS} | {"moved": PICTURES, "labels_out": PICTURES}
        endings |= dict.fromkeys(TRANSFORMS, transform_endings(settings.format))
        endings[LINEAR] = FORMATS["itk"]
        outputs = {self.result_option or _option(name): (path, endings[name]) for name, path in self.outputs.items()}
        if self.curve:
            outputs["--curve"] = (self.curve, (".csv",))
        if self.report:
            outputs[self.result_option or "--report"] = (self.report, (".html",))
        check_files(self.inputs, outputs)

    def preview(self, settings: Settings, predictor: Predictor) -> list[str]:
        """Reads all and says what would be done."""
        read = self._read()
        moving, fixed = _example(read, settings)
        by_slice = pair.by_slice(moving, fixed, predictor.ndims)
        before = {"initial": None, "affine": None}
        if settings.reference is None:
            before = self._before(read, settings, self._initial(read, settings))
        found = before["affine"]
        initial = before["initial"] if found is None else found.initial
        _, grid, _ = pair.model_pair(moving, fixed, settings.spacing, read["mask"], by_slice, initial)
        if guiding := guidance.read_guidance(self._guiding, read, settings):
            guiding.on(grid, moving.trimmed(), fixed.trimmed(), initial, by_slice)
        how = "slice by slice, " if by_slice else ""
        seen = f"{' × '.join(map(str, grid.shape))} voxels of {' × '.join(f'{size:.4g}' for size in grid.spacing)} mm"
        lines = [summary(role, image) for role, image in read.items() if image is not None]
        if settings.reference is not None:
            lines.append(f"reference: frame {registration.reference_frame(read['moving'], settings.reference)}")
        lines += [described(find_model(settings.model)), f"the model sees {how}{seen}"]
        if found is not None:
            lines.append(str(found))
        return [*lines, *(f"would write {path}" for path in self._planned(read["moving"], settings))]

    @phase("registration")
    def run(self, settings: Settings, predictor: Predictor, command: Sequence[str]) -> Done:
        """Register and write."""
        about = provenance(command, find_model(settings.model), self._names(), settings=asdict(settings))
        about |= self.facts
        read, done, start = self._read(), Done(), time.perf_counter()
        calibration = self._calibration(settings, done.notes.append)
        estimate = self._estimate(settings, calibration)
        options = {"spacing": settings.spacing, "mask": read["mask"], "estimate": estimate}
        with doubts_of_refinement(done.doubts):
            if settings.reference is None:
                initial = self._initial(read, settings)
                about |= {} if initial is None else {"initial_understood": initial.understood}
                options |= self._before(read, settings, initial)
                done.affine = options["affine"]
                if done.affine is not None:
                    about["affine"] = done.affine.summary()
                options["guidance"] = guiding = guidance.read_guidance(self._guiding, read, settings)
                result = registration.register(read["moving"], read["fixed"], predictor, **options)
                entries, notes, doubts = guidance.landmarks(guiding, result, "mm" if read["fixed"].in_mm else "voxels")
                about |= entries
                done.notes += notes
                done.doubts += doubts
                transforms = {name: _transform(name, result, settings) for name in TRANSFORMS if name in self.outputs}
                done.outcomes.append(self._outcome(result, read, transforms.get("inverse")))
                case, checks = self._case(result, read), done.outcomes[0].checks
                maps = {} if result.map is None else {settings.method: result.map}
                if calibration is not None:
                    maps |= _calibrated(calibration, case, predictor, maps, settings)
                done.verdict = viz.verdict(case, maps, calibration, checks)
                about |= {"verdict": done.verdict.told(), "checks": checks.scores()}
                done.paths += self._write_pair(result, read, transforms, settings, about)
                if self.report:
                    self._write_report(result, case, settings, about, maps, calibration, checks)
            else:
                frame = registration.reference_frame(read["moving"], settings.reference)
                results = registration.register_sequence(read["moving"], frame, predictor, **options)
                results = _scored(results, read["moving"].frames(3), done.outcomes)
                done.paths += self._write_sequence(results, frame, read, settings, about, done)
        done.doubts += dict.fromkeys(doubt for outcome in done.outcomes for doubt in outcome.doubts())
        done.seconds = time.perf_counter() - start
        return done

    def _outcome(self, result: Registration, read: dict, inverse: Inverse | None) -> Outcome:
        """Scores of a pair, of its inverse too where one was asked for."""
        outcome = Outcome.of(result, *(read[role] for role in ("fixed", "labels", "labels of the fixed image")))
        return outcome if inverse is None else replace(outcome, checks=outcome.checks.with_inverse(inverse.worst))

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

    @phase("reading")
    def _read(self) -> dict[str, Image | None]:
        paths = {"moving": self.moving, "fixed": self.fixed, "labels": self.labels_moving, "mask": self.mask}
        paths |= {
            "labels of the fixed image": self.labels_fixed,
            **{name: getattr(self, name) for name in guidance.MASKS},
        }
        images = {role: None if path is None else read_image(path) for role, path in paths.items()}
        if fixed := images["fixed"]:
            images |= {role: image.with_axes_of(fixed) for role, image in images.items() if image is not None}
        return images

    def _initial(self, read: dict, settings: Settings) -> Transform | Chain | None:
        if self.initial is None:
            return None
        own = matched_grid(read["moving"], read["fixed"])
        grid, tolerance = read["fixed"].grid, settings.inverse_tolerance
        return read_chain([self.initial], grid, own, None, tolerance, self.field_convention)

    def _before(self, read: dict, settings: Settings, initial) -> dict:
        """What the moving image goes through before the model, as `registration.register` takes it."""
        if not settings.aligns:
            return {"initial": initial, "affine": None}
        chosen = {"start": settings.affine_start or "best", "metric": settings.affine_metric or "mi"}
        pair_of = (read["moving"], read["fixed"], settings.affine)
        masks = {"mask": read["mask_fixed"] or read["mask"], "mask_moving": read["mask_moving"]}
        return {"initial": None, "affine": registration.align(*pair_of, **chosen, **masks, initial=initial)}

    def _calibration(self, settings: Settings, say: Callable):
        """What judges the pair; the one beside the model only where a page shows the verdict."""
        if settings.reference is not None or (settings.calibration is None and self.report is None):
            return None
        calibration, told = settings.judging()
        if told:
            say(told)
        return calibration

    def _estimate(self, settings: Settings, calibration):
        if guidance.steering(self._guiding, settings):
            return None  # it would be of a registration without them
        known = calibration is not None and settings.method in calibration.combination.weights
        if "uncertainty" not in self.outputs and (self.report is None or known):
            return None
        return functools.partial(estimate, settings.method, n=settings.draws, seed=settings.seed, progress=False)

    def _write_pair(
        self, result: Registration, read: dict, transforms: Mapping, settings: Settings, about: dict
    ) -> list[Path]:
        moving, fixed, labels = read["moving"], read["fixed"], read["labels"]
        images = [name for name in self.outputs if name in _SAYS]
        arrays = {name: _result(name, result, moving, fixed, labels) for name in images}
        for name, transform in transforms.items():
            _write_transform(self.outputs[name], result, transform, settings.format, about)
        for name, (array, kind) in arrays.items():
            _write_image(self.outputs[name], array, fixed, kind, name, about)
        if LINEAR in self.outputs:
            _write_linear(self.outputs[LINEAR], result, about)
        return self.written()

    def _case(self, result: Registration, read: dict) -> Pair:
        """The pair as the model saw it, labels brought onto that grid."""
        roles = {"moving_labels": "labels", "fixed_labels": "labels of the fixed image"}
        labels = dict.fromkeys(roles)
        if self.labels_fixed:
            through = {"moving_labels": result.initial, "fixed_labels": None}
            labels = {
                name: _labels_on(result.grid, read[role], read["fixed"], through[name]) for name, role in roles.items()
            }
        name = stem_of(self.report or self.fixed)
        known = {"spacing": result.grid.spacing, "in_mm": read["fixed"].in_mm}
        return Pair(name, "", None, None, *result.seen, **labels, **known)

    @phase("writing")
    def _write_report(
        self, result: Registration, case: Pair, settings: Settings, about: dict, maps: Mapping, calibration, checks
    ) -> None:
        """The page of the pair."""
        values = [] if case.fixed_labels is None else np.unique(case.fixed_labels)
        names = {f"label_{value}": int(value) for value in values if value != 0}
        facts = {"model": settings.model, "command": " ".join(about["command"]), **self._names()}
        if result.affine is not None:
            facts["affine stage"] = str(result.affine)
        viz.case_report(
            case,
            result.prediction,
            self.report,
            maps=maps,
            calibration=calibration,
            labels=names,
            main=next(iter(names), None),
            affine=result.grid.affine if result.grid.ndim == 3 else None,
            about=facts,
            checks=checks,
        )

    def _write_sequence(self, results, frame: int, read: dict, settings: Settings, about: dict, done: Done) -> list:
        """Write the frames; `done` gets the verdict on the worst of them."""
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
                    path, transform = _numbered(self.outputs[name], number), _transform(name, result, settings)
                    told = about | {"verdict": _of_frame(done.outcomes[number]).told()}
                    paths.append(_write_transform(path, result, transform, settings.format, told))
            if labels is not None:
                transforms.append(result.transform)
                warped.append(arrays["labels_out"][-1] if "labels_out" in arrays else result.labels(labels, fixed))
        done.verdict = _of_frames(done.outcomes)
        about = about | {"verdict": done.verdict.told()}
        for name, parts in arrays.items():
            paths.append(_write_image(self.outputs[name], np.stack(parts, -1), sequence, kinds[name], name, about))
        if self.curve:
            paths += self._write_curve(transforms, warped, sequence, labels)
        return paths

    @phase("writing")
    def _write_curve(self, transforms: list[Transform], warped: list, sequence: Image, labels: Image) -> list[Path]:
        values = [int(value) for value in np.unique(labels.array) if value != 0]
        if not values:
            raise DataError(f"{labels.path}: holds no label, so there is no curve.")
        axis = pair.slice_axis(sequence.grid)
        rows = registration.curve(transforms, warped, sequence.spacing[3], values, axis)
        picture = self.curve.with_suffix(".png")
        return [registration.write_curve(self.curve, rows), registration.draw_curve(picture, rows, values)]


def _calibrated(calibration, case: Pair, predictor: Predictor, made: Mapping, settings: Settings) -> dict:
    """The maps that a calibration needs; one that was made with its options is not made again."""
    same = all(calibration.about.get(name) == getattr(settings, name) for name in ("draws", "seed"))
    estimates = calibrated_estimates(calibration, predictor)
    return {name: made[name] if same and name in made else of(case) for name, of in estimates.items()}


def _of_frame(outcome: Outcome) -> viz.Verdict:
    return viz.verdict(None, {}, None, outcome.checks)


def _of_frames(outcomes: Sequence[Outcome]) -> viz.Verdict:
    """The verdict on the first of the worst frames, which it names unless all are good."""
    verdicts = [_of_frame(outcome) for outcome in outcomes]
    flag = worst(one.flag for one in verdicts)
    frames = [number for number, one in enumerate(verdicts) if one.flag == flag]
    named = "" if flag == "accept" else f"Frame {frames[0]} (and {len(frames) - 1} more): "
    return replace(verdicts[frames[0]], reason=f"{named}{verdicts[frames[0]].reason}")


def _scored(results: Iterable[Registration], frames: Sequence[Image], outcomes: list) -> Iterator[Registration]:
    """The same results, whose scores are appended to `outcomes`."""
    for result, fixed in zip(results, frames, strict=True):
        outcomes.append(Outcome.of(result, fixed, None, None))
        yield result


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


@phase("writing")
def _write_image(path: Path, array: np.ndarray, like: Image | Grid, kind: np.dtype, name: str, about: dict) -> Path:
    says = _SAYS[name]
    write_image(path, array, like, kind, f"{name}, {says['unit']}")
    write_sidecar(path, {**about, "frame": "voxels and orientation of the fixed image", **says})
    return path


def _transform(name: str, result: Registration, settings: Settings) -> Transform | Inverse:
    """The transform, or the inverse unless it is off by more than allowed, with a word on how exact it is."""
    if name == "transform":
        return result.transform
    inverse = result.inverse()
    if inverse.worst > settings.inverse_tolerance:
        raise ValueError(
            f"{inverse}; expected at most --inverse-tolerance {settings.inverse_tolerance:g}: "
            "a transform that folds has no inverse"
        )
    click.echo(f"{'warning: ' if inverse.worst > SMALL else ''}{inverse}", err=inverse.worst > SMALL)
    return inverse


@phase("writing")
def _write_transform(
    path: Path, result: Registration, what: Transform | Inverse, format: str | None, about: dict
) -> Path:
    forth = isinstance(what, Transform)
    there = result.moving if forth else result.transform.grid
    between = ("fixed", "moving") if forth else ("moving", "fixed")
    way = f"points of the {between[0]} image to the {between[1]} one; images of the {between[1]} onto the {between[0]}"
    about = {**about, "takes": way} | ({} if forth else {"inverse": what.summary()})
    return write_transform(path, what if forth else what.transform, format, moving=there, provenance=about)


@phase("writing")
def _write_linear(path: Path, result: Registration, about: dict) -> Path:
    """What the affine stage found, by itself."""
    grid = result.transform.grid
    itk.write_linear(path, result.affine.linear.matrix, 2 if grid.in_xy_plane else 3)
    says = {"takes": "points of the fixed image to the moving one", "frame": "LPS", "unit": "mm"}
    write_sidecar(path, {**about, **says})
    return path


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
