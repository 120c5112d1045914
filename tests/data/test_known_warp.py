"""Known deformations of real images: they are what they say, and they do not fold."""

import dataclasses

import numpy as np
import pytest

from hetmorph.data import Pair, load, warp_known
from tests.reference import positions, smooth_field, warp


def pair(rng, case_id="a", shape=(64, 72)):
    moving = smooth_field(rng, shape, 1.0, 2.0)[..., 0]
    moving = ((moving - moving.min()) / np.ptp(moving)).astype(np.float32)
    labels = np.digitize(moving, [0.4, 0.6]).astype(np.uint8)
    return Pair(case_id, "p", None, None, moving, moving[::-1], labels, labels[::-1], (1.0,) * len(shape))


def determinant(displacement):
    there = positions(displacement)
    gradient = np.stack([np.stack(np.gradient(component), -1) for component in there], -2)
    return np.linalg.det(gradient)


@pytest.mark.parametrize("shape", [(64, 72), (24, 28, 32)])
def test_moving_warped_by_the_displacement_is_fixed(rng, shape):
    known = warp_known(pair(rng, shape=shape), amplitude=2.0)
    moved = warp(known.moving[..., None], known.displacement)[..., 0]
    np.testing.assert_allclose(moved, known.fixed, atol=1e-5)
    labels = warp(known.moving_labels[..., None], known.displacement, order=0)[..., 0]
    assert (labels == known.fixed_labels).mean() > 0.999  # ties between two voxels apart
    assert known.fixed.dtype == known.displacement.dtype == np.float32 and known.fixed_labels.dtype == np.uint8
    assert known.displacement.shape == (*shape, len(shape))


@pytest.mark.parametrize("amplitude", [1.0, 6.4])
def test_it_neither_folds_nor_exceeds_its_amplitude(rng, amplitude):
    for seed in range(10):
        displacement = warp_known(pair(rng), seed, amplitude).displacement
        longest = np.linalg.norm(displacement, axis=-1).max()
        assert 0.8 * amplitude < longest <= amplitude * 1.001
        assert determinant(displacement).min() > 0.1


def test_no_fold_in_three_dimensions(rng):
    for seed in range(3):
        assert determinant(warp_known(pair(rng, shape=(32, 40, 32)), seed, 3.2).displacement).min() > 0.1


def test_the_border_stays(rng):
    displacement = warp_known(pair(rng)).displacement
    for edge in (displacement[0], displacement[-1], displacement[:, 0], displacement[:, -1]):
        np.testing.assert_array_equal(edge, 0)


def test_a_pair_depends_on_seed_and_name_alone(rng):
    pairs = [pair(rng, name) for name in "ab"]
    batch, alone = warp_known(pairs, 3), warp_known(pairs[1], 3)
    np.testing.assert_array_equal(batch[1].displacement, alone.displacement)
    for other in (batch[0], warp_known(pairs[1], 4)):
        assert np.abs(other.displacement - alone.displacement).max() > 0.5


def test_what_is_not_the_fixed_image_stays(rng):
    one = dataclasses.replace(pair(rng), sigma=np.ones((64, 72), np.float32), foreground=np.ones((64, 72), bool))
    known = warp_known(one)
    for name in ("case_id", "patient", "moving", "moving_labels", "spacing", "slice_index", "group"):
        assert getattr(known, name) is getattr(one, name)
    assert known.sigma is known.foreground is None  # those of the image it replaces
    bare = warp_known(dataclasses.replace(one, moving_labels=None))
    assert bare.fixed_labels is None


def test_labels_beyond_a_byte_keep_their_type(rng):
    one = pair(rng)
    labels = (one.moving_labels.astype(np.uint16)) * 1000
    known = warp_known(dataclasses.replace(one, moving_labels=labels))
    assert known.fixed_labels.dtype == np.uint16 and set(np.unique(known.fixed_labels)) == {0, 1000, 2000}


@pytest.mark.parametrize("amplitude", [0.0, -1.0, 6.5, np.nan])
def test_an_impossible_amplitude_is_refused(rng, amplitude):
    with pytest.raises(ValueError, match="a: expected an amplitude above 0 and up to 6.4 voxels"):
        warp_known(pair(rng), amplitude=amplitude)


@pytest.mark.slow
def test_real_hearts_move_by_a_cardiac_amount(acdc_dir):
    real = load("acdc", acdc_dir, split="val")
    known = load("acdc", acdc_dir, split="val", known_warp=6.0)
    scores = []
    for pairs in (real.pairs, known.pairs):
        both = [(one.moving_labels == 2, one.fixed_labels == 2) for one in pairs]
        scores.append(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in both if a.any() and b.any()]))
    assert abs(scores[1] - scores[0]) < 0.25 and scores[1] < 0.8
    assert all(determinant(one.displacement).min() > 0 for one in known.pairs)
