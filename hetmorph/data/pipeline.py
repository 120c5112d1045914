"""Training batches: batch k depends on (seed, k) and nothing else, so a run resumes exactly where it stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hetmorph.data.lazy import LazyPairs
from hetmorph.data.pair import Pair, cases_of

SHIFT_FRACTION = 1 / 16
GAMMA = 1.25
DARKEST = 0.85
READERS = 4  # pairs that are read at once


def pipeline(
    pairs: Sequence[Pair],
    batch_size: int,
    steps: int,
    seed: int,
    start_step: int = 0,
    bidir: bool = False,
    augment: bool = True,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Streams batches `start_step` … `steps - 1` of an endless, reshuffled pass over the pairs.

    Every sample comes up once before any comes up twice. Each pair is read when its batch is made, a few ahead of
    the training, and let go again. Augmentation is the same for both images of a pair and never interpolates: flips,
    quarter turns (in a plane of square voxels and as many of them either way), shifts by whole voxels, gamma and
    brightness within [0, 1].

    Args:
        pairs: samples of one shape `[*S]`; `load` gives some that are read when they are needed.
        batch_size: samples a batch; may exceed the number of pairs.
        steps: number of batches of the whole training.
        seed: another seed gives another order and other augmentation.
        start_step: first batch wanted, for resuming; batches before it are not computed.
        bidir: also yield the moving image as a target.
        augment: switch off for plain shuffling.
        part: (k, n) yields the k-th of n equal parts of every batch, and reads no more than that: all parts together
            are the batches that (0, 1) yields, augmentation included.

    Returns:
        Finite dataset of `((moving, fixed), (fixed, zeros))`, with `bidir` `((moving, fixed), (fixed,
        moving, zeros))`; float32, images `[B, *S, 1]`. The zeros, target of the displacement's penalty, which looks
        at the displacement alone, are `[B, 1, …, 1]` and broadcast to it.

    Raises:
        ValueError: no pairs, pairs of different shapes, or numbers out of range.
    """
    shape = _common_shape(pairs)
    if not isinstance(pairs, LazyPairs):  # those were checked when they were read
        _check_finite(pairs)
    if batch_size < 1 or not 0 <= start_step <= steps:
        raise ValueError(
            f"expected batch_size >= 1 and 0 <= start_step <= steps, received {batch_size}, {start_step}, {steps}."
        )
    if not 0 <= part[0] < part[1] or batch_size % part[1]:
        raise ValueError(f"expected one of n equal parts of a batch of {batch_size}, received {part[0]} of {part[1]}.")
    rows = _rows(batch_size, *part)

    def batch(step: tf.Tensor, samples: tuple[tf.Tensor, tf.Tensor]) -> tuple:
        both, square = samples
        if augment:
            both = _augment(both, square, _Draws(batch_size, rows, len(shape), _key(seed, step, 1)), shape)
        moving, fixed = both[..., :1], both[..., 1:]
        zeros = tf.zeros((len(rows),) + (1,) * (len(shape) + 1))
        return (moving, fixed), ((fixed, moving, zeros) if bidir else (fixed, zeros))

    numbers = tf.data.Dataset.range(start_step, steps)
    own = slice(rows.start, rows.stop)
    order = numbers.map(lambda step: _indices(step, batch_size, len(pairs), seed)[own]).unbatch()
    samples = order.map(_reader(pairs, shape), num_parallel_calls=READERS, deterministic=True)
    samples = samples.batch(len(rows), drop_remainder=True)
    batches = tf.data.Dataset.zip((numbers, samples)).map(batch, num_parallel_calls=1, deterministic=True)
    return batches.apply(tf.data.experimental.assert_cardinality(steps - start_step)).prefetch(2)


def _reader(pairs: Sequence[Pair], shape: tuple[int, ...]) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Function of a position: both images as the channels of `[*S, 2]`, and whether its first plane may be turned."""

    def read(index: int) -> tuple[np.ndarray, np.bool_]:
        pair = pairs[int(index)]
        images = np.stack([pair.moving, pair.fixed], -1).astype(np.float32, copy=False)
        return images, np.bool_(_turns(shape, pair.spacing))

    def as_tensors(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, square = tf.numpy_function(read, [index], (tf.float32, tf.bool))
        return tf.ensure_shape(images, (*shape, 2)), tf.ensure_shape(square, ())

    return as_tensors


def _turns(shape: tuple[int, ...], spacing: tuple[float, ...]) -> bool:
    """Whether the first two axes can change places: as many voxels along either, and as wide ones."""
    return len(shape) > 1 and shape[0] == shape[1] and math.isclose(spacing[0], spacing[1], rel_tol=0.01)


def _common_shape(pairs: Sequence[Pair]) -> tuple[int, ...]:
    if not len(pairs):
        raise ValueError("expected at least one pair, received none.")
    shapes = {case.shape for case in cases_of(pairs)}
    if len(shapes) > 1:
        raise ValueError(f"expected pairs of one shape (a crop or size gives them one), received {sorted(shapes)[:5]}.")
    return shapes.pop()


def _check_finite(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        if not (np.isfinite(pair.moving).all() and np.isfinite(pair.fixed).all()):
            raise ValueError(f"{pair.case_id}: expected finite intensities, received NaN or infinite ones.")


def _key(seed: int, step: tf.Tensor, purpose: int) -> tf.Tensor:
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.experimental.stateless_fold_in(key, purpose)


def _indices(step: tf.Tensor, batch_size: int, count: int, seed: int) -> tf.Tensor:
    """Positions step·B … step·B + B - 1 in the sequence permutation 0, permutation 1, …"""
    first = step * batch_size
    epoch = first // count
    orders = [
        tf.argsort(tf.random.stateless_uniform((count,), _key(seed, epoch + ahead, 0), alg="philox"), stable=True)
        for ahead in range((count + batch_size - 2) // count + 1)
    ]
    return tf.gather(tf.concat(orders, 0), first - epoch * count + tf.range(batch_size, dtype=tf.int64))


def _rows(batch_size: int, k: int, n: int) -> range:
    """Positions of the k-th of n equal parts of a batch."""
    size = batch_size // n
    return range(k * size, (k + 1) * size)


class _Draws:
    """Random numbers of the samples of a batch: drawn for the whole batch, so that they are the same in any part.

    Args:
        batch_size: samples of the whole batch.
        rows: positions in it of the samples that are here.
        rank: spatial axes.
        key: of the batch; each draw has a number of its own.
    """

    def __init__(self, batch_size: int, rows: range, rank: int, key: tf.Tensor):
        self.batch_size, self.rows, self.rank, self.key = batch_size, rows, rank, key

    def uniform(self, number: int, low: float, high: float) -> tf.Tensor:
        """`[B, 1, …, 1]`, to go with images."""
        return self._drawn(number, (1,) * (self.rank + 1), low, high, tf.float32)

    def coin(self, number: int) -> tf.Tensor:
        """The same, true or false."""
        return self.uniform(number, 0.0, 1.0) < 0.5

    def offset(self, number: int, reach: int) -> tf.Tensor:
        """`[B, 1]`, whole numbers from -reach to reach."""
        return self._drawn(number, (1,), -reach, reach + 1, tf.int32)

    def _drawn(self, number: int, shape: tuple[int, ...], low, high, dtype: tf.DType) -> tf.Tensor:
        key = tf.random.experimental.stateless_fold_in(self.key, number)
        drawn = tf.random.stateless_uniform((self.batch_size, *shape), key, low, high, dtype, alg="philox")
        return drawn[self.rows.start : self.rows.stop]


def _augment(both: tf.Tensor, square: tf.Tensor, draws: _Draws, shape: tuple[int, ...]) -> tf.Tensor:
    """Batches of both images; `square`, `[B]`, says of which the first two axes may change places."""
    rank = len(shape)
    if rank > 1 and shape[0] == shape[1]:
        swapped = tf.transpose(both, (0, 2, 1, *range(3, rank + 2)))
        turned = draws.coin(0) & tf.reshape(square, (-1,) + (1,) * (rank + 1))
        both = tf.where(turned, swapped, both)
    for axis in range(rank):
        both = tf.where(draws.coin(1 + axis), tf.reverse(both, [1 + axis]), both)
        both = _shift(both, 1 + axis, draws, 1 + rank + axis)
    gamma = GAMMA ** draws.uniform(2 * rank + 1, -1.0, 1.0)
    return both**gamma * draws.uniform(2 * rank + 2, DARKEST, 1.0)


def _shift(both: tf.Tensor, axis: int, draws: _Draws, number: int) -> tf.Tensor:
    """Moves each sample along an axis by a whole number of voxels; zeros come in."""
    length = both.shape[axis]
    reach = int(length * SHIFT_FRACTION)
    if reach == 0:
        return both
    padding = [(0, 0)] * len(both.shape)
    padding[axis] = (reach, reach)
    window = reach + draws.offset(number, reach) + tf.range(length)[None]
    if axis > 1:  # gather per sample along an inner axis: bring it next to the batch
        order = [0, axis, *(other for other in range(1, len(both.shape)) if other != axis)]
        back = [order.index(position) for position in range(len(order))]
        moved = tf.gather(tf.transpose(tf.pad(both, padding), order), window, batch_dims=1)
        return tf.transpose(moved, back)
    return tf.gather(tf.pad(both, padding), window, batch_dims=1)
