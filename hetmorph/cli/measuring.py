"""What is done with each case of known truth, of `calibrate` and `uncertainty.py`, here or in another process."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from hetmorph import evaluation, uncertainty
from hetmorph.cohort import Work


class Measuring(Work):
    """The error of a registration whose truth is known, and its maps of uncertainty: a file a case.

    Models are loaded at their first use, in every process by itself.

    Args:
        models: paths, the model first, then the others of an ensemble.
        passes: how often they are applied.
        estimates: names of the maps.
        draws, seed: numbers of those that draw; the seed is that of transforms and noise, too.
        region: voxels that count.
        noise: that is added, arguments of `evaluation.known_pair`.
    """

    def __init__(
        self,
        models: Sequence[str],
        passes: int,
        estimates: Sequence[str],
        draws: int,
        seed: int,
        region: str,
        noise: Mapping[str, float | str],
    ):
        self.models, self.passes, self.estimates, self.draws = models, passes, estimates, draws
        self.seed, self.region, self.noise = seed, region, noise

    @functools.cached_property
    def known(self) -> tuple:
        """The predictor and the maps."""
        predictor, *others = (evaluation.load(path, passes=self.passes) for path in self.models)
        return predictor, uncertainty.pair_estimates(self.estimates, predictor, others, self.draws, self.seed)

    def __call__(self, case: str, row: tuple[Sequence, str, Path]) -> dict:
        pairs, kind, path = row
        if not path.exists():
            predictor, maps = self.known
            pair = evaluation.known_pair(pairs[0], kind, self.seed, **self.noise)
            evaluation.measure(predictor, pair, maps, kind, self.region).save(path)
        return {}

    def failed(self, case: str, row: tuple[Sequence, str, Path], reason: str) -> dict:
        raise ValueError(f"{case}: {reason}")
