"""Measure which registrations follow when their images are moved, and whose test-time uncertainty can be believed.

Both images are moved by whole voxels, alike ([U,U]) or each by itself ([W,U]), by up to so much of the image's size;
what the model then answers is compared with its own answer for the pair as it was, moved: mean distance over the
foreground, voxels, and of [W,U] in percent of |w - u|, which a model that does not see the motion is off by. Dice is
that of all labelled structures where the moving image alone is moved, by exactly so much of its size along one axis,
or turned about its middle by so many degrees. Images lie within zeros, so that nothing leaves the grid. --affine adds
Dice of each model after an affine stage, which looks for the motion by itself.

The uncertainty is the spread of the answers under translations of the moving image (docs/uncertainty.md). It is
compared with the error for images that are warped by known transforms: "blind" is a spread below a tenth of the error,
"no" one whose rank correlation with it is below 0.3.

Without --model, networks of random weights are compared, which see every image as their first batch; what their U-Nets
add is made about two voxels long.

Examples:
    python training/equivariance.py
    python training/equivariance.py --data acdc --data-dir ~/ACDC --model runs/carl/model.keras acdc_vxm_ncc
"""

import argparse
import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from hetmorph.cli.messages import exit_status, import_tensorflow  # noqa: E402, I001

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from hetmorph import config, data, evaluation, registration  # noqa: E402
from hetmorph.cli import options  # noqa: E402
from hetmorph.cli.models import find_model  # noqa: E402
from hetmorph.evaluation import known_truth  # noqa: E402
from hetmorph.evaluation.motions import departure, framed, overlap, shifted, turned  # noqa: E402
from hetmorph.io import DataWarning, Image  # noqa: E402
from hetmorph.io.chain import Linear  # noqa: E402
from hetmorph.networks.build import IDLE, MODELS, build  # noqa: E402
from hetmorph.uncertainty import equivariance_uncertainty  # noqa: E402
from hetmorph.viz.figures import save  # noqa: E402

RANDOM = ("vxm", "transmorph", "gradicon", "carl")
COARSEST = 16  # voxels of the image in one of the coarsest grid of VxmDense
LENGTH = 2.0  # of the displacements of random networks, voxels
SHARES, ANGLES = (0.05, 0.25), (30, 90)  # of the table: of the image's size, degrees
SHARES_DRAWN = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
ANGLES_DRAWN = (0, 15, 30, 45, 60, 90, 135, 180)
BLIND, RANKED = 0.1, 0.3


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[], metavar="FILE", help="trained models: files, folders, names")
    parser.add_argument("--random", nargs="*", metavar="ARCH", help=f"random ones (default, without --model: {RANDOM})")
    parser.add_argument("--width", type=float, default=0.25, help="of random networks of several steps (default: 0.25)")
    parser.add_argument("--data", default="phantom", help=f"data set: {', '.join(options.DATASETS)} (default: phantom)")
    parser.add_argument("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    parser.add_argument("--size", nargs="+", type=int, help="of the samples, voxels per axis (default: the set's own)")
    parser.add_argument("--pairs", type=int, default=2, help="pairs, of as many patients of the test part (default: 2)")
    parser.add_argument("--moves", type=int, default=3, help="translations of each kind and pair (default: 3)")
    parser.add_argument("--draws", type=int, default=20, help="registrations of a map of uncertainty (default: 20)")
    parser.add_argument("--kinds", nargs="+", default=["translation", "bspline"], choices=options.KINDS)
    parser.add_argument("--affine", choices=options.AFFINE, default="none", help="also after such a stage")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw Dice against the motion (.png, .svg)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and translations (default: 0)")
    args = parser.parse_args(argv)
    if min(args.pairs, args.moves) < 1 or args.draws < 2:
        parser.error("expected at least 1 of --pairs and --moves, and 2 of --draws")
    if unknown := {*(args.random or [])} - {*IDLE}:
        parser.error(f"expected --random of {', '.join(IDLE)}, received {', '.join(sorted(unknown))}")
    args.random = args.random if args.random is not None else [] if args.model else [*RANDOM]
    return args


def load_set(args: argparse.Namespace) -> data.LoadedSet:
    size = tuple(args.size) if args.size else None
    return data.load(args.data, data_dir=args.data_dir, split="test", size=size)


def first_pairs(pairs: Sequence[data.Pair], count: int) -> list[data.Pair]:
    """The middle pair of each of the first patients."""
    patients = {}
    for pair in pairs:
        patients.setdefault(pair.patient, []).append(pair)
    return [own[len(own) // 2] for own in [*patients.values()][:count]]


def random_model(arch: str, width: float, pair: data.Pair, seed: int) -> keras.Model:
    """A network whose weights are drawn, with the batch statistics of a pair and displacements of about `LENGTH`."""
    keras.utils.set_random_seed(seed)
    of_steps = arch not in MODELS
    network = {"arch": arch, **({"width": width} if of_steps else {})}
    settings = config.from_dict({"network": network, "objective": {"name": "gradicon" if of_steps else "mse"}})
    model = build(settings, (None,) * pair.moving.ndim)
    for norm in (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)):
        norm.momentum = 0.0  # the statistics of one batch are all it has
    model(_batch(pair), training=True)
    last = [weight for weight in model.trainable_variables if "_flow/kernel" in weight.path]
    without = _answer(model, last, pair, 0.0)
    for weight in last:
        weight.assign(keras.random.normal(weight.shape, seed=seed))
    factor = 1.0
    for _ in range(4):  # of several networks, and of velocities, the length is not proportional
        length = np.linalg.norm(_answer(model, last, pair, factor) - without, axis=-1).mean()
        factor = LENGTH / max(length, 1e-6)
    _answer(model, last, pair, factor)
    return model


def _answer(model: keras.Model, weights: Sequence, pair: data.Pair, factor: float) -> np.ndarray:
    """The displacement of a pair, after some weights were multiplied."""
    for weight in weights:
        weight.assign(weight * factor)
    return model.register(*_batch(pair))


def _batch(pair: data.Pair) -> list[np.ndarray]:
    return [image[None, ..., None] for image in (pair.moving, pair.fixed)]


def translations(rng: np.random.Generator, shape: Sequence[int], share: float, step: int = 1) -> np.ndarray:
    """One, whole multiples of `step` along each axis, not zero, up to a share of the image or one step."""
    most = np.maximum(np.asarray(shape) * share // step, 1).astype(int)
    while not (drawn := rng.integers(-most, most + 1)).any():
        pass
    return drawn * step


class Moved:
    """What a model answers for the moved images of some pairs.

    Args:
        predictor: the model.
        pairs: as they are.
        moves: translations of each kind and pair.
        seed: of the translations.
        align: what brings a moved image near before Dice is measured, if anything.
    """

    def __init__(self, predictor, pairs: Sequence[data.Pair], moves: int, seed: int, align=None):
        self.predictor, self.pairs, self.moves, self.seed, self.align = predictor, pairs, moves, seed, align
        margins = [int(np.ceil(max(SHARES_DRAWN) * max(pair.moving.shape))) for pair in pairs]
        self.framed = [framed(pair, margin + -margin % COARSEST) for pair, margin in zip(pairs, margins, strict=True)]

    @functools.cached_property
    def answers(self) -> list[np.ndarray]:
        """Displacements of the pairs as they are."""
        return [self.predictor(pair.moving, pair.fixed).displacement for pair in self.framed]

    def departure(self, share: float, step: int = 1, alike: bool = False) -> tuple[float, float]:
        """How far its answers are from its moved answers, and how long w - u is; means, voxels."""
        rng, found, lengths = np.random.default_rng(self.seed), [], []
        for own, pair, answer in zip(self.pairs, self.framed, self.answers, strict=True):
            for _ in range(self.moves):
                w, u = (translations(rng, own.moving.shape, share, step) for _ in range(2))
                w = u if alike else w
                found.append(departure(self.predictor, pair, w, u, answer))
                lengths.append(np.linalg.norm(w - u))
        return float(np.mean(found)), float(np.mean(lengths))

    def dice_shifted(self, share: float, structures: Sequence[int]) -> float:
        """Mean over the pairs, and over both directions of each axis; NaN where nothing is labelled."""

        def motions(pair: data.Pair) -> Iterator[Callable]:
            steps = np.round(share * np.diag(pair.moving.shape)).astype(int)
            for by in np.concatenate([steps, -steps]) if share else steps[:1]:
                yield functools.partial(shifted, by=by)

        return self._dice(motions, structures)

    def dice_turned(self, degrees: float, structures: Sequence[int]) -> float:
        """Mean over the pairs and both directions; NaN where nothing is labelled."""
        angles = (degrees, -degrees) if degrees % 180 else (degrees,)
        return self._dice(lambda _: [functools.partial(turned, degrees=angle) for angle in angles], structures)

    def _dice(self, motions: Callable[[data.Pair], Iterable[Callable]], structures: Sequence[int]) -> float:
        scores = [
            overlap(self.predictor, pair, motion, structures, self.align)
            for own, pair in zip(self.pairs, self.framed, strict=True)
            if pair.moving_labels is not None and pair.fixed_labels is not None
            for motion in motions(own)
        ]
        return _mean(scores)


def believed(predictor, pairs: Sequence[data.Pair], args: argparse.Namespace) -> Iterator[str]:
    """The cells of the error under known warps, of the spread, of their rank correlation, and the verdict."""
    rows = []
    for pair in pairs:
        for kind in args.kinds:
            known = evaluation.known_pair(pair, kind, args.seed)
            maps = {
                "spread": lambda pair: equivariance_uncertainty(
                    predictor, pair.moving, pair.fixed, n=args.draws, seed=args.seed, progress=False
                )
            }
            rows.append(known_truth.score(evaluation.measure(predictor, known, maps, kind), "spread"))
    error, spread, rank = (_mean([row[name] for row in rows]) for name in ("epe", "std", "spearman"))
    verdict = "blind" if spread < BLIND * error else "yes" if rank >= RANKED else "no"
    yield from (f"{error:.2f}", f"{spread:.2f}", f"{rank:.2f}", verdict)


def _mean(scores: Sequence[float]) -> float:
    """Of those that are numbers; NaN where none is, as the rank of a spread that is nought everywhere."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def models(args: argparse.Namespace, pairs: Sequence[data.Pair]) -> Iterator[tuple[str, Moved]]:
    """Names and answers; those of the trained models also after the affine stage."""
    align = aligning(args.affine)
    for arch in args.random:
        network = random_model(arch, args.width, framed(pairs[0], COARSEST), args.seed)
        yield f"{arch}, random", Moved(evaluation.wrap(network), pairs, args.moves, args.seed)
    for name in args.model:
        path, predictor = Path(name), evaluation.load(find_model(name))
        shown = str(path.parent if path.name == "model.keras" else name)
        yield shown, Moved(predictor, pairs, args.moves, args.seed)
        if args.affine != "none":
            yield f"{shown}, {args.affine} first", Moved(predictor, pairs, args.moves, args.seed, align)


def aligning(kind: str) -> Callable[[Image, Image], Linear]:
    """What finds the transform from points of the fixed image to the moving one, once for two images, whatever model is
    asked after it; where it finds nothing, nothing is moved."""
    found = {}

    def align(moving: Image, fixed: Image) -> Linear:
        images = moving.array.tobytes(), fixed.array.tobytes()
        if images not in found:
            with warnings.catch_warnings(), contextlib.suppress(evaluation.RegistrationFailed):
                warnings.simplefilter("ignore", DataWarning)  # where both lie as they should
                found[images] = registration.align(moving, fixed, kind).linear
        return found.setdefault(images, Linear(np.eye(4)))

    return align


def cells(moved: Moved, curves: tuple[dict[float, float], ...], args: argparse.Namespace) -> Iterator[str]:
    """Of a model's row, all but its name; the network alone is asked how it follows."""
    alone, blank = moved.align is None, [""] * 4
    yield from departures(moved) if alone else blank
    for curve, points in zip(curves, ((0.0, *SHARES), ANGLES), strict=True):
        yield from (f"{curve[point]:.3f}" for point in points)
    yield from believed(moved.predictor, moved.pairs, args) if alone else blank


def departures(moved: Moved) -> Iterator[str]:
    """The cells of [U,U] and [W,U]."""
    for step in (COARSEST, 1):
        yield f"{moved.departure(max(SHARES), step, alike=True)[0]:.2g}"
    for share in SHARES:
        error, length = moved.departure(share)
        yield f"{error:.2f} ({100 * error / length:.0f} %)"


def table(args: argparse.Namespace) -> Iterator[str]:
    """Lines of Markdown, as they are measured."""
    loaded = load_set(args)
    pairs = first_pairs(loaded.pairs, args.pairs)
    percent = [f"{100 * share:.0f} %" for share in SHARES]
    header = ["model", f"[U,U], by {COARSEST}", "[U,U], any", *(f"[W,U], {part}" for part in percent)]
    header += [f"Dice, {part}" for part in ("0 %", *percent, *(f"{angle}°" for angle in ANGLES))]
    header += ["error", "spread", "rank", "believed"]
    yield f"{len(pairs)} pairs of {args.data}, {args.moves} translations each; voxels, mean over the foreground.\n"
    for row in (header, ["---"] * len(header)):
        yield f"| {' | '.join(row)} |"
    structures, drawn = [*loaded.labels.values()], []
    for name, moved in models(args, pairs):
        curves = (
            {share: moved.dice_shifted(share, structures) for share in SHARES_DRAWN},
            {angle: moved.dice_turned(angle, structures) for angle in ANGLES_DRAWN},
        )
        drawn.append((name, moved.align is None, curves))
        yield f"| {' | '.join([name, *cells(moved, curves, args)])} |"
    if args.picture:
        yield f"\nwrote {draw(drawn, args.picture)}"


def draw(drawn: Sequence[tuple[str, bool, tuple[dict[float, float], ...]]], path: Path) -> Path:
    """Dice of every model as the moving image is moved away, and as it is turned; dashed after the affine stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    both, colour = figure.subplots(1, 2, sharey=True), -1
    for name, alone, curves in drawn:
        colour += alone  # a model after the stage follows the model alone
        style = {"color": f"C{colour}", "linestyle": "-" if alone else "--"}
        for axes, curve, unit in zip(both, curves, (100, 1), strict=True):
            axes.plot([unit * by for by in curve], [*curve.values()], marker="o", markersize=3, label=name, **style)
    both[0].set(xlabel="motion of the moving image, % of its size", ylabel="Dice, mean", xlim=(0, None), ylim=(0, 1))
    both[1].set(xlabel="turn of the moving image, degrees", xlim=(0, None), xticks=range(0, 181, 45))
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return save(figure, path)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    for line in table(args):
        print(line, flush=True)


def main(argv=None) -> int:
    args = arguments(argv)
    return exit_status("equivariance.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
