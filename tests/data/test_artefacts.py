"""Artefacts of known place: where the image changes, by how much, and from what they follow."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from hetmorph.cli import options
from hetmorph.data import NOISE_KINDS, Pair, add_artefact, add_noise, add_rician, load, warp_known
from hetmorph.data.artefacts import ARTEFACT_KINDS, SIDES, STRENGTHS
from hetmorph.data.pair import ARTEFACTS

SHAPES = [(48, 40), (20, 24, 16)]


def pair(case_id="a", shape=(48, 40)):
    """Smooth textures within 0.2 … 0.8."""
    rng = np.random.default_rng(len(shape))
    textures = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, *[3] * len(shape)))
    moving, fixed = np.float32(0.5 + 0.3 * textures / np.abs(textures).max())
    labels = (moving > 0.5).astype(np.uint8)
    return Pair(case_id, "p", None, None, moving, fixed, labels, labels, (1.0,) * len(shape))


@pytest.fixture(params=ARTEFACT_KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("into", SIDES)
def test_the_mask_is_where_the_image_changed_and_nowhere_else(kind, shape, into):
    clean = pair(shape=shape)
    for level in STRENGTHS:
        spoilt = add_artefact(clean, kind, level, into=into)
        for side in SIDES["both"]:
            before, after, mask = getattr(clean, side), getattr(spoilt, side), getattr(spoilt, f"artefact_{side}")
            np.testing.assert_array_equal(before != after, mask)
            assert after.dtype == np.float32 and after.min() >= 0 and after.max() <= 1
            assert mask.dtype == bool and mask.any() == (side in SIDES[into]) and mask.mean() < 0.6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_higher_level_changes_more_at_the_same_place(kind, shape):
    clean = pair(shape=shape)
    spoilt = [add_artefact(clean, kind, level) for level in STRENGTHS]
    changes = [np.abs(one.fixed - clean.fixed) for one in spoilt]
    for (weaker, stronger), (one, other) in zip(itertools.pairwise(changes), itertools.pairwise(spoilt), strict=True):
        assert stronger.sum() > 1.1 * weaker.sum()
        both, either = one.artefact_fixed & other.artefact_fixed, one.artefact_fixed | other.artefact_fixed
        assert both.sum() > 0.98 * either.sum()
        if kind in ("void", "flow", "ghost"):  # the others draw, up and down
            assert (stronger >= weaker - 1e-6).all()


def test_an_artefact_follows_from_seed_case_kind_and_side_alone(kind):
    batch = add_artefact([pair("a"), pair("b")], kind, 0.5, seed=3)
    alone = add_artefact(pair("b"), kind, 0.5, seed=3, into="fixed")
    np.testing.assert_array_equal(batch[1].fixed, alone.fixed)
    np.testing.assert_array_equal(batch[1].artefact_fixed, alone.artefact_fixed)
    for other in (batch[0], add_artefact(pair("b"), kind, 0.5, seed=4)):
        assert (other.artefact_fixed != alone.artefact_fixed).any()
    same = dataclasses.replace(pair(), moving=pair().fixed)
    spoilt = add_artefact(same, kind, 0.5)
    assert (spoilt.artefact_moving != spoilt.artefact_fixed).any(), "either image has its own"


def test_artefacts_hit_what_one_looks_at(kind):
    """Over many cases, the middle half of the image is hit more often than its border."""
    masks = [add_artefact(pair(str(number)), kind, 0.5, into="fixed").artefact_fixed for number in range(60)]
    often = np.mean(masks, 0)
    middle = tuple(slice(length // 4, length - length // 4) for length in often.shape)
    assert all(mask[middle].any() for mask in masks) or kind == "ghost"
    assert often[middle].mean() > 0.9 * often.mean()


def test_signs_and_forms_are_those_of_their_kind():
    clean = pair()
    changes = {kind: add_artefact(clean, kind, 1.0).fixed - clean.fixed for kind in ARTEFACT_KINDS}
    assert (changes["void"] <= 0).all() and (changes["flow"] >= 0).all() and (changes["ghost"] >= 0).all()
    assert add_artefact(clean, "void", 1.0).fixed.min() == 0 and add_artefact(clean, "flow", 1.0).fixed.max() == 1
    band = changes["band"] != 0
    assert any((band.any(axis) == band.all(axis)).mean() > 0.9 for axis in (0, 1)), "across the whole image"
    assert changes["speckle"].min() < 0 < changes["speckle"].max()


def test_a_ghost_repeats_a_bright_spot_along_one_axis():
    clean = pair(shape=(50, 60))
    spot = np.zeros((50, 60), np.float32)
    spot[24, 30] = 0.8
    added = add_artefact(dataclasses.replace(clean, fixed=spot), "ghost", 0.5).fixed - spot
    steps = [(number, sign) for number in (1, 2) for sign in (-1, 1)]
    copies = [
        sum(0.5 / number * np.roll(spot, sign * round(number * length / 5), axis) for number, sign in steps)
        for axis, length in enumerate(spot.shape)
    ]
    assert any(np.allclose(added, one) for one in copies)


def test_what_is_not_spoilt_stays(kind):
    clean = pair()
    clean.fixed[:4] = clean.moving[:4] = 0
    spoilt = add_artefact(clean, kind, 1.0)
    for field in dataclasses.fields(Pair):
        if field.name not in ("moving", "fixed", "foreground", *ARTEFACTS):
            assert getattr(spoilt, field.name) is getattr(clean, field.name)
    np.testing.assert_array_equal(spoilt.foreground, (clean.moving != 0) | (clean.fixed != 0))
    assert add_artefact(clean, kind, 0) is clean and add_artefact([clean], kind, 0) == [clean]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_image_stays_within_range(kind, value):
    flat = np.full((24, 24), value, np.float32)
    spoilt = add_artefact(Pair("c", "p", None, None, flat, flat, None, None, (1.0, 1.0)), kind, 1.0)
    assert np.isfinite(spoilt.fixed).all() and spoilt.fixed.min() >= 0 and spoilt.fixed.max() <= 1
    np.testing.assert_array_equal(spoilt.fixed != flat, spoilt.artefact_fixed)


def test_a_slice_and_a_known_warp_keep_what_is_true_of_them():
    volume = add_artefact(pair(shape=(20, 24, 16)), "void", 1.0)
    middle = volume.slices()[8]
    np.testing.assert_array_equal(middle.artefact_fixed, volume.artefact_fixed[..., 8])
    warped = warp_known(add_artefact(pair(), "void", 1.0), amplitude=2.0)
    assert warped.artefact_moving is warped.artefact_fixed is None  # what both show is none between them


def test_kinds_of_noise_by_name():
    clean = pair()
    np.testing.assert_array_equal(add_noise(clean, 0.1, 2).fixed, add_rician(clean, 0.1, 2).fixed)
    one, other = add_noise(clean, 0.5, 2, "flow", "moving"), add_artefact(clean, "flow", 0.5, 2, "moving")
    np.testing.assert_array_equal(one.moving, other.moving)
    assert {*options.NOISE_KINDS} == {*NOISE_KINDS} and {*options.NOISE_IN} == {*SIDES}


def test_load_adds_them_on_request():
    where = {"split": "val", "size": (32, 32)}
    spoilt = load("phantom", **where, noise=0.5, noise_kind="band", noise_in="fixed", known_warp=2.0).pairs[0]
    assert spoilt.artefact_fixed.any() and not spoilt.artefact_moving.any() and spoilt.displacement is not None
    clean = load("phantom", **where, known_warp=2.0, noise=1e-9).pairs[0]  # without the phantom's own
    np.testing.assert_allclose(spoilt.moving, clean.moving, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 0.5, "noise_kind": "stripes"}, "kind of noise to be one of .*received 'stripes'"),
        ({"noise": 0.5, "noise_kind": "void", "noise_in": "all"}, "into one of .*received 'all'"),
        ({"noise": 0.1, "noise_in": "fixed"}, "rician noise to go into 'both'"),
        ({"noise_kind": "void"}, "level of noise above 0 .*for kind 'void', received 0.0"),
        ({"noise": 1.5, "noise_kind": "void"}, "within 0 … 1, received 1.5"),
    ],
)
def test_what_cannot_be_added_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load("phantom", split="val", size=(32, 32), **arguments)


def test_one_artefact_at_a_time():
    spoilt = add_artefact(pair(), "void", 0.5)
    with pytest.raises(ValueError, match="a: has an artefact already"):
        add_artefact(spoilt, "flow", 0.5)
    with pytest.raises(ValueError, match="one of .*received 'rician'"):
        add_artefact(pair(), "rician", 0.5)
    with pytest.raises(ValueError, match="into one of .*received 'none'"):
        add_artefact(pair(), "void", 0.5, into="none")
