"""The stream of batches: exact resume, no sample lost, both images treated alike."""

import resource
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.data import Pair, pipeline

# of make(7), batches of 4, seed 3: pairs, and sums of the augmented fixed images
ORDER = [[3, 0, 5, 6], [4, 2, 1, 3], [6, 2, 4, 0]]
SUMS = [248.83467115904205, 251.01852435688488, 238.26554621127434]


def make(count, shape=(16, 16)):
    """Pairs whose content tells which they are: moving is a ramp, fixed = moving²."""
    pairs = []
    for number in range(count):
        ramp = np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        moving = (ramp + 0.001 * number).astype(np.float32)
        spacing = (1.0,) * len(shape)
        pairs.append(Pair(f"p{number}", f"p{number}", 0, None, moving, moving**2, None, None, spacing))
    return pairs


def batches(*arguments, **options):
    return list(pipeline(*arguments, **options).as_numpy_iterator())


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True))


def numbers(batch):
    """Which pairs an unaugmented batch holds."""
    return [round((float(sample[0, 0, 0]) - 0.1) * 1000) for sample in batch[0][0]]


@pytest.mark.quick("shape0-True", "shape1-False", "shape2-True")
@pytest.mark.parametrize("bidir", [False, True])
@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (8, 8, 12)])
def test_form_of_a_batch(shape, bidir):
    (moving, fixed), targets = batches(make(5, shape), 3, 1, 0, bidir=bidir)[0]
    assert moving.shape == fixed.shape == (3, *shape, 1)
    assert len(targets) == 2 + bidir
    np.testing.assert_array_equal(targets[0], fixed)
    if bidir:
        np.testing.assert_array_equal(targets[1], moving)
    assert targets[-1].shape == (3, *(1,) * (len(shape) + 1)) and not targets[-1].any()
    assert {array.dtype for array in (moving, fixed, *targets)} == {np.dtype(np.float32)}


@pytest.mark.quick("7")
@pytest.mark.parametrize("start", [0, 1, 7, 12])
def test_starting_at_step_k_equals_skipping_k_batches(start):
    whole = batches(make(7), 4, 12, seed=3)
    rest = batches(make(7), 4, 12, seed=3, start_step=start)
    assert len(whole) == 12 and len(rest) == 12 - start
    assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_length_is_known_and_does_not_change_the_batches():
    dataset = pipeline(make(7), 4, 12, 3, start_step=5)
    assert int(dataset.cardinality()) == 7
    assert all(equal(a, b) for a, b in zip(batches(make(7), 4, 9, 3), batches(make(7), 4, 12, 3), strict=False))


def test_seed_decides():
    one, same, other = (batches(make(9), 4, 5, seed=seed) for seed in (0, 0, 1))
    assert all(equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_order_is_that_of_the_seed_for_ever():
    """Written down once; a change would silently change every training and spoil every resumed one."""
    assert [numbers(batch) for batch in batches(make(7), 4, 3, 3, augment=False)] == ORDER
    sums = [float(fixed.sum(dtype=np.float64)) for (_, fixed), _ in batches(make(7), 4, 3, 3)]
    np.testing.assert_allclose(sums, SUMS, rtol=1e-6)


def test_the_global_seed_of_tensorflow_does_not_matter():
    tf.random.set_seed(1)
    one = batches(make(9), 4, 3, 0)
    tf.random.set_seed(2)
    assert all(equal(a, b) for a, b in zip(one, batches(make(9), 4, 3, 0), strict=True))


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (8, 4), (3, 8), (1, 4), (5, 5)])
def test_every_sample_comes_up_once_before_any_comes_up_twice(count, batch_size):
    stream = sum((numbers(batch) for batch in batches(make(count), batch_size, 4 * count, 0, augment=False)), [])
    assert len(stream) == 4 * count * batch_size
    for start in range(0, len(stream), count):
        assert sorted(stream[start : start + count]) == list(range(count))


@pytest.mark.quick("shape0")
@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 8)])
def test_the_parts_of_a_batch_are_the_batch(shape):
    """Several hosts train on what one would: the same pairs with the same augmentation, none twice."""
    whole = batches(make(7, shape), 6, 4, seed=3, bidir=True)
    parts = [batches(make(7, shape), 6, 4, seed=3, bidir=True, part=(k, 3)) for k in range(3)]
    for step, batch in enumerate(whole):
        together = tf.nest.map_structure(lambda *some: np.concatenate(some), *(part[step] for part in parts))
        assert equal(together, batch)


def test_a_host_reads_its_own_part_alone():
    read = Counter()

    class Counted(list):
        def __getitem__(self, index):
            read[index] += 1
            return super().__getitem__(index)

    def count(part):
        read.clear()
        batches(Counted(make(8)), 4, 2, 0, part=part)
        return read.copy()

    first, second = count((0, 2)), count((1, 2))
    assert len(first) == len(second) == 4 and not first & second


def of_sets(**counts):
    """Pairs of several sets, as `make` makes them; numbers go on from one set to the next."""
    pairs, names = make(sum(counts.values())), [name for name, count in counts.items() for _ in range(count)]
    return [replace(pair, dataset=name) for pair, name in zip(pairs, names, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
def test_sets_take_turns_whatever_their_sizes(batch_size):
    sizes = {"a": 2, "b": 9, "c": 4}
    steps = -(-9 * 3 * 2 // batch_size)
    stream = sum((numbers(batch) for batch in batches(of_sets(**sizes), batch_size, steps, 0, augment=False)), [])
    starts = dict(zip(sizes, (0, 2, 11), strict=True))
    for turn, (name, size) in enumerate(sizes.items()):
        own = [number - starts[name] for number in stream[turn::3]]
        assert len(own) >= 18 and set(own) == set(range(size))
        for first in range(0, len(own) - size + 1, size):  # every sample once before any twice
            assert sorted(own[first : first + size]) == list(range(size))


@pytest.mark.slow
def test_batches_of_several_sets_are_resumed_and_divided_as_of_one():
    pairs = of_sets(a=3, b=8)
    whole = batches(pairs, 6, 7, seed=3)
    assert all(equal(*both) for both in zip(whole[4:], batches(pairs, 6, 7, seed=3, start_step=4), strict=True))
    parts = [batches(pairs, 6, 7, seed=3, part=(k, 3)) for k in range(3)]
    for step, batch in enumerate(whole):
        together = tf.nest.map_structure(lambda *some: np.concatenate(some), *(part[step] for part in parts))
        assert equal(together, batch)


def test_sets_of_one_size_have_orders_of_their_own():
    stream = sum((numbers(batch) for batch in batches(of_sets(a=16, b=16), 4, 8, 0, augment=False)), [])
    assert stream[::2] != [number - 16 for number in stream[1::2]]


def test_a_single_set_is_as_without_a_name():
    assert all(equal(*both) for both in zip(batches(of_sets(a=7), 4, 3, 3), batches(make(7), 4, 3, 3), strict=True))


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 3), (0, 0)])
def test_a_part_that_a_batch_has_not(part):
    with pytest.raises(ValueError, match="one of n equal parts of a batch of 4"):
        pipeline(make(4), 4, 2, 0, part=part)


def test_each_pass_has_its_own_order():
    stream = sum((numbers(batch) for batch in batches(make(16), 4, 8, 0, augment=False)), [])
    assert stream[:16] != stream[16:] and stream[:16] != list(range(16))


def test_without_augmentation_the_images_are_the_pairs():
    pairs = make(6)
    for batch in batches(pairs, 4, 6, 0, augment=False):
        for number, moving, fixed in zip(numbers(batch), *batch[0], strict=True):
            np.testing.assert_array_equal(moving[..., 0], pairs[number].moving)
            np.testing.assert_array_equal(fixed[..., 0], pairs[number].fixed)


@pytest.mark.quick("shape1", "shape2")
@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (16, 16, 16)])
def test_augmentation_is_the_same_for_both_images(shape):
    pair = make(1, shape)[0]
    twins = [Pair("a", "a", 0, None, pair.moving, pair.moving, None, None, pair.spacing)]
    for (moving, fixed), _ in batches(twins, 8, 10, 0):
        np.testing.assert_array_equal(moving, fixed)


def test_labels_go_where_their_images_go(shape=(16, 16)):
    """A label for each intensity, so that either tells the other; of a pair with labels of one image alone, none."""
    rng = np.random.default_rng(0)
    maps = rng.integers(1, 9, (4, 2, *shape)).astype(np.uint8)
    pairs = [
        Pair(f"p{k}", f"p{k}", 0, None, *(maps[k] / 10).astype(np.float32), *maps[k], (1.0, 1.0)) for k in range(3)
    ]
    pairs.append(Pair("p3", "p3", 0, None, *(maps[3] / 10).astype(np.float32), maps[3, 0], None, (1.0, 1.0)))
    for (moving, fixed, known), _ in batches(pairs, 4, 3, 0, labels=True):
        assert sorted(known) == ["labels_fixed", "labels_moving"]
        labelled = known["labels_moving"].any((1, 2, 3))
        assert labelled.sum() == 3 and not known["labels_fixed"][~labelled].any()
        for image, labels in ((moving, known["labels_moving"]), (fixed, known["labels_fixed"])):
            for one, of in zip(image[labelled], labels[labelled], strict=True):
                assert set(np.unique(of)) <= set(range(9)) and ((one == 0) == (of == 0)).all()
                seen = [np.unique(one[of == label]) for label in np.unique(of)]
                assert all(len(intensities) == 1 for intensities in seen) and (np.diff(np.concatenate(seen)) > 0).all()


def test_augmentation_only_moves_and_stretches_whole_voxels():
    """Undo gamma and gain by ranks: the values seen are the image's own, none is mixed from two."""
    side = 16
    values = np.random.default_rng(0).permutation(side * side).reshape(side, side)
    image = ((values + 1) / (side * side)).astype(np.float32)
    pair = Pair("a", "a", 0, None, image, image, None, None, (1.0, 1.0))
    placements = set()
    for (moving, _), _ in batches([pair], 8, 12, 0):
        for sample in moving[..., 0]:
            inside = sample > 0
            rows, columns = inside.any(1), inside.any(0)
            window = sample[np.ix_(rows, columns)]
            assert window.shape[0] >= side - 1 and window.shape[1] >= side - 1 and (window > 0).all()
            ranks = window.ravel().argsort().argsort().reshape(window.shape)
            assert any(
                np.array_equal(ranks, part.ravel().argsort().argsort().reshape(part.shape))
                for part in _pieces(values, window.shape)
            )
            placements.add((tuple(np.sign(np.diff(window[0, :4]))), tuple(np.sign(np.diff(window[:4, 0])))))
    assert len(placements) >= 8  # all turns and flips come up


def _pieces(values, shape):
    for turned in (values, values.T):
        for part in (turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]):
            for x in range(part.shape[0] - shape[0] + 1):
                for y in range(part.shape[1] - shape[1] + 1):
                    yield part[x : x + shape[0], y : y + shape[1]]


def test_intensities_stay_within_zero_and_one_and_vary():
    image = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    pair = Pair("a", "a", 0, None, image, np.zeros_like(image), None, None, (1.0, 1.0))
    peaks = []
    for (moving, fixed), _ in batches([pair], 16, 4, 0):
        assert np.isfinite(moving).all() and moving.min() >= 0 and moving.max() <= 1
        assert not fixed.any()  # a constant image stays constant
        peaks += list(moving.max((1, 2, 3)))
    assert 0.8 < min(peaks) < 0.9 < max(peaks) <= 1
    assert len(Counter(peaks)) == len(peaks)


def test_turns_leave_images_that_are_not_square_alone():
    assert batches(make(3, (16, 24)), 2, 4, 0)[3][0][0].shape == (2, 16, 24, 1)


@pytest.mark.parametrize(("spacing", "turned"), [((1.0, 1.005, 4.0), True), ((1.0, 1.5, 1.0), False)])
def test_axes_change_places_only_where_their_voxels_are_as_wide(spacing, turned):
    """The mean along an axis tells which it was: the image varies along the first one alone."""
    image = np.broadcast_to(np.linspace(0.2, 0.9, 12, dtype=np.float32)[:, None, None], (12, 12, 12)).copy()
    pair = Pair("a", "a", None, None, image, image, None, None, spacing)
    samples = np.concatenate([moving for (moving, _), _ in batches([pair], 8, 4, 0)])[..., 0]
    along_second = np.ptp(samples[:, 4, 2:-2, 4], axis=1) > 0.1
    assert along_second.any() == turned and not along_second.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1, 1, 0), "at least one pair"),
        ((make(1) + make(1, (16, 24)), 1, 1, 0), "one shape"),
        ((make(1), 0, 1, 0), "batch_size >= 1"),
        ((make(1), 1, 1, 0, 2), "start_step <= steps"),
        ((make(1), 1, 1, 0, -1), "start_step"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(*arguments)


def test_nan_is_refused_by_name():
    pair = make(1)[0]
    pair.fixed[3, 3] = np.nan
    with pytest.raises(ValueError, match="p0: expected finite"):
        pipeline([pair], 1, 1, 0)


def test_memory_stays_flat():
    iterator = iter(pipeline(make(8, (64, 64)), 8, 10**6, 0))
    for _ in range(40):
        next(iterator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):  # 200 batches of this size are 105 MB
        next(iterator)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 25_000


def test_whoever_lets_go_of_it_waits_for_nobody():
    """TensorFlow's tuner of streams sleeps up to a minute, longer the longer the stream has run, and is waited for."""
    assert pipeline(make(7), 4, 12, 3).options().autotune.enabled is False


def test_keras_fit_takes_it():
    import keras

    moving, fixed = keras.Input((16, 16, 1)), keras.Input((16, 16, 1))
    both = keras.layers.Concatenate()([moving, fixed])
    outputs = [keras.layers.Conv2D(1, 3, padding="same")(both), keras.layers.Conv2D(2, 3, padding="same")(both)]
    model = keras.Model([moving, fixed], outputs)
    model.compile("adam", loss=["mse", "mse"])
    history = model.fit(pipeline(make(5), 4, 6, 0).repeat(), epochs=2, steps_per_epoch=3, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
