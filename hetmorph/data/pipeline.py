"""Training batches: batch k depends on (seed, k) and nothing else, so a run resumes exactly where it stopped."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hetmorph.data import random_affine
from hetmorph.data.lazy import LazyPairs
from hetmorph.data.pair import MASKS, POINTS, Pair, cases_of
from hetmorph.ops.xla import compiled_kernels

LABELS = {"labels_moving": "moving_labels", "labels_fixed": "fixed_labels"}  # of a batch, of a pair
SHIFT_FRACTION = 1 / 16
GAMMA = 1.25
DARKEST = 0.85
READERS = 2  # batches that are read at once
MAKERS = 8  # ... and, beside a GPU, made at once, at most: all of them may lie in memory
# No condition or loop below asks for a tensor: there is nothing for autograph to convert, which takes its time.
_AS_WRITTEN = tf.autograph.experimental.do_not_convert


def pipeline(
    pairs: Sequence[Pair],
    batch_size: int,
    steps: int,
    seed: int,
    start_step: int = 0,
    bidir: bool = False,
    augment: bool = True,
    part: tuple[int, int] = (0, 1),
    labels: bool = False,
    affine: float = 0.0,
) -> tf.data.Dataset:
    """Streams batches `start_step` … `steps - 1` of an endless, reshuffled pass over the pairs.

    Every sample comes up once before any comes up twice. Pairs of several joined data sets (`Case.dataset`) take turns,
    one of each set after the other, whatever the numbers of their pairs; the former then holds within each set. Each
    pair is read when its batch is made, a few ahead of the training, and let go again. Augmentation is the same for all
    of a pair and never interpolates: flips, quarter turns (in a plane of square voxels and as many of them either way),
    shifts by whole voxels, gamma and brightness within [0, 1].

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
        labels: also yield the label maps of both images.
        affine: strength of random affine maps, see `hetmorph.data.random_affine`; with `augment`, each image is then
            interpolated once. Published is 0.05.

    Returns:
        Finite dataset of `((moving, fixed), (fixed, zeros))`, with `bidir` `((moving, fixed), (fixed,
        moving, zeros))`; float32, images `[B, *S, 1]`. The zeros, target of the displacement's penalty, which looks
        at the displacement alone, are `[B, 1, …, 1]` and broadcast to it. Where any pair has masks or landmarks,
        `((moving, fixed, known), …)`, as `fit` of a registration model takes them: masks `[B, *S, 1]`, of pairs without
        one 1 everywhere; points `[B, P, N]`, NaN where a pair has fewer, or where a shift moved them out of the image;
        label maps `[B, *S, 1]`, whole numbers, of pairs without them 0 everywhere.

    Raises:
        ValueError: no pairs, pairs of different shapes, or numbers out of range.
    """
    shape = common_shape(pairs)
    if not isinstance(pairs, LazyPairs):  # those were checked when they were read
        _check_finite(pairs)
    if batch_size < 1 or not 0 <= start_step <= steps:
        raise ValueError(
            f"expected batch_size >= 1 and 0 <= start_step <= steps, received {batch_size}, {start_step}, {steps}."
        )
    if not 0 <= part[0] < part[1] or batch_size % part[1]:
        raise ValueError(f"expected one of n equal parts of a batch of {batch_size}, received {part[0]} of {part[1]}.")
    if not 0 <= affine <= random_affine.LARGEST or (affine and not augment):
        raise ValueError(
            f"expected affine maps of strength 0 to {random_affine.LARGEST}, and augmentation with them, received "
            f"{affine} with augment={augment}."
        )
    rows = _rows(batch_size, *part)

    form, kinds = _Form.of(pairs, shape, labels), _by_set(pairs)

    @_AS_WRITTEN
    def batch(step: tf.Tensor, samples: tuple[tf.Tensor, ...]) -> tuple:
        arrays, square, unmasked, points = samples
        if augment:
            draws = _Draws(batch_size, rows, len(shape), _key(seed, step, 1))
            arrays, points = _augment(arrays, points, square, draws, shape)
            if affine:
                drawn = random_affine.random_maps(*draws.affine(2 * len(shape) + 3), shape, affine)
                with compiled_kernels():
                    arrays = random_affine.move_arrays(arrays, form.names, drawn)
                points = random_affine.move_points(points, drawn)
        moving, fixed, *maps = tf.split(arrays, form.channels, -1)
        zeros = tf.zeros((len(rows),) + (1,) * (len(shape) + 1))
        known = form.known(maps, unmasked, points)
        return (moving, fixed, *([known] if known else [])), ((fixed, moving, zeros) if bidir else (fixed, zeros))

    numbers = tf.data.Dataset.range(start_step, steps)
    own = slice(rows.start, rows.stop)
    order = numbers.map(_AS_WRITTEN(lambda step: _indices(step, batch_size, kinds, seed)[own]))
    samples = order.map(_reader(pairs, form, len(rows)), num_parallel_calls=READERS, deterministic=True)
    # Beside a GPU the cores have nothing else to do; without one they train.
    at_once = min(os.cpu_count() or 1, MAKERS) if tf.config.list_physical_devices("GPU") else 1
    batches = tf.data.Dataset.zip((numbers, samples)).map(batch, num_parallel_calls=at_once, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps - start_step)).prefetch(2)
    return batches.with_options(_untuned())


def _untuned() -> tf.data.Options:
    """TensorFlow's thread that looks for better numbers sleeps up to a minute, and whoever lets go of a stream before
    its end, as `fit` does, may wait until it wakes. All numbers are given above: there is nothing for it to find."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


class _Form(NamedTuple):
    """What the samples of a stream are made of.

    Attributes:
        shape: spatial sizes.
        masks: names of those that any pair has.
        points: landmarks of the pair that has most.
        labels: those of `LABELS` if they are wanted.
    """

    shape: tuple[int, ...]
    masks: tuple[str, ...]
    points: int
    labels: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair], shape: tuple[int, ...], labels: bool) -> _Form:
        cases = cases_of(pairs)
        masks = tuple(name for name in MASKS if any(name in case.masks for case in cases))
        return cls(shape, masks, max(case.points for case in cases), tuple(LABELS) if labels else ())

    @property
    def names(self) -> tuple[str, ...]:
        """What the channels are."""
        return (*random_affine.SIDES, *self.masks, *self.labels)

    @property
    def channels(self) -> int:
        return len(self.names)

    def known(self, maps: list[tf.Tensor], unmasked: tf.Tensor, points: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is known of a batch, of augmented masks and label maps, and points `[B, P, 2N]`."""
        ndims = len(self.shape)
        masks, labels = maps[: len(self.masks)], maps[len(self.masks) :]
        everywhere = tf.split(tf.reshape(unmasked, (-1, *(1,) * ndims, len(self.masks))), len(self.masks) or 1, -1)
        known = {name: tf.maximum(mask, all_) for name, mask, all_ in zip(self.masks, masks, everywhere, strict=False)}
        if self.points:
            last = tf.constant(self.shape, tf.float32) - 0.5
            inside = tf.reduce_all((points[..., ndims:] >= -0.5) & (points[..., ndims:] <= last), -1, keepdims=True)
            points = tf.where(inside, points, np.nan)
            known |= dict(zip(POINTS, tf.split(points, 2, -1), strict=True))
        return known | dict(zip(self.labels, labels, strict=True))


def _reader(pairs: Sequence[Pair], form: _Form, count: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Function of `count` positions: images, masks and label maps as the channels of `[B, *S, C]`; whether the first
    plane of each pair may be turned; which masks it has not; its points `[P, 2N]`, moving and fixed."""
    ndims = len(form.shape)

    def read(positions: np.ndarray) -> tuple[np.ndarray, ...]:
        arrays = np.empty((count, *form.shape, form.channels), np.float32)
        points = np.full((count, form.points, 2 * ndims), np.nan, np.float32)
        square, unmasked = np.empty(count, bool), np.empty((count, len(form.masks)), np.float32)
        for k, position in enumerate(positions):
            pair = pairs[int(position)]
            masks = [getattr(pair, name) for name in form.masks]
            labels = [getattr(pair, LABELS[name]) for name in form.labels]
            if any(one is None for one in labels):  # those of one image alone overlap with nothing
                labels = [0] * len(labels)
            maps = [*(1 if mask is None else mask for mask in masks), *labels]
            for channel, array in enumerate([pair.moving, pair.fixed, *maps]):
                arrays[k, ..., channel] = array
            if form.points and pair.points_fixed is not None:
                points[k, : len(pair.points_fixed)] = np.concatenate([getattr(pair, name) for name in POINTS], -1)
            square[k], unmasked[k] = _turns(form.shape, pair.spacing), [mask is None for mask in masks]
        return arrays, square, unmasked, points

    @_AS_WRITTEN
    def as_tensors(positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
        kinds = (tf.float32, tf.bool, tf.float32, tf.float32)
        shapes = ((*form.shape, form.channels), (), (len(form.masks),), (form.points, 2 * ndims))
        read_now = tf.numpy_function(read, [positions], kinds)
        return tuple(tf.ensure_shape(one, (count, *shape)) for one, shape in zip(read_now, shapes, strict=True))

    return as_tensors


def _turns(shape: tuple[int, ...], spacing: tuple[float, ...]) -> bool:
    """Whether the first two axes can change places: as many voxels along either, and as wide ones."""
    return len(shape) > 1 and shape[0] == shape[1] and math.isclose(spacing[0], spacing[1], rel_tol=0.01)


def common_shape(pairs: Sequence[Pair]) -> tuple[int, ...]:
    """The shape that all pairs have, without which they make no batches.

    Args:
        pairs: the pairs of a training.

    Raises:
        ValueError: no pairs, or several shapes.
    """
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


def _by_set(pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Positions of the pairs of each data set, the sets in the order of their first pairs."""
    places: dict[str | None, list[int]] = {}
    for place, case in enumerate(cases_of(pairs)):
        places.setdefault(case.dataset, []).append(place)
    return [np.array(some, np.int64) for some in places.values()]


def _indices(step: tf.Tensor, batch_size: int, kinds: Sequence[np.ndarray], seed: int) -> tf.Tensor:
    """Pairs at the places step·B … step·B + B - 1 of a sequence in which the sets take turns.

    Place p belongs to set p mod n and is its turn p div n.

    Args:
        step: number of the batch.
        batch_size: B.
        kinds: positions of the pairs of each of the n sets.
        seed: seed of their order.
    """
    places = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    kind, turn = places % len(kinds), places // len(kinds)
    first = [(step * batch_size - number + len(kinds) - 1) // len(kinds) for number in range(len(kinds))]
    length = -(-batch_size // len(kinds))
    drawn = [
        tf.gather(own, _turns_of(start, length, len(own), seed, number))
        for number, (own, start) in enumerate(zip(kinds, first, strict=True))
    ]
    return tf.gather_nd(tf.stack(drawn), tf.stack([kind, turn - tf.gather(tf.stack(first), kind)], -1))


def _turns_of(first: tf.Tensor, length: int, count: int, seed: int, number: int) -> tf.Tensor:
    """Turns first … first + length - 1 of the sequence permutation 0, permutation 1, … of `count` pairs of a set."""
    epoch, purpose = first // count, number + 1 if number else 0  # 1 is the purpose of augmentation
    orders = [
        tf.argsort(tf.random.stateless_uniform((count,), _key(seed, epoch + ahead, purpose)), stable=True)
        for ahead in range((count + length - 2) // count + 1)
    ]
    return tf.gather(tf.concat(orders, 0), first - epoch * count + tf.range(length, dtype=tf.int64))


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
        key: key of the batch; each draw has a number of its own.
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

    def affine(self, number: int) -> tuple[tf.Tensor, tf.Tensor]:
        """What `random_maps` takes."""
        key = tf.random.experimental.stateless_fold_in(self.key, number + 1)
        noise = tf.random.stateless_normal((self.batch_size, 2, self.rank, self.rank + 1), key)
        return self._drawn(number, (self.rank,), 0.0, 1.0, tf.float32), self._own(noise)

    def _drawn(self, number: int, shape: tuple[int, ...], low, high, dtype: tf.DType) -> tf.Tensor:
        key = tf.random.experimental.stateless_fold_in(self.key, number)
        return self._own(tf.random.stateless_uniform((self.batch_size, *shape), key, low, high, dtype))

    def _own(self, drawn: tf.Tensor) -> tf.Tensor:
        return drawn[self.rows.start : self.rows.stop]


def _augment(
    arrays: tf.Tensor, points: tf.Tensor, square: tf.Tensor, draws: _Draws, shape: tuple[int, ...]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Batches of both images, their masks and points; `square`, `[B]`, says whose first two axes may change places."""
    batch, rank = arrays.shape[0], len(shape)
    points = tf.reshape(points, (batch, points.shape[1], 2, rank))
    turned = tf.zeros((batch,) + (1,) * (rank + 1), bool)
    if rank > 1 and shape[0] == shape[1]:
        turned = draws.coin(0) & tf.reshape(square, (batch,) + (1,) * (rank + 1))
        points = tf.where(_of_points(turned), tf.gather(points, (1, 0, *range(2, rank)), axis=-1), points)
    sources, inside = [], []
    for axis, length in enumerate(shape):
        here = tf.one_hot(axis, rank)
        flipped = draws.coin(1 + axis)
        points = tf.where(_of_points(flipped) & (here > 0), length - 1 - points, points)
        source = tf.tile(tf.range(length)[None], (batch, 1))
        if reach := int(length * SHIFT_FRACTION):
            offset = draws.offset(1 + rank + axis, reach)
            source += offset
            points -= tf.cast(offset[:, None, None], tf.float32) * here
        sources.append(tf.where(tf.reshape(flipped, (batch, 1)), length - 1 - source, source))
        inside.append((source >= 0) & (source < length))
    arrays = _taken(arrays, sources, inside, turned)
    gamma = GAMMA ** draws.uniform(2 * rank + 1, -1.0, 1.0)
    images = arrays[..., :2] ** gamma * draws.uniform(2 * rank + 2, DARKEST, 1.0)
    return tf.concat([images, arrays[..., 2:]], -1), tf.reshape(points, (batch, -1, 2 * rank))


def _of_points(decision: tf.Tensor) -> tf.Tensor:
    """A decision for each sample, shaped to meet points `[B, P, 2, N]`."""
    return tf.reshape(decision, (-1, 1, 1, 1))


def _taken(arrays: tf.Tensor, sources: list[tf.Tensor], inside: list[tf.Tensor], turned: tf.Tensor) -> tf.Tensor:
    """Each voxel of the result from its source; 0 from outside. One gather, which is what costs.

    Args:
        arrays: `[B, *S, C]`.
        sources: for each axis where a voxel comes from along it, `[B, L]`.
        inside: the same: whether that is in the image.
        turned: `[B, 1, …, 1]`: whose first two axes change places before.
    """
    batch, shape, channels = arrays.shape[0], arrays.shape[1:-1], arrays.shape[-1]
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    exchanged = [*strides[1::-1], *strides[2:]] if len(shape) > 1 else strides
    turned = tf.reshape(turned, (batch, 1))
    index, there = tf.zeros((), tf.int32), tf.ones((), bool)
    for axis, length in enumerate(shape):
        along = (batch, *(length if other == axis else 1 for other in range(len(shape))))
        stride = tf.where(turned, exchanged[axis], strides[axis])
        index += tf.reshape(stride * tf.clip_by_value(sources[axis], 0, length - 1), along)
        there &= tf.reshape(inside[axis], along)
    voxels = tf.reshape(arrays, (batch, -1, channels))
    taken = tf.gather(voxels, tf.reshape(index, (batch, -1)), batch_dims=1)
    return tf.where(there[..., None], tf.reshape(taken, arrays.shape), tf.zeros((), arrays.dtype))
