"""Reproduce a table of results: run or resume whatever is missing, then print it as Markdown and LaTeX.

Tables:
    lambda   weight of smoothness, for mse and forms of het with equal effort, on the validation patients
    main     classical programs and every objective, on the test patients
    gamma    exponent and form of the signal-to-noise ratio of het, on the validation patients
    sigma_z  uncertainty of the displacement: vxm-diff, het and het-z of several α, on the validation patients
    noise    training and testing with added heteroscedastic Rician noise, or artefacts, on the test patients
    inverse  what keeps a map regular: diffusion, ICON, GradICON, networks of several steps, consistency by construction
    inverse-lambda  weights of those regularisers with equal effort, on the validation patients
    implicit networks of coordinates (NePhi) beside GradICON's, each pair optimised too, on the test patients

Every training gets the same number of updates of its displacement network, or by --minutes the same time. Runs lie in
--out, are shared between tables, and go on where they were stopped. Moving images are end-diastole (ED), fixed ones
end-systole (ES) where the data are hearts; distances named px are in voxels; ± is the standard deviation over seeds.

Examples:
    python training/reproduce.py --table main --data-dir ~/ACDC --dry-run
    python training/reproduce.py --table noise --data-dir ~/ACDC --updates 3000 --lambda 0.1 "het, blocks=0.01"
"""

import argparse
import dataclasses
import hashlib
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from hetmorph.cli.messages import import_tensorflow  # noqa: E402, I001

import_tensorflow()

from hetmorph import data, evaluation  # noqa: E402
from hetmorph.cli.options import NOISE_IN, NOISE_KINDS  # noqa: E402
from hetmorph.config import ScheduleConfig  # noqa: E402
from hetmorph.data.artefacts import STRENGTHS  # noqa: E402
from hetmorph.io.atomic import write_text  # noqa: E402
from hetmorph.networks.build import MODELS  # noqa: E402
from hetmorph.objectives import RECIPES  # noqa: E402

HERE = Path(__file__).resolve().parent
STEPS_PER_EPOCH = 100
KNOWN_WARP = "6"
SIMILARITY = "lncc"  # beside which the λ of the objectives were published
BATCH = ScheduleConfig().batch_size
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
LAMBDAS = ("0.01", "0.03", "0.1", "0.3", "1")
# The weights of the blocks, and smoothing, lower the image term: the same effort, spent at smaller values.
SMALL_LAMBDAS = ("0.003", "0.01", "0.03", "0.1", "0.3")
# Of what keeps a map regular three weights each, a factor of four apart, for ncc of a window of 15.
CONSISTENCY_LAMBDAS = {
    "diffusion": ("0.25", "1", "4"),
    "icon": ("125", "500", "2000"),
    "gradicon": ("0.06", "0.25", "1"),
    "velocity-diffusion": ("0.5", "2", "8"),
}
NOISE_LEVELS = ("0.05", "0.1", "0.2")
PROGRAMS = ("demons", "bspline", "ants-syn", "ants-syn-mse", "ants-syn-tuned")
# The difference is smoothed by as many voxels: interpolation cannot average its noise much further.
SMOOTHED = ("--residual-smoothing", "1")
INTEGRATED = ("--int-steps", "7")
# Weighted least squares: the weight is 1/σ itself, and σ lies on a grid too coarse to repeat each voxel's residual.
BLOCKS = ("--variance-resolution", "8", "--relative", "proportional", "--snr", "inverse")
# The published rate of NePhi; at 3e-4 its Jacobians diverge.
IMPLICIT = ("--arch", "nephi", "--lr", "1e-4")
EACH_PAIR = ", each pair optimised"
# Of windows of 5, 9, 15, 21 and 31 voxels the best on the validation patients of ACDC.
PER_PAIR = ("--instance-optimise", "30", "--instance-window", "15", "--instance-lambda", "0.27")
DICE = ("dice_{main}", "Dice", 1, 3)
COLUMNS = (
    DICE,
    ("dice_mean", "Dice, mean", 1, 3),
    ("hd_px", "HD px", 1, 2),
    ("hd95_px", "HD95 px", 1, 2),
    ("assd_px", "ASSD px", 1, 2),
    ("folds_percent", "folds %", 1, 3),
    ("mse", "MSE ·10³", 1e3, 2),
    ("ause", "AUSE ·10⁴", 1e4, 2),
    ("coverage1", "in σ %", 100, 1),
    ("coverage2", "in 2σ %", 100, 1),
    ("seconds_per_pair", "s/pair", 1, 3),
)
INVERSE = (
    DICE,
    ("dice_mean", "Dice, mean", 1, 3),
    ("mse", "MSE ·10³", 1e3, 2),
    ("folds_percent", "folds %", 1, 3),
    ("inverse_error", "inverse error px", 1, 5),
    ("inverse_error_mm", "inverse error mm", 1, 5),
    ("seconds_per_pair", "s/pair", 1, 3),
)
TRUTH = (
    ("epe_labels", "EPE px", 1, 2),
    ("epe_artefact", "EPE in artefact px", 1, 2),
    ("epe_around", "EPE around it px", 1, 2),
    ("sigma_correlation_foreground", "r(σ)", 1, 2),
    ("sigma_auroc_foreground", "AUROC σ", 1, 2),
    ("ause_displacement", "AUSE of EPE² px²", 1, 2),
)


@dataclass(frozen=True)
class Noise:
    """Noise that is added, as `--noise`, `--noise-kind` and `--noise-in` take it; none without a level."""

    level: str = ""
    kind: str = NOISE_KINDS[0]
    into: str = NOISE_IN[0]

    @property
    def word(self) -> str:
        """What it is called."""
        return "noise" if self.kind == NOISE_KINDS[0] else self.kind

    @property
    def label(self) -> str:
        """How it follows the name of a row."""
        where = "" if self.into == NOISE_IN[0] else f" in the {self.into} image"
        return f", {self.word} {self.level}{where}" if self.level else ""

    @property
    def folder(self) -> str:
        """How it follows the name of a file."""
        where = "" if self.into == NOISE_IN[0] else f"-{self.into}"
        return f"-{self.word}{self.level}{where}" if self.level else ""

    @property
    def flags(self) -> tuple[str, ...]:
        """What a command is told."""
        if not self.level:
            return ()
        kind = () if self.kind == NOISE_KINDS[0] else ("--noise-kind", self.kind, "--noise-in", self.into)
        return ("--noise", self.level, *kind)


@dataclass(frozen=True)
class Method:
    """A row of a table: a classical program, or a training.

    Attributes:
        name: of the method; noise, a λ of its own and what comes after the answer stand in the `label`.
        program: name of a classical program; None for a training.
        objective, flags: of `train.py`.
        further: flags of `evaluate.py` for what comes after the answer.
        smoothness: λ where it is not the table's, as text.
        every_seed: whether it is trained with each seed, or with the first alone.
        noise: that is added.
    """

    name: str
    program: str | None = None
    objective: str = ""
    flags: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    smoothness: str = ""
    every_seed: bool = False
    noise: Noise = Noise()

    @property
    def label(self) -> str:
        """What the row is called."""
        smoothness = f", λ = {self.smoothness}" if self.smoothness else ""
        return f"{self.name}{smoothness}{EACH_PAIR if self.further else ''}{self.noise.label}"


@dataclass(frozen=True)
class Table:
    """Rows, the split they are scored on, columns, and the row that others are compared with.

    Attributes:
        known_warp: also score on fixed images made by a known displacement, for the columns that need one.
        inverse: also register the other way round, for the columns that need it.
    """

    methods: tuple[Method, ...]
    split: str
    columns: tuple = COLUMNS
    reference: str = "mse"
    known_warp: bool = False
    inverse: bool = False


def tables(arch: str = "vxm", noise: Noise = Noise()) -> dict[str, Table]:
    """Every table by name; without the methods that a backbone cannot be trained by.

    Args:
        noise: at which λ is tuned; of the table `noise`, the kind alone.
    """
    every = _tables(noise)
    return {name: dataclasses.replace(table, methods=_possible(table.methods, arch)) for name, table in every.items()}


def _possible(methods: tuple[Method, ...], arch: str) -> tuple[Method, ...]:
    """The U-Net always integrates a velocity, TransMorph on demand; only the former predicts distributions."""
    if arch == "vxm":
        return tuple(m for m in methods if m.flags != INTEGRATED)
    return tuple(m for m in methods if m.program or not RECIPES[m.objective].samples)


def _tables(noise: Noise) -> dict[str, Table]:
    mse, het = (Method(name, objective=name, every_seed=True) for name in ("mse", "het"))
    others = ("ncc", "mi", "nll", "beta-nll", "adaframe", "adareg", "vxm-diff")
    # the likelihoods on every seed: their uncertainty is compared with that of het
    singles = [Method(name, objective=name, every_seed=name.endswith("nll")) for name in others]
    ncc = Method("ncc", objective="ncc", smoothness="1")
    blocks = Method("het, blocks", objective="het", flags=BLOCKS)
    het_z = Method("het-z", objective="het-z")
    classical = [Method(name, program=name) for name in PROGRAMS]
    integrated = Method("mse, integrated", objective="mse", flags=INTEGRATED)
    per_pair = [
        dataclasses.replace(row, further=PER_PAIR) for row in (Method("nothing", program="undeformed"), mse, het)
    ]
    lowered = (blocks, *map(smoothed, (mse, het, blocks)))
    ranges = [(mse, LAMBDAS), (het, LAMBDAS), *((row, SMALL_LAMBDAS) for row in lowered)]
    tuned = [
        dataclasses.replace(row, smoothness=value, noise=noise, every_seed=False)
        for row, values in ranges
        for value in values
    ]
    forms = [
        *(Method(f"het, γ = {value}", objective="het", flags=("--gamma", value)) for value in ("0.25", "0.75", "1")),
        *(Method(f"het, {form} SNR", objective="het", flags=("--snr", form)) for form in ("official", "inverse")),
        Method("het, official weight", objective="het", flags=("--snr", "official", "--relative", "official")),
        *(Method(f"het, β = {value}", objective="het", flags=("--beta", value)) for value in ("0", "1")),
        Method("het, foreground", objective="het", flags=("--foreground",)),
        *(Method(f"het, blocks, γ = {g}", objective="het", flags=(*BLOCKS, "--gamma", g)) for g in ("0.25", "1")),
    ]
    alphas = [Method(f"het-z, α = {value}", objective="het-z", flags=("--alpha", value)) for value in ("1e-5", "1e-3")]
    return {
        "lambda": Table(tuple(tuned), "val", reference=f"mse, λ = {LAMBDAS[0]}"),
        "main": Table(
            (*classical, mse, *singles[:1], ncc, *singles[1:], het, blocks, het_z, integrated, *per_pair), "test"
        ),
        "gamma": Table((mse, dataclasses.replace(het, name="het, γ = 0.5"), blocks, *forms), "val"),
        "sigma_z": Table((mse, singles[-1], het, het_z, *alphas), "val"),
        "noise": Table(_noise_rows(noise), "test", (*COLUMNS, *TRUTH), known_warp=True),
        "inverse": Table(_consistent_rows(), "test", INVERSE, reference="diffusion", inverse=True),
        "implicit": Table(_implicit_rows(), "test", INVERSE, reference="gradicon, its network", inverse=True),
        "inverse-lambda": Table(_consistent_lambdas(), "val", INVERSE, "diffusion, λ = 1", inverse=True),
    }


def _consistent_rows() -> tuple[Method, ...]:
    """One network with each regulariser, then the published networks of several steps at half of their width."""
    half = ("--width", "0.5")
    steps = ("--arch", "gradicon", *half), ("--arch", "constricon", *half)
    return (
        Method("diffusion", objective="diffusion", flags=("--bidir",)),
        Method("icon", objective="icon"),
        Method("gradicon", objective="gradicon"),
        Method("diffusion, three repeats", objective="diffusion", flags=("--bidir", "--repeats", "3")),
        Method("gradicon, its network", objective="gradicon", flags=steps[0]),
        Method("by construction", objective="velocity-diffusion", flags=steps[1]),
    )


def _implicit_rows() -> tuple[Method, ...]:
    """GradICON's loss on one network and on its own, NePhi as it predicts and with each pair optimised."""
    gradicon, network = (row for row in _consistent_rows() if row.objective == "gradicon")
    implicit = Method("nephi", objective="nephi", flags=IMPLICIT)
    optimised = [
        dataclasses.replace(implicit, name=name, further=("--instance-optimise", "30", "--instance-of", of))
        for name, of in (("nephi, codes", "codes"), ("nephi, whole network", "network"))
    ]
    return gradicon, network, implicit, *optimised


def _consistent_lambdas() -> tuple[Method, ...]:
    """Those rows, with every weight that their regulariser is tried with."""
    return tuple(
        dataclasses.replace(row, smoothness=value)
        for row in _consistent_rows()
        for value in CONSISTENCY_LAMBDAS[row.objective]
    )


def _noise_rows(kind: Noise) -> tuple[Method, ...]:
    rows, levels = [], NOISE_LEVELS if kind.kind == NOISE_KINDS[0] else map(str, STRENGTHS)
    for noise in (dataclasses.replace(kind, level=level) for level in levels):
        mse, het = (Method(name, objective=name, noise=noise, every_seed=True) for name in ("mse", "het"))
        blocks = dataclasses.replace(het, name="het, blocks", flags=BLOCKS)
        rows += [Method(name, program=name, noise=noise) for name in ("demons", "ants-syn-tuned")]
        ncc = Method("ncc", objective="ncc", noise=noise)
        rows += [mse, ncc, het, blocks, *map(smoothed, (mse, het, blocks))]
    return tuple(rows)


def smoothed(row: Method) -> Method:
    """The row trained on differences that are smoothed before they are squared."""
    return dataclasses.replace(row, name=f"{row.name}, smoothed", flags=(*row.flags, *SMOOTHED))


@dataclass(frozen=True)
class Job:
    """One command and the file that exists when it is done."""

    command: tuple[str, ...]
    done: Path


class Plan:
    """Commands and folders of a table's rows.

    Args:
        args: the command line.
        table: what is wanted.
    """

    def __init__(self, args: argparse.Namespace, table: Table):
        self.args, self.table = args, table
        self.smoothness, self.own_smoothness = smoothness(args.smoothness or ())
        self.known_warp = args.known_warp or KNOWN_WARP

    def runs(self, method: Method) -> list[Path]:
        """Folders of the method's `cases.csv`, one per seed."""
        return [self._scores(folder, method, "") for folder in self._folders(method)]

    def finished(self, method: Method) -> list[Path]:
        """Those of its runs that are scored."""
        return [run for run in self.runs(method) if (run / "cases.csv").exists()]

    def runs_with_truth(self, method: Method) -> list[Path]:
        """The same for fixed images made by a known displacement."""
        return [self._scores(folder, method, self.known_warp) for folder in self._folders(method)]

    def jobs(self, method: Method) -> list[Job]:
        """Trainings and evaluations of a row, in their order."""
        jobs, warps = [], ("", self.known_warp) if self.table.known_warp else ("",)
        for seed, folder in zip(self._seeds(method), self._folders(method), strict=True):
            if method.program is None:
                jobs.append(Job(self._training(method, seed, folder), folder / "summary.json"))
            jobs += [self._evaluation(method, folder, warp) for warp in warps]
        return jobs

    def _seeds(self, method: Method) -> list[int]:
        return self.args.seeds if method.every_seed else self.args.seeds[:1]

    def _folders(self, method: Method) -> list[Path]:
        root = self.args.out / set_folder(self.args.data, self.args.size)
        if method.program:
            return [root / f"{method.program}{method.noise.folder}"]
        flags = (*self._similarity(method), *method.flags)
        options = "".join(flag.removeprefix("--") if flag.startswith("--") else f"{flag}-" for flag in flags)
        name = "-".join(filter(None, [self.args.arch, method.objective, options.rstrip("-")]))
        name = f"{name}-lambda{self._smoothness(method):g}{method.noise.folder}-{budget(self.args)}"
        return [root / f"{name}-s{seed}" for seed in self._seeds(method)]

    def _smoothness(self, method: Method) -> float:
        """λ: the row's by definition, the row's by --lambda, the table's."""
        shared = RECIPES[method.objective].smoothness if self.table.inverse else self.smoothness
        return float(method.smoothness or self.own_smoothness.get(method.name, shared))

    def _similarity(self, method: Method) -> tuple[str, ...]:
        """What images are compared by, of objectives that leave it to the user."""
        leaves = method.objective and "similarity" in RECIPES[method.objective].options()
        window = ("--window", str(self.args.window)) if self.args.window else ()
        return ("--similarity", self.args.similarity, *window) if leaves else ()

    def _scores(self, folder: Path, method: Method, warp: str) -> Path:
        passes = f"-x{self.args.passes}" if method.program is None and self.args.passes > 1 else ""
        further = "".join(method.further).replace("--", "-")
        return folder / (self.table.split + (f"-warp{warp}" if warp else "") + passes + further)

    def _training(self, method: Method, seed: int, folder: Path) -> tuple[str, ...]:
        updates, flags = self.args.updates, [*method.flags, "--lambda", f"{self._smoothness(method):g}"]
        if "warm_start" in RECIPES[method.objective].options():
            # While the variance network is warmed up the displacement network rests: it gets these updates on top.
            warm_start = max(1, round(updates / STEPS_PER_EPOCH / 15))
            updates += warm_start * STEPS_PER_EPOCH
            flags += ["--warm-start", str(warm_start)]
        length = ("--minutes", f"{self.args.minutes:g}") if self.args.minutes else ("--steps", str(updates))
        return (
            *(sys.executable, str(HERE / "train.py"), *self._data(method), "--arch", self.args.arch),
            *(("--resolution", str(self.args.resolution)) if self.args.resolution > 1 else ()),
            *("--objective", method.objective, *self._similarity(method), "--lr", str(self.args.lr), *flags),
            *("--batch-size", str(self.args.batch_size), *length),
            *("--steps-per-epoch", str(STEPS_PER_EPOCH)),
            *("--seed", str(seed), "--out", str(folder), "--resume"),
        )

    def _evaluation(self, method: Method, folder: Path, warp: str) -> Job:
        target = self._scores(folder, method, warp)
        model = method.program or str(folder / "model.keras")
        command = (
            *(sys.executable, str(HERE / "evaluate.py"), *self._data(method), "--model", model),
            *("--split", self.table.split, *(("--known-warp", warp) if warp else ()), "--out", str(target), "--resume"),
            *(("--inverse-error",) if self.table.inverse else ()),
            *(("--passes", str(self.args.passes)) if method.program is None and self.args.passes > 1 else ()),
            *method.further,
        )
        return Job(command, target / "summary.json")

    def _data(self, method: Method) -> tuple[str, ...]:
        folder = ("--data-dir", str(self.args.data_dir)) if self.args.data_dir else ()
        size = ("--size", *map(str, self.args.size)) if self.args.size else ()
        return ("--data", self.args.data, *folder, *size, *method.noise.flags)


def budget(args: argparse.Namespace) -> str:
    """What every training of a table gets, as part of the names of files."""
    batch = f"-b{args.batch_size}" if args.batch_size != BATCH else ""
    resolution = f"-resolution{args.resolution}" if args.resolution > 1 else ""
    length = f"{args.minutes:g}min" if args.minutes else args.updates
    return f"{length}{batch}{resolution}-lr{args.lr:g}"


def smoothness(texts: Sequence[str]) -> tuple[float, dict[str, float]]:
    """λ of all rows, and of those that the values of --lambda name."""
    shared, own = 0.01, {}
    for text in texts:
        row, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"--lambda takes a number or ROW=number, received {text!r}") from None
        if row:
            own[row] = number
        else:
            shared = number
    return shared, own


def execute(jobs: list[Job], keep_going: bool) -> list[Job]:
    """Run what is not done, with one thread as the classical programs have; output goes to the terminal.

    Returns:
        Jobs that failed.

    Raises:
        RuntimeError: a job failed, and the others are not to be tried.
    """
    failed, environment = [], {**os.environ, **dict.fromkeys(THREADS, "1")}
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {shlex.join(job.command)}", flush=True)
        if job.done.exists():
            continue
        status = subprocess.run(job.command, env=environment).returncode
        if status and not keep_going:
            raise RuntimeError(f"status {status}; mend it and start again to go on: {shlex.join(job.command)}")
        failed += [job] if status else []
    return failed


def render(plan: Plan, main: str) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table, of what is there."""
    columns = [(metric.format(main=main), *rest) for metric, *rest in plan.table.columns]
    heading = ["method", "seeds", *(text for _, text, *_ in columns), f"Δ Dice to {plan.table.reference}", "p", "p, t"]
    rows, done = [], [m for m in plan.table.methods if plan.finished(m) == plan.runs(m)]
    shown = set()
    for method in done:
        if method.noise not in shown:
            shown.add(method.noise)
            cells = _cells(plan, method, columns, "undeformed", first=True)
            rows.append([f"undeformed{method.noise.label}", "", *cells, "", "", ""])
        seeds = "" if method.program else str(len(plan.runs(method)))
        rows.append(
            [method.label, seeds, *_cells(plan, method, columns, "registered"), *_difference(plan, method, main)]
        )
    return heading, rows


def unfinished(plan: Plan) -> list[str]:
    """Rows that the table leaves out, as some of their seeds are missing."""
    counts = [(m.label, len(plan.finished(m)), len(plan.runs(m))) for m in plan.table.methods]
    return [f"{label}, {there} of {wanted} seeds" for label, there, wanted in counts if 0 < there < wanted]


def _cells(plan: Plan, method: Method, columns, block: str, first: bool = False) -> list[str]:
    """Means over patients; of the first seed only where all seeds share the number."""
    return [_cell(plan, method, column, block, slice(1) if first else slice(None)) for column in columns]


def _cell(plan: Plan, method: Method, column, block: str, seeds: slice) -> str:
    metric, heading, factor, decimals = column
    truth = heading in {text for _, text, *_ in TRUTH}
    runs = (plan.runs_with_truth(method) if truth else plan.runs(method))[seeds]
    try:
        score = evaluation.over_seeds(runs, metric, block, per="patient")
    except (ValueError, OSError):  # a column that these runs do not have
        return ""
    spread = f" ± {score.std * factor:.{decimals}f}" if math.isfinite(score.std) else ""
    return f"{score.mean * factor:.{decimals}f}{spread}"


def _difference(plan: Plan, method: Method, main: str) -> list[str]:
    """Difference of Dice to the reference row of the same noise, with its interval, and two p-values."""
    name = plan.table.reference + method.noise.label
    reference = next(m for m in plan.table.methods if m.label == name)
    runs = plan.runs(reference)
    if method == reference or plan.finished(reference) != runs:
        return ["", "", ""]
    result = evaluation.compare_runs(runs, plan.runs(method), f"dice_{main}")
    change = "{difference:+.4f}".format(**result)
    if math.isfinite(result["low"]):  # of one patient there is no interval
        change += " ({low:+.4f} … {high:+.4f})".format(**result)
    return [change, f"{result['p']:.2g}", f"{result['p_t']:.2g}"]


def set_folder(name: str, size: Sequence[int] | None = None) -> str:
    """Folder of a data set's runs: its name, of a table of pairs also what tells apart tables of the same name.

    Args:
        name: data set, or path of a table.
        size: of the images, where it is not the set's own.
    """
    if size:
        return f"{set_folder(name)}-{'x'.join(map(str, size))}"
    if not data.is_table(name):
        return name
    return f"{Path(name).stem}-{hashlib.sha256(str(Path(name).resolve()).encode()).hexdigest()[:6]}"


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    """The table for a Markdown file; columns without any value are left out."""
    heading, rows = _filled(heading, rows)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(heading: list[str], rows: list[list[str]]) -> str:
    """The table for a LaTeX document with the package booktabs."""
    heading, rows = _filled(heading, rows)
    symbols = {"±": r"$\pm$", "·10³": r"$\cdot 10^3$", "·10⁴": r"$\cdot 10^4$", "%": r"\%", "Δ": r"$\Delta$"}
    symbols |= {"σ": r"$\sigma$", "λ": r"$\lambda$", "γ": r"$\gamma$", "α": r"$\alpha$", "…": r"\dots", "²": "$^2$"}

    def line(cells: list[str]) -> str:
        text = " & ".join(cells)
        for symbol, command in symbols.items():
            text = text.replace(symbol, command)
        return text + r" \\"

    body = "\n".join(line(row) for row in rows)
    columns = "l" + "r" * (len(heading) - 1)
    top, end = f"\\begin{{tabular}}{{{columns}}}\n\\toprule", "\\bottomrule\n\\end{tabular}"
    return "\n".join([top, line(heading), r"\midrule", body, end])


def _filled(heading: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    keep = [i for i in range(len(heading)) if any(row[i] for row in rows)]
    return [heading[i] for i in keep], [[row[i] for i in keep] for row in rows]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--table", required=True, choices=tables(), help="which one")
    result.add_argument("--data", default="acdc", help="data set (default: acdc)")
    result.add_argument("--data-dir", type=Path, help="its folder (default: environment variable HETMORPH_DATA)")
    result.add_argument("--size", type=int, nargs="+", help="of the images, voxels per axis (default: the set's own)")
    result.add_argument("--arch", default="vxm", choices=MODELS, help="backbone (default: vxm)")
    result.add_argument(
        "--resolution",
        type=int,
        default=1,
        help="voxel size of the images that networks see, image voxels (default: 1)",
    )
    result.add_argument("--updates", type=int, default=3000, help="of the displacement network (default: 3000)")
    result.add_argument("--minutes", type=float, help="of each training, in place of --updates")
    result.add_argument("--batch-size", type=int, default=BATCH, help=f"pairs an update (default: {BATCH})")
    result.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: 0.001)")
    result.add_argument(
        "--lambda",
        dest="smoothness",
        nargs="+",
        metavar="[ROW=]λ",
        help="smoothness of all rows and, as 'het=0.1', of one of another (default: 0.01; inverse: each method's own)",
    )
    result.add_argument(
        "--similarity", default=SIMILARITY, help=f"inverse: mse, ncc, lncc, lncc2 or mind (default: {SIMILARITY})"
    )
    result.add_argument("--window", type=int, help="inverse: side of the window of ncc, voxels (default: 9)")
    result.add_argument("--noise", default="", help="lambda: level of added noise to tune at (default: none)")
    result.add_argument(
        "--noise-kind",
        default=NOISE_KINDS[0],
        choices=NOISE_KINDS,
        help="noise, lambda: what is added (default: rician)",
    )
    result.add_argument(
        "--noise-in", default=NOISE_IN[0], choices=NOISE_IN, help="the image that an artefact goes into (default: both)"
    )
    result.add_argument("--passes", type=int, default=1, help="how often a trained network is applied (default: 1)")
    result.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="first: of all rows (default: 0 1 2)")
    result.add_argument(
        "--only", nargs="+", metavar="ROW", help="run only these rows; the table shows all that are done"
    )
    result.add_argument("--main", help="structure of the first Dice column (default: the data set's)")
    result.add_argument("--known-warp", help=f"noise: amplitude of known warps, voxels (default: {KNOWN_WARP})")
    result.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder (default: runs/reproduce)")
    result.add_argument("--dry-run", action="store_true", help="say what would be run")
    result.add_argument("--render", action="store_true", help="run nothing, show what is there")
    result.add_argument("--keep-going", action="store_true", help="go on after a row that failed")
    return result


def main(argv=None) -> int:
    args = parser().parse_args(argv)
    try:
        return _run(args, sys.argv[1:] if argv is None else argv)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"reproduce.py: error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    table = tables(args.arch, noise_of(args))[args.table]
    _check(args, table)
    plan = Plan(args, table)
    known = [method.label for method in plan.table.methods]
    names = {method.name for method in plan.table.methods}
    if unknown := sorted((set(args.only or ()) - set(known)) | (plan.own_smoothness.keys() - names)):
        # a row a line: their names hold commas
        raise ValueError("no row {}; rows are\n  {}".format("; ".join(unknown), "\n  ".join(known)))
    main_structure = args.main or data.dataset(args.data).main
    if main_structure is None:
        raise ValueError(f"{args.data} does not say which structure is meant; give --main")
    jobs = [job for method in plan.table.methods if method.label in (args.only or known) for job in plan.jobs(method)]
    if args.dry_run:
        for job in jobs:
            print("done" if job.done.exists() else "to do", shlex.join(job.command))
        return 0
    failed = [] if args.render else execute(jobs, args.keep_going)
    heading, rows = render(plan, main_structure)
    if not rows:
        raise ValueError("no row of this table is done; leave out --render to run them")
    _write(args, argv, plan.table, heading, rows)
    for text in unfinished(plan):
        print(f"left out: {text}")
    for job in failed:
        print(f"failed: {shlex.join(job.command)}", file=sys.stderr)
    return 1 if failed else 0


def noise_of(args: argparse.Namespace) -> Noise:
    """What the command line says of noise."""
    return Noise(args.noise, args.noise_kind, args.noise_in)


def _check(args: argparse.Namespace, table: Table) -> None:
    """Refuse options that this table does not have, and numbers that a training would refuse an hour later."""
    if args.noise and args.table != "lambda":
        raise ValueError("--noise is for --table lambda; --table noise has its own levels")
    if noise_of(args) != Noise(args.noise) and args.table != "noise" and not args.noise:
        raise ValueError("--noise-kind and --noise-in are for --table noise, and for --table lambda with --noise")
    data.artefacts.check_noise(args.noise_kind, args.noise_in)
    if args.smoothness and args.table in ("lambda", "inverse-lambda"):
        raise ValueError(f"--lambda has no effect on --table {args.table}, which has its own values")
    if table.inverse and smoothness(args.smoothness or ())[0] != smoothness(())[0]:
        raise ValueError(
            "--lambda of --table inverse names rows, ROW=λ: λ of one method says nothing on that of another"
        )
    if not table.inverse and (args.window or args.similarity != SIMILARITY):
        raise ValueError("--similarity and --window are for --table inverse and inverse-lambda")
    if args.resolution > 1 and not args.table.startswith("inverse"):
        raise ValueError("--resolution is for --table inverse and inverse-lambda")
    if table.inverse and args.passes > 1:
        raise ValueError(f"--passes is not for --table {args.table}, whose rows register both ways")
    if args.known_warp and args.table != "noise":
        raise ValueError("--known-warp is for --table noise")
    for name in ("updates", "batch_size", "passes", "resolution"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")


def _write(args: argparse.Namespace, argv: list[str], table: Table, heading: list[str], rows: list[list[str]]) -> None:
    noise = noise_of(args).folder
    if args.table == "noise" and args.noise_kind != NOISE_KINDS[0]:
        noise = f"-{args.noise_kind}-{args.noise_in}"  # of all its levels
    values = re.sub(r"[, ]+", "-", re.sub(r" *= *", "", "-".join(args.smoothness or ())))
    values = f"-lambda{values}" if values else ""
    seeds = "".join(map(str, args.seeds))
    compared = f"-{args.similarity}{args.window or ''}" if table.inverse else ""
    name = f"table-{args.table}-{args.arch}{compared}{noise}{values}-{budget(args)}-s{seeds}-x{args.passes}"
    target = args.out / set_folder(args.data, args.size) / name
    caption = (
        f"{table.split} patients; means over patients, ± over seeds; Δ with its 95 % interval, p of Wilcoxon, paired t"
    )
    text = f"`python training/reproduce.py {shlex.join(argv)}`\n{caption}\n\n{markdown(heading, rows)}\n"
    write_text(f"{target}.md", text)
    write_text(f"{target}.tex", latex(heading, rows) + "\n")
    print(f"\n{text}\nwrote {target}.md and .tex")


if __name__ == "__main__":
    sys.exit(main())
