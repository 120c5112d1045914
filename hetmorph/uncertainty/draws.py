"""What estimates that register many times share: how many pairs go through the model together, and running moments.

Mean and covariance are of vectors that arrive one field after the other: memory does not grow with their number.
"""

import itertools

import numpy as np

from hetmorph.evaluation.predictor import pairs_together


class Moments:
    """Running mean and covariance of a vector at each voxel, over the fields in which the voxel takes part.

    Args:
        shape: spatial size.
        covariance: keep the whole matrix, N(N+1)/2 numbers a voxel; otherwise its diagonal, N.

    Reference:
        Welford, Technometrics 1962, doi:10.1080/00401706.1962.10490022.
    """

    def __init__(self, shape, covariance: bool = True):
        ndims = len(shape)
        self.pairs = [
            pair
            for pair in itertools.combinations_with_replacement(range(ndims), 2)
            if covariance or pair[0] == pair[1]
        ]
        self.count = np.zeros(shape, np.int32)
        self._mean = np.zeros((ndims, *shape))
        self._sums = np.zeros((len(self.pairs), *shape))

    def add(self, vectors: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Take in one field.

        Args:
            vectors: `[*S, N]`; where not valid they may be anything.
            valid: `[*S]` booleans, voxels that take part. None takes all.
        """
        self.count += True if valid is None else valid
        share = 1 / np.maximum(self.count, 1)
        rest, steps = 1 - share, []
        for axis, mean in enumerate(self._mean):
            step = vectors[..., axis] - mean
            if valid is not None:
                step = np.where(valid, step, 0)
            mean += step * share
            steps.append(step)
        # (x − new mean) is (1 − 1/n) of (x − old mean).
        for total, (i, j) in zip(self._sums, self.pairs, strict=True):
            total += steps[i] * steps[j] * rest

    @property
    def mean(self) -> np.ndarray:
        """`[*S, N]`; 0 where nothing took part."""
        return np.moveaxis(self._mean, 0, -1)

    @property
    def entries(self) -> np.ndarray:
        """Entries of the covariance named in `pairs`, `[pairs, *S]`, divisor n − 1; 0 where fewer than 2 took part."""
        return self._sums / np.maximum(self.count - 1, 1)


def batch_size(batch: int | None, shape) -> int:
    """The batch asked for; for None, as many as go through a model at once."""
    if batch is None:
        return pairs_together(shape)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    return batch


def finite(displacements: np.ndarray) -> np.ndarray:
    """The displacements, which are refused if any is NaN or infinite."""
    if not np.isfinite(displacements).all():
        raise ValueError("the model answered with a displacement that holds NaN or infinity")
    return displacements


def seed_of(seed: int, first: int) -> int:
    """The seed of the batch that begins with a draw."""
    return int(np.random.SeedSequence([seed, first]).generate_state(1)[0])
