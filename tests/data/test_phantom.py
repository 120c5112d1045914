"""The phantom: displacement and noise must be what it says they are."""

import time

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.data import load
from hetmorph.data.phantom import GROUPS, SLICES, generate, patients
from tests.reference import positions, warp

SIZES = [(128, 128), (96, 96), (64, 112)]


def overlap(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def contour_free(labels):
    """Voxels at least two away from any border between labels."""
    return ndimage.maximum_filter(labels, 5) == ndimage.minimum_filter(labels, 5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", [0, 11, 21])
def test_moving_warped_by_the_true_displacement_is_fixed(index, size):
    pair = generate(index, size=size, noise=False)
    moved = warp(pair.moving[..., None], pair.displacement)[..., 0]
    undeformed = np.abs(pair.moving - pair.fixed)[2:-2, 2:-2]
    error = np.abs(moved - pair.fixed)[2:-2, 2:-2]
    # what remains is the linear interpolation of edges two voxels wide, which grow sharper on smaller images
    assert error.mean() < 0.01 and error.max() < 0.25
    assert error.mean() < 0.25 * undeformed.mean()


def test_interpolation_is_all_that_remains():
    """Finer sampling of the same scene must bring the error down; a wrong displacement would not."""
    errors = []
    for side in (64, 128, 256):
        pair = generate(3, size=(side, side), noise=False)
        moved = warp(pair.moving[..., None], pair.displacement)[..., 0]
        smooth = contour_free(pair.fixed_labels) & (pair.fixed_labels > 0)
        errors.append(np.abs(moved - pair.fixed)[smooth].mean())
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


@pytest.mark.parametrize("index", range(0, 48, 5))
def test_labels_follow_the_displacement(index):
    pair = generate(index)
    moved = warp(pair.moving_labels[..., None], pair.displacement, order=0)[..., 0]
    inner = contour_free(pair.fixed_labels)
    np.testing.assert_array_equal(moved[inner], pair.fixed_labels[inner])
    assert overlap(moved == 2, pair.fixed_labels == 2) > 0.9


@pytest.mark.quick("size1", "size2")
@pytest.mark.parametrize("size", SIZES)
def test_no_fold_anywhere(size):
    for seed in range(3):
        for index in range(0, 64, 3):
            there = positions(generate(index, seed, size).displacement)
            (xx, xy), (yx, yy) = (np.gradient(component) for component in there)
            assert (xx * yy - xy * yx).min() > 0.2


def test_heart_contracts_as_hearts_do():
    pairs = [generate(index) for index in range(96)]
    for pair in pairs:
        ed, es = pair.moving_labels, pair.fixed_labels
        assert np.count_nonzero(es == 3) < 0.9 * np.count_nonzero(ed == 3)
    scores = {}
    for label, low, high in ((1, 0.6, 0.8), (2, 0.5, 0.7), (3, 0.6, 0.8)):
        both = [(p.moving_labels == label, p.fixed_labels == label) for p in pairs]
        scores[label] = np.mean([overlap(a, b) for a, b in both if a.any() and b.any()])
        assert low < scores[label] < high, scores


def test_right_ventricle_ends_before_the_apex():
    volume = [generate(index) for index in range(SLICES)]
    assert (volume[0].moving_labels == 1).any() and not (volume[-1].moving_labels == 1).any()
    areas = [np.count_nonzero(pair.moving_labels == 3) for pair in volume]
    assert areas == sorted(areas, reverse=True)


def test_noise_is_rician_with_the_stated_sigma():
    pair = generate(5)
    clean = generate(5, noise=False)
    np.testing.assert_array_equal(clean.sigma, pair.sigma)
    for noisy, truth in ((pair.moving, clean.moving), (pair.fixed, clean.fixed)):
        bright = truth > 6 * pair.sigma
        score = ((noisy - truth) / pair.sigma)[bright]
        count = bright.sum()
        assert count > 3000
        assert score.std() == pytest.approx(1, abs=4 / np.sqrt(2 * count) + 0.01)
        # E[magnitude²] = A² + 2 sigma²: what tells Rician from Gaussian noise, everywhere
        excess = (noisy.astype(float) ** 2 - truth**2) / (2 * pair.sigma.astype(float) ** 2)
        spread = excess.std() / np.sqrt(excess.size)
        assert excess.mean() == pytest.approx(1, abs=5 * spread)


def test_noise_follows_the_map_from_place_to_place():
    pair, clean = generate(5), generate(5, noise=False)
    bright = clean.fixed > 6 * pair.sigma
    middle = np.median(pair.sigma[bright])
    residual = pair.fixed - clean.fixed
    low, high = (residual[bright & part].std() for part in (pair.sigma < middle, pair.sigma >= middle))
    expected = [
        np.sqrt((pair.sigma[bright & part] ** 2).mean()) for part in (pair.sigma < middle, pair.sigma >= middle)
    ]
    assert high > 1.1 * low
    np.testing.assert_allclose([low, high], expected, rtol=0.06)
    assert pair.sigma.max() > 1.5 * pair.sigma.min() > 0


def test_noise_of_the_two_images_is_independent():
    pair, clean = generate(7), generate(7, noise=False)
    moving, fixed = (pair.moving - clean.moving).ravel(), (pair.fixed - clean.fixed).ravel()
    bright = (clean.moving > 0.2).ravel() & (clean.fixed > 0.2).ravel()
    assert abs(np.corrcoef(moving[bright], fixed[bright])[0, 1]) < 0.05


def test_images_are_in_range():
    for index in range(24):
        pair = generate(index)
        for image in (pair.moving, pair.fixed):
            assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
            assert (image >= 1).mean() < 1e-3  # clipping would falsify the noise


def test_same_seed_and_index_same_pair_whatever_came_before():
    first = generate(9, seed=4)
    generate(1, seed=2)
    again = generate(9, seed=4)
    for name in ("moving", "fixed", "moving_labels", "displacement", "sigma"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.moving, generate(9, seed=5).moving)
    assert not np.array_equal(first.moving, generate(10, seed=4).moving)


def test_split_seed_does_not_change_the_patients():
    one, other = (load("phantom", split="all", size=(32, 32), seed=seed).pairs for seed in (0, 1))
    np.testing.assert_array_equal(one[17].moving, other[17].moving)


def test_default_set_has_the_promised_size_and_groups():
    loaded = load("phantom", split="all", size=(16, 16))
    assert {name: len(part) * SLICES for name, part in loaded.splits.items()} == {"train": 192, "val": 24, "test": 40}
    assert set(patients().values()) == set(GROUPS)


@pytest.mark.parametrize("arguments", [{"size": (8, 64)}, {"size": (64,)}, {"index": -1}])
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(ValueError, match="at least 16"):
        generate(**{"index": 0, **arguments})


def test_generation_is_fast():
    start = time.process_time()
    for index in range(50):
        generate(index)
    assert (time.process_time() - start) / 50 < 0.03  # 4 ms measured


def test_foreground_is_that_of_the_images_without_noise():
    noisy, clean = generate(3, size=(48, 48)), generate(3, size=(48, 48), noise=False)
    np.testing.assert_array_equal(noisy.foreground, (clean.moving != 0) | (clean.fixed != 0))
