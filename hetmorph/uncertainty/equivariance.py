"""How much a registration changes when it should not: its failure to follow known transforms of the moving image.

f registers A to B by φ = f(A, B), A∘φ ≈ B. Of a perturbed image A∘τ it should answer τ⁻¹∘φ; so g = τ∘f(A∘τ, B) should
be φ again, whatever τ. The spread of g over random τ is the uncertainty. An error that moves with τ is invisible to it.

Reference:
    Tian, Hu, Iglesias, arXiv:2509.23355.
"""

import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from hetmorph.data.transforms import Family, Map, displacement_of, family
from hetmorph.evaluation import wrap
from hetmorph.io.geometry import grid_points
from hetmorph.ops.warp import warp
from hetmorph.ops.xla import compiled_kernels
from hetmorph.transforms.sampling import inside
from hetmorph.uncertainty.draws import Moments, batch_size, finite, seed_of
from hetmorph.uncertainty.result import UncertaintyMap, from_moments

LEAST_KEPT = 0.5  # share of the transforms that must leave a voxel inside


def equivariance_uncertainty(
    model,
    moving,
    fixed,
    transforms: str | Family = "translation",
    n: int = 50,
    batch: int | None = None,
    seed: int = 0,
    samples: int = 1,
    covariance: bool = True,
    progress: bool = True,
    name: str = "equivariance",
) -> UncertaintyMap:
    """Spread of g_k = τ_k∘f(A∘τ_k, B) over n random transforms τ_k, at every voxel of the fixed grid.

    S(y) = 1/(n−1) Σ (g_k(y) − ḡ(y))(g_k(y) − ḡ(y))ᵀ, std = √tr S. A voxel takes part in a draw if φ_k(y) lies inside
    the perturbed image and g_k(y) inside the moving one; it is valid if it takes part in half of the draws.

    With `samples` k > 1 of a random model, answers differ for one τ too, and the variance falls into two terms:
    E_τ[J_τ Σ J_τᵀ], the spread of the network, and Cov_τ[J_τ μ], what its bias μ does under the transforms. The second
    is the variance of the means of k samples less 1/k of the first, and not below 0.

    Args:
        model: anything `evaluation.wrap` takes.
        moving, fixed: `[*S]`, intensities in [0, 1], 2-D or 3-D.
        transforms: a family of transforms, its name (`hetmorph.data.transforms.FAMILIES`), or several to compose.
        n: number of transforms, at least 2.
        batch: pairs registered together; None for as many as have the voxels of eight slices of 128 × 128.
        seed: seed of transforms and samples (default: 0). Same seed, same transforms, whatever the batch.
        samples: registrations for each transform, of a model with dropout or a predicted distribution, or a function.
        covariance: keep the whole matrix; False keeps the diagonal, half of the memory in 3-D.
        progress: show a progress bar on stderr.
        name: what the result is called.

    Returns:
        A map of n · samples registrations: mean, covariance, std in voxels (`std_mm` for millimetres), valid, and with
        several samples `intrinsic` and `jitter`.

    Raises:
        ValueError: n < 2, samples < 1, images that do not fit or hold NaN, samples of a model that always answers the
            same, an answer with NaN, a transform that returns another shape, or transforms so large that no voxel stays
            inside.

    Example:
        >>> result = equivariance_uncertainty(model, moving, fixed, transforms="translation", n=50)
        >>> result.std.shape, result.valid_share
    """
    start = time.perf_counter()
    predictor = wrap(model)
    moving, fixed = predictor.checked(moving, fixed)
    if n < 2 or samples < 1:
        raise ValueError(f"expected n of at least 2 transforms and samples of at least 1, got {n} and {samples}")
    draws = _Draws(predictor, moving, fixed, family(transforms), n, batch, seed, samples)
    with tqdm(draws, total=n * samples, desc=name, unit="pass", disable=not progress) as passes:
        moments, within = _spread(passes, draws.points, samples, covariance)
    valid = moments.count >= max(2, LEAST_KEPT * n)
    terms = {} if samples == 1 else _terms(moments, within, samples)
    return from_moments(moments, name, n * samples, time.perf_counter() - start, valid, n, **terms)


class _Draws:
    """Iterable of (τ, its answer φ(y)) in order, each τ `samples` times; images go through the model in batches."""

    def __init__(self, predictor, moving, fixed, transforms, n, batch, seed, samples):
        self.predictor, self.transforms = predictor, transforms
        self.moving, self.fixed = moving, fixed
        self.points = grid_points(moving.shape)
        self.batch = batch_size(batch, moving.shape)
        self.n, self.samples, self.seed = n, samples, seed

    def __iter__(self) -> Iterator[tuple[Map, np.ndarray]]:
        rng, total = np.random.default_rng(self.seed), self.n * self.samples
        drawn = (self.transforms.draw(rng, self.moving.shape) for _ in range(self.n))
        each = (tau for tau in drawn for _ in range(self.samples))
        for first in range(0, total, self.batch):
            taus = [next(each) for _ in range(min(self.batch, total - first))]
            answers = self.predictor.displacements(
                self._perturbed(taus),
                np.broadcast_to(self.fixed, (len(taus), *self.fixed.shape)),
                seed=None if self.samples == 1 else seed_of(self.seed, first),
            )
            for tau, displacement in zip(taus, finite(answers), strict=True):
                yield tau, self.points + displacement

    def _perturbed(self, taus: list[Map]) -> np.ndarray:
        """A∘τ for each τ, `[B, *S]`."""
        fields = np.stack([displacement_of(tau, self.points) for tau in taus])
        images = np.broadcast_to(self.moving[..., None], (len(taus), *self.moving.shape, 1))
        with compiled_kernels():
            return warp(images, fields).numpy()[..., 0]


def _spread(passes, points: np.ndarray, samples: int, covariance: bool) -> tuple[Moments, np.ndarray | None]:
    """Moments over the transforms of the mean answer to each, and the summed covariances within a transform."""
    shape = points.shape[:-1]
    moments = Moments(shape, covariance)
    within, of_one = np.zeros((len(moments.pairs), *shape)) if samples > 1 else None, None
    for number, (tau, answer) in enumerate(passes):
        back = tau(answer)
        kept = inside(answer, shape) & inside(back, shape)
        if samples == 1:
            moments.add(back - points, kept)
            continue
        of_one = of_one or Moments(shape, covariance)
        of_one.add(back - points, kept)
        if (number + 1) % samples == 0:
            complete = of_one.count == samples
            moments.add(of_one.mean, complete)
            within += np.where(complete, of_one.entries, 0)
            of_one = None
    return moments, within


def _terms(moments: Moments, within: np.ndarray, samples: int) -> dict[str, np.ndarray]:
    """Covariance of one sample, its spread within a transform and over them; see `equivariance_uncertainty`."""
    within = within / np.maximum(moments.count, 1)
    # The means of k samples vary by 1/k of the spread within: what is added makes it the whole.
    entries = moments.entries + (1 - 1 / samples) * within
    diagonal = [number for number, (i, j) in enumerate(moments.pairs) if i == j]
    intrinsic = within[diagonal].sum(0)
    jitter = np.maximum(entries[diagonal].sum(0) - intrinsic, 0)
    return {"entries": entries, "intrinsic": intrinsic, "jitter": jitter}
