"""One pair or one sequence of `hetmorph register`: files in, files out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hetmorph import registration
from hetmorph.cli import guidance
from hetmorph.cli.done import Done
from hetmorph.cli.files import IMAGES, PICTURES, check_files, option, read_images, refuse, summary, transform_endings
from hetmorph.cli.models import described, find_model
from hetmorph.cli.outcome import doubts_of_refinement
from hetmorph.cli.phases import phase
from hetmorph.cli.register_pair import before, register_pair
from hetmorph.cli.register_sequence import default_curve, planned, register_sequence
from hetmorph.cli.results import LINEAR, MAPS, RESULTS, TRANSFORMS
from hetmorph.cli.settings import Settings
from hetmorph.evaluation import Predictor
from hetmorph.io import FORMATS, Image, provenance
from hetmorph.io.chain import path_of
from hetmorph.registration import pair

__all__ = ["RESULTS", "Job", "Settings", "default_curve"]


@dataclass(frozen=True)
class Job:
    """What to read and what to write.

    Attributes:
        moving: an image, or with `Settings.reference` the sequence.
        fixed: an image; None for a sequence.
        labels_moving, mask: label image of the moving image or reference frame; region of interest in the fixed image.
        outputs: paths by a name of `results.RESULTS`.
        curve: table of a sequence.
        report: page on a pair.
        labels_fixed: label image of the fixed image, for scores, and with a `Settings.dice_weight` for the loss.
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
        """Files by their option."""
        names = ("moving", "fixed", "mask", *self.guiding)
        named = {option(name): getattr(self, name) for name in names}
        named["--initial"] = None if self.initial is None else path_of(self.initial)[0]
        return {flag: path for flag, path in named.items() if path is not None}

    @property
    def guiding(self) -> dict[str, Path | None]:
        """Masks of the loss, points and labels."""
        return {name: getattr(self, name) for name in (*guidance.MASKS, *guidance.POINTS, *guidance.LABELS)}

    def named(self) -> dict[str, str]:
        """The inputs as sidecars name them."""
        return {flag.lstrip("-"): str(path) for flag, path in self.inputs.items()}

    def once(self, settings: Settings) -> bool:
        """Whether the model is asked for one registration alone, not for draws or frames too."""
        many = (self.report, settings.calibration, settings.reference)
        return "uncertainty" not in self.outputs and all(one is None for one in many)

    def written(self) -> list[Path]:
        """Results of a pair."""
        return [*self.outputs.values(), *(path for path in (self.curve, self.report) if path)]

    def check(self, settings: Settings) -> None:
        """Raise ValueError for what is missing, in the way or does not go together."""
        settings.check()
        of_sequence, labels = settings.of_sequence, self.labels_moving
        other_use = labels and (self.curve or self.report or self.labels_fixed)
        alone = (labels is None) != ("labels_out" not in self.outputs) and not other_use
        no_curve = self.curve and not (of_sequence and labels)
        no_field, two_starts = self.field_convention and not self.initial, self.initial and settings.affine_start
        of_a_pair = {"--initial": self.initial, "--report": self.report, "--labels-fixed": self.labels_fixed}
        needs_pair = [flag for flag, given in of_a_pair.items() if given and of_sequence]
        refuse(
            {
                "give either --fixed, or --reference for a sequence in --moving": (self.fixed is None) != of_sequence,
                "--labels-moving and --labels-out belong together": alone,
                "--curve needs a sequence (--reference) and --labels-moving, the labels of that frame": no_curve,
                f"{''.join(needs_pair[:1])} is of a pair, not of a sequence": needs_pair,
                "--field-convention is of --initial, the only transform that is read": no_field,
                "--affine-start and --initial both say where the affine stage starts: give one": two_starts,
                "--affine-out has no effect without --affine": LINEAR in self.outputs and not settings.aligns,
                "--labels-fixed needs --labels-moving: the scores are of both": self.labels_fixed and not labels,
            }
        )
        guidance.check_guidance(self.guiding, settings, "uncertainty" in self.outputs)
        endings = {name: IMAGES for name in MAPS} | {"moved": PICTURES, "labels_out": PICTURES}
        endings |= dict.fromkeys(TRANSFORMS, transform_endings(settings.format)) | {LINEAR: FORMATS["itk"]}
        outputs = {self.result_option or option(name): (path, endings[name]) for name, path in self.outputs.items()}
        if self.curve:
            outputs["--curve"] = (self.curve, (".csv",))
        if self.report:
            outputs[self.result_option or "--report"] = (self.report, (".html",))
        check_files(self.inputs, outputs)

    def preview(self, settings: Settings, predictor: Predictor) -> list[str]:
        """Reads all and says what would be done."""
        read, initial, affine = self._read(), None, None
        lines = [summary(role, image) for role, image in read.items() if image is not None]
        if settings.of_sequence:
            frame, frames = registration.reference_frame(read["moving"], settings.reference), read["moving"].frames(3)
            moving, fixed, written = frames[frame], frames[0], planned(self, read["moving"])
            lines.append(f"reference: frame {frame}")
        else:
            moving, fixed, written = read["moving"], read["fixed"], self.written()
            initial, affine = before(self, read, settings)
            initial = initial if affine is None else affine.initial
        by_slice = pair.by_slice(moving, fixed, predictor.ndims)
        initial = pair.brought_near(moving, fixed, predictor, initial)
        told = guidance.intensities(read, settings)
        shown = registration.Intensities.for_model(predictor.modalities, told), predictor.resizes_to
        _, grid, _ = pair.model_pair(moving, fixed, settings.spacing, read["mask"], by_slice, initial, *shown)
        if guiding := guidance.read_guidance(self.guiding, read, settings):
            guiding.on(grid, moving.trimmed(), fixed.trimmed(), initial, by_slice)
        how = "slice by slice, " if by_slice else ""
        seen = f"{' × '.join(map(str, grid.shape))} voxels of {' × '.join(f'{size:.4g}' for size in grid.spacing)} mm"
        lines += [described(find_model(settings.model)), f"the model sees {how}{seen}"]
        lines += [] if affine is None else [str(affine)]
        return [*lines, *(f"would write {path}" for path in written)]

    @phase("registration")
    def run(self, settings: Settings, predictor: Predictor, command: Sequence[str]) -> Done:
        """Register and write."""
        about = provenance(command, find_model(settings.model), self.named(), settings=asdict(settings)) | self.facts
        read, done, start = self._read(), Done(), time.perf_counter()
        register = register_sequence if settings.of_sequence else register_pair
        with doubts_of_refinement(done.doubts):
            register(self, settings, predictor, read, about, done)
        done.doubts += dict.fromkeys(doubt for outcome in done.outcomes for doubt in outcome.doubts())
        done.seconds = time.perf_counter() - start
        return done

    @phase("reading")
    def _read(self) -> dict[str, Image | None]:
        paths = {"moving": self.moving, "fixed": self.fixed, "labels": self.labels_moving, "mask": self.mask}
        paths["labels of the fixed image"] = self.labels_fixed
        return read_images(paths | {name: getattr(self, name) for name in guidance.MASKS})
