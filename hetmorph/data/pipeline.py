"""Training batches: batch k depends on (seed, k) and nothing else, so a run resumes exactly where it stopped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hetmorph.data.pair import Pair

SHIFT_FRACTION = 1 / 16
GAMMA = 1.25
DARKEST = 0.85


def pipeline(
    pairs: Sequence[Pair],
    batch_size: int,
    steps: int,
    seed: int,
    start_step: int = 0,
    bidir: bool = False,
    augment: bool = True,
) -> tf.data.Dataset:
    """Streams batches `start_step` … `steps - 1` of an endless, reshuffled pass over the pairs.

    Every sample comes up once before any comes up twice. Augmentation is the same for both images of a pair
    and never interpolates: flips, quarter turns (square images), shifts by whole voxels, gamma and
    brightness within [0, 1].

    Args:
        pairs: samples of one shape `[*S]`.
        batch_size: samples a batch; may exceed the number of pairs.
        steps: number of batches of the whole training.
        seed: another seed gives another order and other augmentation.
        start_step: first batch wanted, for resuming; batches before it are not computed.
        bidir: also yield the moving image as a target.
        augment: switch off for plain shuffling.

    Returns:
        Finite dataset of `((moving, fixed), (fixed, zeros))`, with `bidir` `((moving, fixed), (fixed,
        moving, zeros))`; float32, images `[B, *S, 1]`, zeros `[B, *S, N]` as the target of the
        displacement's penalty.

    Raises:
        ValueError: no pairs, pairs of different shapes, or numbers out of range.
    """
    shape = _common_shape(pairs)
    for pair in pairs:
        if not (np.isfinite(pair.moving).all() and np.isfinite(pair.fixed).all()):
            raise ValueError(f"{pair.case_id}: expected finite intensities, received NaN or infinite ones.")
    if batch_size < 1 or not 0 <= start_step <= steps:
        raise ValueError(
            f"expected batch_size >= 1 and 0 <= start_step <= steps, received {batch_size}, {start_step}, {steps}."
        )
    # one tensor [n, *S, 2], moving and fixed as channels: each operation then treats both alike
    images = tf.constant(np.stack([np.stack([pair.moving, pair.fixed], -1) for pair in pairs]), tf.float32)

    def batch(step: tf.Tensor) -> tuple:
        both = tf.gather(images, _indices(step, batch_size, len(pairs), seed))
        if augment:
            both = _augment(both, _key(seed, step, 1), shape)
        moving, fixed = both[..., :1], both[..., 1:]
        zeros = tf.zeros((batch_size, *shape, len(shape)))
        return (moving, fixed), ((fixed, moving, zeros) if bidir else (fixed, zeros))

    numbers = tf.data.Dataset.range(start_step, steps)
    return numbers.map(batch, num_parallel_calls=1, deterministic=True).prefetch(2)


def _common_shape(pairs: Sequence[Pair]) -> tuple[int, ...]:
    if not pairs:
        raise ValueError("expected at least one pair, received none.")
    shapes = {pair.moving.shape for pair in pairs}
    if len(shapes) > 1:
        raise ValueError(f"expected pairs of one shape (a crop or size gives them one), received {sorted(shapes)[:5]}.")
    return shapes.pop()


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


def _augment(both: tf.Tensor, key: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    batch, rank = both.shape[0], len(shape)
    keys = [tf.random.experimental.stateless_fold_in(key, number) for number in range(2 * rank + 3)]
    if rank > 1 and shape[0] == shape[1]:
        swapped = tf.transpose(both, (0, 2, 1, *range(3, rank + 2)))
        both = tf.where(_coin(batch, rank, keys[0]), swapped, both)
    for axis in range(rank):
        both = tf.where(_coin(batch, rank, keys[1 + axis]), tf.reverse(both, [1 + axis]), both)
        both = _shift(both, 1 + axis, keys[1 + rank + axis])
    gamma = GAMMA ** _uniform(batch, rank, keys[-2], -1.0, 1.0)
    return both**gamma * _uniform(batch, rank, keys[-1], DARKEST, 1.0)


def _uniform(batch: int, rank: int, key: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform((batch,) + (1,) * (rank + 1), key, low, high, alg="philox")


def _coin(batch: int, rank: int, key: tf.Tensor) -> tf.Tensor:
    return _uniform(batch, rank, key, 0.0, 1.0) < 0.5


def _shift(both: tf.Tensor, axis: int, key: tf.Tensor) -> tf.Tensor:
    """Moves each sample along an axis by a whole number of voxels; zeros come in."""
    batch, length = both.shape[0], both.shape[axis]
    reach = int(length * SHIFT_FRACTION)
    if reach == 0:
        return both
    offset = tf.random.stateless_uniform((batch, 1), key, -reach, reach + 1, tf.int32, alg="philox")
    padding = [(0, 0)] * len(both.shape)
    padding[axis] = (reach, reach)
    window = reach + offset + tf.range(length)[None]
    if axis > 1:  # gather per sample along an inner axis: bring it next to the batch
        order = [0, axis, *(other for other in range(1, len(both.shape)) if other != axis)]
        back = [order.index(position) for position in range(len(order))]
        moved = tf.gather(tf.transpose(tf.pad(both, padding), order), window, batch_dims=1)
        return tf.transpose(moved, back)
    return tf.gather(tf.pad(both, padding), window, batch_dims=1)
