"""Which map of uncertainty to believe: real images, warped by transforms that are known, registered again.

fixed(x) = moving(τ(x)) for a random τ, so that the registration's error |u − (τ − id)| is known at every voxel.
Compared is within the region of interest where τ stays inside the moving image; the rest was never seen.

Of real motion, the kind `MOTION`, the truth is known at surfaces: how far a contour that was moved lies from the same
contour of the fixed image. That is the least that the displacement is wrong by, up to what two contours differ by.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hetmorph.data import Pair, warp_by
from hetmorph.data.artefacts import add_noise
from hetmorph.data.noise import generator
from hetmorph.data.transforms import (
    BSpline,
    Composition,
    Family,
    Rotation,
    Scale,
    Shear,
    Translation,
    displacement_of,
)
from hetmorph.evaluation.cases import foreground, warp_labels
from hetmorph.evaluation.uncertainty import agreement
from hetmorph.io import replacing
from hetmorph.io.geometry import grid_points
from hetmorph.metrics.ranking import Sparsification, aurc, sparsification
from hetmorph.metrics.surface import surface_distance_map
from hetmorph.transforms.sampling import inside

KINDS = ("translation", "affine", "bspline", "composition")
MOTION = "motion"
REGIONS = ("foreground", "labels")


def true_transforms(kind: str, shape: Sequence[int]) -> Family:
    """The transforms of one kind of known truth, for images of a size.

    Translations of up to 10 % of the size; affine maps of up to 3 % translation, 10° rotation, 5 % shear and 10 %
    scale; B-splines on an eighth of the shorter side that do not fold; an affine map composed with such a B-spline.

    Raises:
        ValueError: no such kind.
    """
    spacing = max(min(shape) / 8, 2.0)
    affine = Composition((Translation(0.03), Rotation(10), Shear(0.05), Scale(0.9, 1.1)))
    bspline = BSpline(spacing, 0.35 * spacing)  # below 0.4 of the spacing it is one-to-one
    kinds = dict(zip(KINDS, (Translation(0.1), affine, bspline, Composition((affine, bspline))), strict=True))
    if kind not in kinds:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    return kinds[kind]


def known_pair(
    pair: Pair, kind: str, seed: int = 0, noise: float = 0.0, noise_kind: str = "rician", noise_in: str = "both"
) -> Pair:
    """The pair with its fixed image replaced by the moving one under a known transform.

    Args:
        pair: the pair.
        kind: one of `KINDS`, or `MOTION`, which leaves the pair as it is.
        seed: the transform follows from seed, kind and case alone.
        noise, noise_kind, noise_in: level, kind and place of noise, see `data.add_noise`; without, the two images
            differ by the motion alone.

    Returns:
        The pair, called `<case>_<kind>`, with the true `displacement`.
    """
    if kind == MOTION:
        return add_noise(dataclasses.replace(pair, case_id=f"{pair.case_id}_{kind}"), noise, seed, noise_kind, noise_in)
    shape = pair.moving.shape
    transform = true_transforms(kind, shape).draw(generator(f"known {kind}", seed, pair.case_id), shape)
    known = warp_by(pair, displacement_of(transform, grid_points(shape)))
    return add_noise(dataclasses.replace(known, case_id=f"{pair.case_id}_{kind}"), noise, seed, noise_kind, noise_in)


@dataclass(frozen=True, eq=False)
class Case:
    """What one pair of known truth says about every map.

    Attributes:
        case_id, patient, kind: name of the pair, its patient, and kind of its transform.
        error: `[*S]` length of the displacement's error, voxels.
        region: `[*S]` booleans: the region of interest, where τ stays inside and every map is valid.
        maps: standard deviations `[*S]` by name; NaN where not valid.
        cost: registrations and seconds of each map.
        judged: `[*S]` booleans: where a case whose error is not known would be judged; None where that is `region`.
    """

    case_id: str
    patient: str
    kind: str
    error: np.ndarray
    region: np.ndarray
    maps: dict[str, np.ndarray]
    cost: dict[str, tuple[int, float]]
    judged: np.ndarray | None = None

    def save(self, path) -> None:
        """Write as `.npz`, complete or not at all."""
        arrays = {f"map {name}": values for name, values in self.maps.items()}
        arrays |= {f"cost {name}": np.array(cost) for name, cost in self.cost.items()}
        arrays |= {} if self.judged is None else {"judged": self.judged}
        about = np.array([self.case_id, self.patient, self.kind])
        with replacing(path) as part:
            np.savez_compressed(part, about=about, error=self.error, region=self.region, **arrays)

    @classmethod
    def load(cls, path) -> "Case":
        """What `save` wrote."""
        with np.load(path) as stored:
            named = {
                what: {key.removeprefix(what): stored[key] for key in stored.files if key.startswith(what)}
                for what in ("map ", "cost ")
            }
            cost = {name: (int(passes), float(seconds)) for name, (passes, seconds) in named["cost "].items()}
            about = (str(one) for one in stored["about"])
            known = named["map "], cost, stored.get("judged")
            return cls(*about, stored["error"], stored["region"], *known)


def measure(predictor, pair: Pair, maps: Mapping[str, Callable], kind: str = "", region: str = "foreground") -> Case:
    """Register a pair of known truth and estimate its uncertainty in every way.

    Args:
        predictor: called as `predictor(moving, fixed)`.
        pair: with its true displacement, or of the kind `MOTION` with the labels of both images.
        maps: by name, functions of the pair that return an `uncertainty.UncertaintyMap`.
        kind: kind of the known transform, for the case.
        region: "foreground", or "labels": where the fixed image is labelled. Of `MOTION` the case is judged there, by
            the error of the moved surfaces.

    Raises:
        ValueError: a pair without truth or labels, another region, or a registration that is not finite.
    """
    if pair.displacement is None and kind != MOTION:
        raise ValueError(f"{pair.case_id}: the true displacement is not known")
    displacement = predictor(pair.moving, pair.fixed).displacement
    if not np.isfinite(displacement).all():
        raise ValueError(f"{pair.case_id}: the registration is not finite")
    results = {name: estimate(pair) for name, estimate in maps.items()}
    error, chosen = (_of_surfaces if kind == MOTION else _of_voxels)(pair, displacement, region)
    for result in results.values():
        chosen = chosen & result.valid
    stds = {name: np.asarray(result.std, np.float32) for name, result in results.items()}
    cost = {name: (result.passes, result.seconds) for name, result in results.items()}
    judged = _region(pair, region) if kind == MOTION else None
    return Case(pair.case_id, pair.patient, kind, error.astype(np.float32), chosen, stds, cost, judged)


def score(case: Case, name: str, std: np.ndarray | None = None) -> dict:
    """Row of one map and case: true and claimed error, Pearson, Spearman, AURC and nAURC over the case's region.

    Args:
        name: name of the map.
        std: `[*S]`; None takes the case's map of that name.
    """
    std = case.maps[name] if std is None else std
    passes, seconds = case.cost.get(name, (None, math.nan))
    row = {"case_id": case.case_id, "patient": case.patient, "kind": case.kind, "map": name}
    row |= {"voxels": int(case.region.sum()), "passes": passes, "seconds": seconds}
    if not case.region.any():
        return row | dict.fromkeys(("epe", "std", "pearson", "spearman", "aurc", "naurc"), math.nan)
    row |= {"epe": float(case.error[case.region].mean()), "std": float(std[case.region].mean())}
    scores = agreement(case.error, std, case.region)
    return row | scores | {"aurc": aurc(case.error, std, case.region)}


def mean_curve(cases: Sequence[Case], stds: Sequence[np.ndarray], steps: int = 50) -> Sparsification | None:
    """Mean sparsification of the error over cases, each in units of its mean error; None where no case has voxels."""
    curves = [
        sparsification(case.error, np.where(case.region, std, 0), case.region, steps)
        for case, std in zip(cases, stds, strict=True)
    ]
    curves = [curve for curve in curves if curve is not None and curve.curve[0] > 0]
    if not curves:
        return None
    curve, oracle = (np.mean([getattr(c, part) / c.curve[0] for c in curves], 0) for part in ("curve", "oracle"))
    return Sparsification(curves[0].fraction, curve, oracle)


def over_patients(rows: Sequence[dict], metric: str) -> list[float]:
    """The mean of a metric for each patient, over the rows in which it is defined."""
    patients = {}
    for row in rows:
        if math.isfinite(row[metric]):
            patients.setdefault(row["patient"], []).append(row[metric])
    return [float(np.mean(values)) for values in patients.values()]


def _of_voxels(pair: Pair, displacement: np.ndarray, region: str) -> tuple[np.ndarray, np.ndarray]:
    """Length of the displacement's error, and where it counts."""
    error = np.linalg.norm(displacement - pair.displacement, axis=-1)
    return error, _region(pair, region) & inside(grid_points(error.shape) + pair.displacement, error.shape)


def _of_surfaces(pair: Pair, displacement: np.ndarray, _: str) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each voxel of a moved surface to that of the fixed image, voxels, and where these surfaces are."""
    if pair.moving_labels is None or pair.fixed_labels is None:
        raise ValueError(f"{pair.case_id}: the error of real motion is known where both images have labels")
    values = [int(value) for value in np.intersect1d(pair.moving_labels, pair.fixed_labels) if value != 0]
    distances = [
        surface_distance_map(moved, pair.fixed_labels == value)
        for value, moved in zip(values, warp_labels(pair.moving_labels, displacement, values), strict=True)
    ]
    # Where the surfaces of two structures meet, the one that is farther off counts.
    error = functools.reduce(np.fmax, distances, np.full(pair.fixed.shape, np.nan))
    return np.nan_to_num(error), np.isfinite(error)


def _region(pair: Pair, region: str) -> np.ndarray:
    if region not in REGIONS:
        raise ValueError(f"region must be one of {REGIONS}, got {region!r}")
    if region == "foreground":
        return foreground(pair)
    if pair.fixed_labels is None:
        raise ValueError(f"{pair.case_id}: has no labels, take the region foreground")
    return pair.fixed_labels > 0
