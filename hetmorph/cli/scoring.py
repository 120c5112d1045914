"""What is done with each pair of `hetmorph evaluate`, here or in another process."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from hetmorph import data, evaluation, uncertainty, viz
from hetmorph.cli.models import OF_MODEL, Optimisation, load_model
from hetmorph.cohort import Work


class Scoring(Work):
    """The scores of a pair, and its maps, which are written.

    Models are loaded at their first use, in every process by itself.

    Args:
        args: arguments of `parsers.evaluate`, models as `find_model` gives them.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.labels: Mapping[str, int] = {}
        self.main: str | None = None
        self.calibration: uncertainty.Calibration | None = None
        self._first: data.Case | None = None

    def meet(self, loaded: data.LoadedSet) -> None:
        """Learn of the pairs what does not depend on each; a 2-D model on volumes is told of.

        Args:
            loaded: the pairs.

        Raises:
            ValueError: the model, or what is asked of it, is not for them.
        """
        self.labels, self.main, self._first = loaded.labels, loaded.main, loaded.cases[0]
        fitting = evaluation.for_cases(self.whole, loaded.cases)
        if fitting is self.whole:
            return
        if self.args.uncertainty or self.args.calibration not in (None, "none"):
            raise ValueError(
                "--uncertainty and --calibration are not for a 2-D model on volumes; of one pair, "
                "hetmorph uncertainty --moving … --fixed … gives a map slice by slice"
            )
        thick = self._first.spacing[fitting.across]
        print(f"a 2-D model on volumes: slice by slice across axis {fitting.across} (spacing {thick:.4g} mm)")

    @functools.cached_property
    def whole(self):
        """The model as it is."""
        args = self.args
        predictor = load_model(args.model, args.passes, args.threads, compiled=args.instance_of in OF_MODEL)
        return Optimisation.asked(args).after(predictor)

    @functools.cached_property
    def predictor(self):
        """The model for these pairs."""
        return evaluation.for_cases(self.whole, [self._first])

    @functools.cached_property
    def others(self) -> list:
        """Further models of an ensemble."""
        return [evaluation.load(path, passes=self.args.passes) for path in self.args.ensemble]

    @functools.cached_property
    def judging(self) -> dict[str, Callable]:
        """The estimates that the calibration needs."""
        if self.calibration is None:
            return {}
        needed = uncertainty.calibrated_estimates(self.calibration, self.predictor, self.others)
        return {name: remembered(estimate) for name, estimate in needed.items()}

    @functools.cached_property
    def estimates(self) -> dict[str, Callable]:
        """The estimates asked for; one that the calibration needs too is not made twice."""
        args = self.args
        asked = uncertainty.pair_estimates(args.uncertainty, self.predictor, self.others, args.draws, args.seed)
        about = {} if self.calibration is None else self.calibration.about
        same = bool(about) and all(about.get(name) == getattr(args, name) for name in ("draws", "seed"))
        return asked | {name: self.judging[name] for name in asked if same and name in self.judging}

    @functools.cached_property
    def scorer(self) -> evaluation.Scorer:
        """What makes the rows."""
        plain = self.calibration is None and self.args.report is None
        judged = None if plain else judge(self.judging, self.calibration)
        maps = saving(self.estimates, self.args.out / "maps")
        asked = (self.args.convention, self.labels, self.main, maps, judged, self.args.inverse_error)
        return evaluation.Scorer(self.predictor, *asked)

    def __call__(self, case: str, row) -> dict:
        scores, judgement = self.scorer(row[0])
        curves = evaluation.Curves()
        if judgement is not None:
            curves.add(judgement)
        return {"row": scores, "curves": curves.state()}

    def failed(self, case: str, row, reason: str) -> dict:
        return {"row": self.scorer.failed(row[0], reason), "curves": evaluation.Curves().state()}


def saving(estimates: dict, folder: Path) -> dict:
    """The same estimates, which also write their map of each pair."""

    def saved(name, pair):
        result = estimates[name](pair)
        result.save(folder / f"{pair.case_id}_{name}.nii.gz", pair.spacing)
        return result

    return {name: functools.partial(saved, name) for name in estimates}


def remembered(estimate: Callable) -> Callable:
    """The same estimate of a pair, which is not made again for the pair that it was made for last."""
    last = [None, None]

    def of(pair):
        if last[0] is not pair:
            last[:] = pair, estimate(pair)
        return last[1]

    return of


def judge(maps: dict, calibration: uncertainty.Calibration | None) -> Callable:
    """Verdict and mean bound of a pair, as `evaluation.evaluate` asks for; without a calibration by plain checks."""

    def judged(pair, prediction) -> tuple[str, float | None]:
        checks = evaluation.Checks.of_pair(pair, prediction)
        said = viz.verdict(pair, {name: estimate(pair) for name, estimate in maps.items()}, calibration, checks)
        return said.flag, None if calibration is None else said.score

    return judged
