"""Spread of repeated registrations of one pair: dropout, sampled velocities, several models, noisy images."""

import time
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from hetmorph.evaluation import wrap
from hetmorph.uncertainty.draws import Moments, batch_size, finite, seed_of
from hetmorph.uncertainty.result import UncertaintyMap, from_moments

MISSING = {
    "dropout": "this network has no dropout; TransMorph has (drop_path above 0), VxmDense has not",
    "posterior": "this network predicts no distribution of velocities; VxmDense and HetVxmDense with use_probs=True do "
    "(objectives vxm-diff and het-z)",
}


def dropout_uncertainty(model, moving, fixed, **options) -> UncertaintyMap:
    """Spread of the displacement with dropout (of TransMorph: drop path) left on: Monte Carlo dropout.

    Args:
        model: a Keras model or the path of one; anything `evaluation.wrap` takes.
        moving, fixed: `[*S]`, intensities in [0, 1].
        options: `n` draws (50), `batch`, `seed`, `covariance`, `progress`, as in `equivariance_uncertainty`.

    Raises:
        ValueError: a network without dropout; otherwise as `equivariance_uncertainty`.

    Reference:
        Gal and Ghahramani, ICML 2016, arXiv:1506.02142.
    """
    return _sampled("dropout", model, moving, fixed, **options)


def posterior_uncertainty(model, moving, fixed, **options) -> UncertaintyMap:
    """Spread of the displacement over velocities drawn from the predicted N(μ, σ_z²), each integrated.

    Arguments as `dropout_uncertainty`.

    Raises:
        ValueError: a network that predicts no distribution; otherwise as `equivariance_uncertainty`.

    Reference:
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """
    return _sampled("posterior", model, moving, fixed, **options)


def noise_uncertainty(model, moving, fixed, level: float = 0.02, **options) -> UncertaintyMap:
    """Spread of the displacement under Gaussian noise added to both images, which stay in [0, 1].

    Args:
        level: standard deviation of the noise, intensity.
        model, moving, fixed, options: as in `dropout_uncertainty`.

    Raises:
        ValueError: a level that is not positive; otherwise as `equivariance_uncertainty`.
    """
    if not 0 < level < np.inf:
        raise ValueError(f"the level of the noise must be positive, got {level}")
    predictor = wrap(model)
    moving, fixed = predictor.checked(moving, fixed)

    def answers(count, seed):
        rng = np.random.default_rng(seed)
        images = [
            np.clip(image + level * rng.standard_normal((count, *image.shape)), 0, 1) for image in (moving, fixed)
        ]
        return predictor.displacements(*images)

    return _drawn("noise", moving.shape, answers, **options)


def ensemble_uncertainty(
    models: Iterable, moving, fixed, covariance: bool = True, progress: bool = True
) -> UncertaintyMap:
    """Spread of the displacement over several models, e.g. one method trained with several seeds.

    Args:
        models: at least two, each anything `evaluation.wrap` takes.
        moving, fixed, covariance, progress: as in `equivariance_uncertainty`.

    Raises:
        ValueError: a single model; otherwise as `equivariance_uncertainty`.

    Reference:
        Lakshminarayanan et al., NeurIPS 2017, arXiv:1612.01474.
    """
    start = time.perf_counter()
    models = list(models) if isinstance(models, Iterable) and not isinstance(models, str) else [models]
    if len(models) < 2:
        raise ValueError(f"an ensemble needs at least 2 models, got {len(models)}")
    moments = Moments(np.shape(moving), covariance)
    for model in tqdm(models, desc="ensemble", unit="pass", disable=not progress):
        moments.add(finite(wrap(model).displacements([moving], [fixed]))[0])
    count = len(models)
    return from_moments(moments, "ensemble", count, time.perf_counter() - start, moments.count > 1, count)


def _sampled(source: str, model, moving, fixed, **options) -> UncertaintyMap:
    predictor = wrap(model)
    if source not in predictor.random:
        raise ValueError(MISSING[source])
    if len(predictor.random) > 1:
        raise ValueError(f"this network draws {' and '.join(sorted(predictor.random))}, which cannot be told apart")
    moving, fixed = predictor.checked(moving, fixed)

    def answers(count, seed):
        images = [np.broadcast_to(image, (count, *image.shape)) for image in (moving, fixed)]
        return predictor.displacements(*images, seed=seed)

    return _drawn(source, moving.shape, answers, **options)


def _drawn(name, shape, answers, n=50, batch=None, seed=0, covariance=True, progress=True) -> UncertaintyMap:
    """Spread of n displacements that `answers(count, seed)` draws, some at a time."""
    start = time.perf_counter()
    if n < 2:
        raise ValueError(f"expected n of at least 2 draws, got {n}")
    batch, moments = batch_size(batch, shape), Moments(shape, covariance)
    with tqdm(total=n, desc=name, unit="pass", disable=not progress) as bar:
        for first in range(0, n, batch):
            count = min(batch, n - first)
            for displacement in finite(answers(count, seed_of(seed, first))):
                moments.add(displacement)
            bar.update(count)
    return from_moments(moments, name, n, time.perf_counter() - start, moments.count > 1, n)
