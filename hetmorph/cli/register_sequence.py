"""One sequence of `hetmorph register`: its reference frame onto each frame, judged, written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hetmorph import registration, viz
from hetmorph.cli import guidance
from hetmorph.cli.done import Done
from hetmorph.cli.outcome import Outcome
from hetmorph.cli.phases import phase
from hetmorph.cli.register_pair import estimate_for
from hetmorph.cli.results import TRANSFORMS, image_of, transform_of, write_map, write_way
from hetmorph.cli.settings import Settings
from hetmorph.evaluation import Predictor
from hetmorph.evaluation.checks import worst
from hetmorph.io import DataError, Image, Transform
from hetmorph.io.atomic import stem_of, suffix_of
from hetmorph.registration.pair import slice_axis


def register_sequence(job, settings: Settings, predictor: Predictor, read: Mapping, about: dict, done: Done) -> None:
    """Register a sequence, judge it and write what is asked for; the arguments are those of `register_pair`."""
    sequence, reference = read["moving"], registration.reference_frame(read["moving"], settings.reference)
    frames, labels = sequence.frames(3), _frame_labels(read["labels"], reference)
    estimate = estimate_for(job, settings)
    seen = settings.spacing, read["mask"], estimate, guidance.intensities(read, settings)
    results = registration.register_sequence(sequence, reference, predictor, *seen)
    made: dict[str, list] = {name: [] for name in job.outputs if name not in TRANSFORMS}
    kinds, transforms, warped = {}, [], []
    for number, (result, fixed) in enumerate(zip(results, frames, strict=True)):
        done.outcomes.append(Outcome.of(result, fixed))
        for name in made:
            array, kinds[name] = image_of(name, result, frames[reference], fixed, labels)
            made[name].append(array)
        told = about | {"verdict": _verdict(done.outcomes[-1]).told()}
        for name in (name for name in TRANSFORMS if name in job.outputs):
            way, path = transform_of(name, result, settings), numbered(job.outputs[name], number)
            done.paths.append(write_way(path, result, way, settings.format, told))
        if job.curve:
            transforms.append(result.transform)
            warped.append(made["labels_out"][-1] if "labels_out" in made else result.labels(labels, fixed))
    done.verdict = _worst(done.outcomes)
    about |= {"verdict": done.verdict.told()}
    for name, parts in made.items():
        done.paths.append(write_map(job.outputs[name], np.stack(parts, -1), sequence, kinds[name], name, about))
    if job.curve:
        done.paths += _write_curve(job.curve, transforms, warped, sequence, labels)


def default_curve(first: Path) -> Path:
    """Where the table of a sequence goes, beside its first result."""
    return first.with_name(f"{stem_of(first)}_curve.csv")


def numbered(path: Path, number: int) -> Path:
    """The path of what belongs to one frame."""
    return path.with_name(f"{stem_of(path)}_frame-{number:02d}{suffix_of(path)}")


def planned(job, sequence: Image) -> list[Path]:
    """What will be written: a transform for each frame, and everything else once."""
    ways = [job.outputs[name] for name in TRANSFORMS if name in job.outputs]
    others = [path for name, path in job.outputs.items() if name not in TRANSFORMS]
    curve = [job.curve, job.curve.with_suffix(".png")] if job.curve else []
    return [*(numbered(path, t) for path in ways for t in range(sequence.array.shape[-1])), *others, *curve]


def _frame_labels(labels: Image | None, frame: int) -> Image | None:
    return labels.frames(3)[frame] if labels is not None and labels.array.ndim == 4 else labels


def _verdict(outcome: Outcome) -> viz.Verdict:
    return viz.verdict(None, {}, None, outcome.checks)


def _worst(outcomes: Sequence[Outcome]) -> viz.Verdict:
    """The verdict on the first of the worst frames, which it names unless all are good."""
    verdicts = [_verdict(outcome) for outcome in outcomes]
    flag = worst(one.flag for one in verdicts)
    frames = [number for number, one in enumerate(verdicts) if one.flag == flag]
    named = "" if flag == "accept" else f"Frame {frames[0]} (and {len(frames) - 1} more): "
    return replace(verdicts[frames[0]], reason=f"{named}{verdicts[frames[0]].reason}")


@phase("writing")
def _write_curve(
    path: Path, transforms: list[Transform], warped: list[np.ndarray], sequence: Image, labels: Image
) -> list[Path]:
    values = [int(value) for value in np.unique(labels.array) if value != 0]
    if not values:
        raise DataError(f"{labels.path}: holds no label, so there is no curve.")
    rows = registration.curve(transforms, warped, sequence.spacing[3], values, slice_axis(sequence.grid))
    picture = path.with_suffix(".png")
    return [registration.write_curve(path, rows), registration.draw_curve(picture, rows, values)]
