"""Does the learned weight pay where a pair has an artefact that no training saw? Pairs optimised one by one, compared.

Slices of ACDC, twice: with a known warp in place of the fixed image, so that the error of the displacement is known,
and as they are, ED to ES, for the Dice. Either image gets an artefact of its own (`hetmorph.data.artefacts`). A model
registers the pair, then a displacement is optimised from its answer by each image loss, as it is and weighted as the
model predicts. "true mask" is mean squares without the artefact: the most that a weight of this kind could know.

Of five λ, and for either truth, each method takes the best on the validation patients, of whose slices each has one
artefact of strength 0.5. The best plain loss, the best robust one and the best weighted one are then shown the test
patients with every kind and strength. What is done stays in --out, and the same command goes on where it was stopped.

Examples:
    python benchmarks/artefacts.py --data-dir ACDC/training --out runs/artefacts
    python benchmarks/artefacts.py --picture artefacts.png
"""

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common import report
from common.report import table
from common.rounds import progress, settings

WARP, MOTION = "known warp", "ED to ES"
AMPLITUDE = 6.0  # of known warps, voxels
MEDIUM = 0.5
WINDOW = 15  # of local correlation, voxels
OUTLIER = 0.2  # c of Tukey, a fifth of the intensity range
EDGE = 0.01  # ε of Charbonnier
SUITING = {"mse": 0.01, "ncc": 0.3, "tukey": 0.01, "adaframe": 0.01, "charbonnier": 0.1}  # λ
# Of λ; the same for all.
FACTORS = (0.25, 1.0, 4.0, 16.0, 64.0)
ROBUST = ("tukey", "adaframe", "charbonnier")
WEIGHTED, MASKED = ", weighted", ", true mask"
METHODS = (*(f"{name}{form}" for name in SUITING for form in ("", WEIGHTED)), f"mse{MASKED}")
START = "start"
CHOOSING = {MOTION: "dice_myo", WARP: "epe_artefact"}  # the metric that λ and methods are chosen by
SHOWN = {MOTION: ("dice_myo",), WARP: ("epe_artefact", "epe_around", "epe_labels", "dice_myo")}
HEADINGS = {
    "dice_myo": "Dice",
    "epe_artefact": "EPE in the artefact px",
    "epe_around": "EPE around it px",
    "epe_labels": "EPE in the heart px",
}


@dataclass(frozen=True)
class Condition:
    """What is done to a pair: the truth, kind and level of the artefact; none at level 0."""

    truth: str
    kind: str = ""
    level: float = 0.0

    def of(self, pair):
        """The pair under this condition."""
        from hetmorph import data

        pair = data.warp_known(pair, amplitude=AMPLITUDE) if self.truth == WARP else pair
        pair = data.add_artefact(pair, self.kind, self.level) if self.level else pair
        return replace(pair, case_id=f"{pair.case_id} {self.truth} {self.kind} {self.level:g}")


class Study:
    """Scores of pairs, each computed once and kept in a file of lines.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace):
        from hetmorph import data, evaluation
        from hetmorph.cli.models import find_model

        class Start(evaluation.Predictor):
            """Gives the answer that it has been given."""

            def predict_batch(self, moving, fixed):
                return [self.answer]

        folder, other = find_model(args.model), args.weight and find_model(args.weight)
        self.model, self.weigher = evaluation.load(folder), other and evaluation.load(other)
        self.iterations, self.start, self._refined = args.iterations, Start(2), {}
        self.pairs = {}
        for split in ("val", "test"):
            found = data.load("acdc", args.data_dir, split=split, splits=Path(folder) / "splits.json")
            self.label = found.labels[found.main]
            self.pairs[split] = slices(found.pairs, self.label, args.slices)
        args.out.mkdir(parents=True, exist_ok=True)
        name = f"{args.model}-{args.weight or 'own'}-{args.slices}-{args.iterations}.jsonl"
        self._path, self._rows = args.out / name, {}
        if self._path.exists():
            rows = [json.loads(line) for line in self._path.read_text().splitlines()]
            self._rows = {(row["case_id"], row["method"], row["smoothness"]): row for row in rows}

    def rows(self, pair, condition: Condition, methods: Sequence[tuple[str, float]]) -> list[dict]:
        """Scores of the model's own answer, and of those that methods with their λ go on to."""
        name = f"{pair.case_id} {condition.truth} {condition.kind} {condition.level:g}"
        wanted = [(name, *method) for method in ((START, 0.0), *methods)]
        if lacking := [key for key in wanted if key not in self._rows]:
            spoilt = condition.of(pair)
            answer = self._answer(spoilt)
            with self._path.open("a", encoding="utf-8") as file:
                for key in lacking:
                    row = self._scored(spoilt, answer, *key[1:])
                    row = {"condition": [condition.truth, condition.kind, condition.level], **row}
                    file.write(json.dumps(row) + "\n")
                    self._rows[key] = row
        return [self._rows[key] for key in wanted]

    def _answer(self, pair):
        answer = self.model(pair.moving, pair.fixed)
        if self.weigher is None:
            return answer
        other = self.weigher(pair.moving, pair.fixed)
        return replace(answer, weight=other.weight, log_variance=other.log_variance)

    def _scored(self, pair, answer, method: str, smoothness: float) -> dict:
        scores = marked(pair, answer) if method == START else {}
        if method != START:
            self.start.answer = masked(pair, answer) if method.endswith(MASKED) else answer
            answer = self._optimised(method, smoothness)(pair.moving, pair.fixed)
        scores |= scored(pair, answer.displacement, self.label)
        scores = {f"registered_{name}": None if math.isnan(score) else score for name, score in scores.items()}
        about = {"case_id": pair.case_id, "patient": pair.patient, "method": method, "smoothness": smoothness}
        return about | scores

    def _optimised(self, method: str, smoothness: float):
        """The optimisation; each is traced once, whatever λ."""
        import tensorflow as tf

        from hetmorph.instance import Refined

        if method not in self._refined:
            how = {"loss": image_loss(method.split(",")[0]), "weighted": "," in method}
            self._refined[method] = Refined(self.start, self.iterations, **how, smoothness=tf.Variable(smoothness))
        self._refined[method].smoothness.assign(smoothness)
        return self._refined[method]


def image_loss(name: str):
    """The image loss of a method."""
    import tensorflow as tf

    from hetmorph import losses
    from hetmorph.instance import LocalCorrelation

    class Charbonnier(losses.MSE):
        """√(difference² + ε²)."""

        def voxelwise(self, y_true, y_pred):
            return tf.sqrt(super().voxelwise(y_true, y_pred) + EDGE**2)

    known = {"mse": losses.MSE, "tukey": lambda: losses.TukeyBiweight(OUTLIER), "adaframe": losses.AdaFrame}
    return (known | {"ncc": lambda: LocalCorrelation(WINDOW), "charbonnier": Charbonnier})[name]().loss


def masked(pair, answer):
    """The answer with the weight that knows where the artefact is; 1 on average."""
    from hetmorph.evaluation import artefact

    inside = artefact.inside(pair, answer.displacement)
    if inside is None:
        return replace(answer, weight=answer.moved * 0 + 1)
    return replace(answer, weight=(~inside / (~inside).mean()).astype("float32"))


def scored(pair, displacement, label: int) -> dict[str, float]:
    """Dice of a structure, and errors of the displacement where the truth is known, as `hetmorph evaluate` has them."""
    from hetmorph import metrics
    from hetmorph.evaluation import cases

    moved = cases.warp_labels(pair.moving_labels, displacement, [label])[0]
    scores = {"dice_myo": metrics.dice(moved, pair.fixed_labels == label)}
    if pair.displacement is not None:
        scores |= cases.displacement_errors(pair, displacement)
    return scores


def marked(pair, answer) -> dict[str, float]:
    """How σ_I marks the artefact."""
    from hetmorph import metrics
    from hetmorph.evaluation import artefact, cases

    inside = artefact.inside(pair, answer.displacement)
    if inside is None or answer.log_variance is None:
        return {}
    return {"sigma_auroc_foreground": metrics.auroc(answer.log_variance, inside, cases.foreground(pair))}


def slices(pairs, label: int, count: int) -> list:
    """So many of each patient that show a structure in both images, evenly from its stack."""
    stacks = {}
    for pair in pairs:
        if (pair.moving_labels == label).any() and (pair.fixed_labels == label).any():
            stacks.setdefault(pair.patient, []).append(pair)
    places = [(part + 1) / (count + 1) for part in range(count)]
    return [stack[round(place * (len(stack) - 1))] for stack in stacks.values() for place in places]


def tune(study: Study) -> tuple[dict[str, dict[str, float]], list[dict]]:
    """The best λ of each method, for either truth, and the rows that say so."""
    from hetmorph.data.artefacts import ARTEFACT_KINDS

    kinds, rows = list(ARTEFACT_KINDS), []
    tried = [(name, SUITING[name.split(",")[0]] * factor) for name in METHODS for factor in FACTORS]
    for number, pair in enumerate(study.pairs["val"]):
        for turn, truth in enumerate(CHOOSING):
            kind = kinds[(number + turn) % len(kinds)]
            rows += study.rows(pair, Condition(truth, kind, MEDIUM), tried)
        progress(f"validation {number + 1} of {len(study.pairs['val'])}")
    best = {truth: {name: tuned(rows, truth, name) for name in METHODS} for truth in CHOOSING}
    return best, rows


def tuned(rows: list[dict], truth: str, name: str) -> float:
    """Of the λ that a method was tried with, the best."""
    tried = dict.fromkeys(row["smoothness"] for row in rows if row["method"] == name)
    return min(tried, key=lambda value: badness(rows, truth, name, value))


def badness(rows: list[dict], truth: str, name: str, smoothness: float) -> float:
    """What a method with a λ scores by the metric that chooses; less is better."""
    score = mean(of(rows, truth, name, smoothness=smoothness), CHOOSING[truth])
    return -score if CHOOSING[truth].startswith("dice") else score


def examine(
    study: Study, best: dict[str, dict[str, float]], own: dict[str, tuple[str, ...]], levels: Sequence[float]
) -> list[dict]:
    """Rows of the test patients, clean and with every kind at these levels.

    They are of the methods chosen, of mean squares and of the true mask.
    """
    from hetmorph.data.artefacts import ARTEFACT_KINDS

    rows = []
    for kind, level in [("", 0.0), *((kind, level) for level in levels for kind in ARTEFACT_KINDS)]:
        for truth, names in own.items():
            methods = [(name, best[truth][name]) for name in dict.fromkeys(("mse", *names, f"mse{MASKED}"))]
            for pair in study.pairs["test"]:
                rows += study.rows(pair, Condition(truth, kind, level), methods)
        progress(f"test {kind or 'clean'} {level:g}")
    return rows


def of(rows, truth: str, method: str, kind: str | None = None, level: float | None = None, smoothness=None) -> list:
    """Those of a method under a truth; of a kind and a level, of all that are not clean without."""
    return [
        row
        for row in rows
        if row["method"] == method
        and row["condition"][0] == truth
        and (row["condition"][2] > 0 if kind is None else row["condition"][1] == kind)
        and level in (None, row["condition"][2])
        and smoothness in (None, row["smoothness"])
    ]


def mean(rows: Sequence[dict], metric: str) -> float:
    """Over patients; NaN where no row has it."""
    from hetmorph import evaluation

    try:
        return evaluation.over_seeds([rows], metric, per="patient").mean
    except ValueError:
        return math.nan


def chosen(rows: list[dict], best: dict[str, dict[str, float]], truth: str, names: Sequence[str]) -> str:
    """Of methods at their λ the best."""
    return min(names, key=lambda name: badness(rows, truth, name, best[truth][name]))


def lambdas(rows: list[dict], best: dict[str, dict[str, float]]) -> str:
    """What the λ of each method scored on the validation patients; the best in bold."""
    lines = []
    for name in METHODS:
        suiting, cells = SUITING[name.split(",")[0]], []
        for truth, metric in CHOOSING.items():
            for value in (suiting * factor for factor in FACTORS):
                score = f"{mean(of(rows, truth, name, smoothness=value), metric):.3f}"
                cells.append(f"**{score}**" if value == best[truth][name] else score)
        lines.append((name, f"{suiting:g}", *cells))
    heads = [f"{'Dice' if truth == MOTION else 'EPE'}, λ × {factor:g}" for truth in CHOOSING for factor in FACTORS]
    return table(("method", "λ", *heads), lines)


def difference(first: list[dict], second: list[dict], metric: str) -> str:
    """Second − first over patients, its interval, of errors the share, p of Wilcoxon's test; "" of what is unknown."""
    from hetmorph import evaluation

    if math.isnan(mean(first, metric)):
        return ""
    result = evaluation.compare(first, second, metric)
    form = "{0:+.4f} ({1:+.4f} … {2:+.4f})" if metric.startswith("dice") else "{0:+.2f} ({1:+.2f} … {2:+.2f})"
    share = "" if metric.startswith("dice") else f", {100 * result['difference'] / result['first']:+.0f} %"
    return form.format(result["difference"], result["low"], result["high"]) + f"{share}, p = {result['p']:.2g}"


def examined(rows: list[dict], own: tuple[str, ...], truth: str, levels: Sequence[float]) -> str:
    """Of test patients each kind and strength, all of them, and none: means; the last chosen against the others."""
    from hetmorph.data.artefacts import ARTEFACT_KINDS

    names, lines = dict.fromkeys((START, "mse", *own, f"mse{MASKED}")), []
    cases = [(f"{kind} {level:g}", kind, level) for kind in ARTEFACT_KINDS for level in sorted(levels)]
    for label, kind, level in [*cases, ("all of them", None, None), ("none", "", 0.0)]:
        some = {name: of(rows, truth, name, kind, level) for name in names}
        cells = [number(mean(one, CHOOSING[truth])) for one in some.values()]
        cells += [difference(some[other], some[own[-1]], metric) for other in own[:-1] for metric in SHOWN[truth]]
        cells.append(number(mean(some[START], "sigma_auroc_foreground")))
        lines.append((label, *cells))
    heads = [f"{HEADINGS[CHOOSING[truth]]}, {name}" for name in names]
    heads += [f"Δ {HEADINGS[metric]}, to {other}" for other in own[:-1] for metric in SHOWN[truth]] + ["AUROC σ"]
    return table((truth, *heads), lines)


def number(value: float) -> str:
    """As a cell."""
    return "" if math.isnan(value) else f"{value:.3f}"


def picture(path: Path) -> None:
    """Each kind at each strength on the fixed image of a phantom, and where it is."""
    import numpy as np
    from matplotlib.figure import Figure

    from hetmorph import data
    from hetmorph.data.artefacts import ARTEFACT_KINDS, STRENGTHS
    from hetmorph.viz.figures import save

    pair = data.phantom.generate(3)
    figure = Figure(figsize=(2 * len(ARTEFACT_KINDS), 8.2), layout="constrained")
    axes = figure.subplots(len(STRENGTHS) + 1, len(ARTEFACT_KINDS))
    for column, kind in zip(axes.T, ARTEFACT_KINDS, strict=True):
        for ax, level in zip(column, STRENGTHS, strict=False):
            spoilt = data.add_artefact(pair, kind, level, into="fixed")
            ax.imshow(np.rot90(spoilt.fixed), cmap="gray", vmin=0, vmax=1)
            ax.set_title(f"{kind} {level:g}", fontsize=10)
        column[-1].imshow(np.rot90(spoilt.artefact_fixed), cmap="gray", vmin=0, vmax=1)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    save(figure, path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the patients, as ACDC is distributed")
    parser.add_argument("--out", type=Path, help="folder of what is done")
    parser.add_argument("--model", default="acdc_vxm_blocks", help="shipped model that is gone on from")
    parser.add_argument("--weight", help="model that predicts the weight, where --model predicts none")
    parser.add_argument("--levels", type=float, nargs="+", default=[1.0, 0.5, 0.25], help="strengths on test patients")
    parser.add_argument("--iterations", type=int, default=30, help="of each optimisation, at most (default: 30)")
    parser.add_argument("--slices", type=int, default=1, help="of each patient, evenly from its stack (default: 1)")
    parser.add_argument("--picture", type=Path, help="draw each kind at each strength on a phantom, and end")
    args = parser.parse_args()
    if not args.picture and not (args.data_dir and args.out):
        parser.error("--data-dir and --out are needed, or --picture alone")
    return args


def main() -> None:
    args = arguments()
    os.environ.update(settings(1))
    sys.path.insert(0, str(report.ROOT))
    if args.picture:
        return picture(args.picture)
    warnings.simplefilter("ignore")  # an optimisation that finds nothing better keeps the model's answer, and says so
    study = Study(args)
    best, validation = tune(study)
    print(f"validation, {len(study.pairs['val'])} pairs\n\n{lambdas(validation, best)}\n", flush=True)
    forms = (tuple(SUITING), ROBUST, [name for name in METHODS if name.endswith(WEIGHTED)])
    own = {truth: tuple(chosen(validation, best, truth, names) for names in forms) for truth in CHOOSING}
    rows = examine(study, best, own, args.levels)
    print(f"test, {len(study.pairs['test'])} pairs\n")
    for truth, names in own.items():
        print(f"{truth}, {names[-1]} against {' and '.join(names[:-1])}\n")
        print(examined(rows, names, truth, args.levels) + "\n")


if __name__ == "__main__":
    main()
