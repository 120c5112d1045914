"""Masks and landmarks of a table of pairs, and through crops and augmentation: they go where images and labels go."""

import numpy as np
import pytest

from hetmorph.data import DataError, Pair, load, pipeline, warp_by
from hetmorph.data.crop import fit, origin
from hetmorph.io import Grid, read_image, resample
from tests.data.sets import blob, save, write_csv, write_table
from tests.data.test_csv_pairs import rows_of

SHAPE = (20, 24)
SPACING = np.array([1.5, 1.25])


def write_points(path, voxels, names=None):
    """In LPS of an image without turned axes: x and y are negated."""
    places = np.hstack([-np.asarray(voxels) * SPACING, np.zeros((len(voxels), 1))])
    names = names or [f"p{number}" for number in range(len(voxels))]
    lines = [",".join(map(str, (name, *place))) for name, place in zip(names, places, strict=True)]
    path.write_text("name,x,y,z\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def table(tmp_path):
    """Three pairs; the first has both masks and two landmarks, the second one of each, the third none."""
    path = write_table(tmp_path, 3, SHAPE)
    rows = rows_of(path)
    save(tmp_path / "mask_m.nii.gz", blob(SHAPE, 7), SPACING.tolist())
    save(tmp_path / "mask_f.nii.gz", np.roll(3 * blob(SHAPE, 5), 2, 0), SPACING.tolist())
    write_points(tmp_path / "m.csv", [[3, 4], [12.5, 20]])
    write_points(tmp_path / "f.csv", [[4, 4], [12, 21]])
    write_points(tmp_path / "one.csv", [[9, 9]])
    empty = dict.fromkeys(("mask_moving", "mask_fixed", "points_moving", "points_fixed"), "")
    known = [
        {"mask_moving": "mask_m.nii.gz", "mask_fixed": "mask_f.nii.gz", "points_moving": "m.csv"},
        {"mask_fixed": "mask_f.nii.gz", "points_moving": "one.csv", "points_fixed": "one.csv"},
        {},
    ]
    known[0]["points_fixed"] = "f.csv"
    return write_csv(path, [row | empty | one for row, one in zip(rows, known, strict=True)])


def read(table, **options):
    return load(table, split="all", **options)


def change(table, number, **cells):
    rows = rows_of(table)
    rows[number].update(cells)
    return write_csv(table, [{**dict.fromkeys(cells, ""), **row} for row in rows])


def test_masks_and_landmarks_are_on_the_voxels_of_the_pair(table):
    first, second, third = read(table).pairs
    np.testing.assert_array_equal(first.mask_moving, blob(SHAPE, 7) > 0)
    np.testing.assert_array_equal(first.mask_fixed, np.roll(blob(SHAPE, 5), 2, 0) > 0)
    np.testing.assert_allclose(first.points_moving, [[3, 4], [12.5, 20]], atol=1e-4)
    np.testing.assert_allclose(first.points_fixed, [[4, 4], [12, 21]], atol=1e-4)
    assert second.mask_moving is None and second.points_fixed.shape == (1, 2)
    assert third.mask_fixed is None and third.points_moving is None
    assert [case.points for case in read(table).cases] == [2, 1, 0]


def test_points_may_be_voxels_or_ras(table):
    folder = table.parent
    (folder / "voxels.csv").write_text("x,y\n9,9\n")
    (folder / "ras.csv").write_text(f"x,y,z\n{9 * SPACING[0]},{9 * SPACING[1]},0\n")
    for frame, name in (("voxel", "voxels.csv"), ("RAS", "ras.csv")):
        changed = change(table, 1, points_moving=name, points_fixed=name, points_frame=frame)
        np.testing.assert_allclose(read(changed).pairs[1].points_moving, [[9, 9]], atol=1e-4)


@pytest.mark.parametrize("size", [(12, 30), (24, 10)])
def test_a_crop_moves_landmarks_and_masks_as_it_moves_images(table, size):
    """A bright voxel at each landmark, cut and padded as an image, is where the landmark is."""
    whole, cut = read(table).pairs[0], read(table, size=size).pairs[0]
    image = np.zeros(SHAPE)
    corners = np.round(whole.points_fixed).astype(int)
    image[tuple(corners.T)] = 1 + np.arange(len(corners))
    seen = fit(image, size)
    kept = [np.argwhere(seen == 1 + number) for number in range(len(corners)) if (seen == 1 + number).any()]
    np.testing.assert_allclose([] if cut.points_fixed is None else cut.points_fixed, np.concatenate([*kept] or [[]]))
    np.testing.assert_array_equal(cut.mask_fixed, fit(whole.mask_fixed, size))
    np.testing.assert_array_equal(origin(SHAPE, None), 0)


def test_a_moving_image_on_another_grid_brings_its_mask_and_landmarks(table):
    folder, plain = table.parent, read(table).pairs[0]
    place = Grid((26, 22), np.array([[0, -1.2, 0, 28], [1.4, 0, 0, -2], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    for name in ("images/moving0", "mask_m"):
        image = read_image(folder / f"{name}.nii.gz")
        save(image.path, resample(image.array, image.grid, place, "nearest"), affine=place.affine)
    pair = read(table).pairs[0]
    np.testing.assert_allclose(pair.points_moving, plain.points_moving, atol=1e-4)
    assert np.mean(pair.mask_moving == plain.mask_moving) > 0.95 and pair.mask_moving.any()


def pair_of(shape=(16, 16), **known):
    image = np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return Pair("a", "a", None, None, image, image, None, None, (1.0,) * len(shape), **known)


@pytest.mark.quick("shape2")
@pytest.mark.parametrize("shape", [(16, 16), (16, 32), (8, 8, 16)])
def test_augmentation_moves_all_of_a_pair_alike(shape, rng):
    """Each landmark of a stream lies on the bright voxel of its image, its mask is the image above a threshold."""
    image, ndims = np.zeros(shape, np.float32), len(shape)
    at = np.stack([rng.integers(2, size - 2, 5) for size in shape], -1)
    image[tuple(at.T)] = 0.5
    mask = image > 0
    pair = Pair(
        "a", "a", None, None, image, image, None, None, (1.0,) * ndims, None, None, None, True, mask, mask, at, at
    )
    seen = set()
    for (moving, fixed, known), _ in pipeline([pair], 6, 4, seed=1).as_numpy_iterator():
        assert set(known) == {"mask_moving", "mask_fixed", "points_moving", "points_fixed"}
        np.testing.assert_array_equal(moving > 0, known["mask_moving"] > 0)
        np.testing.assert_array_equal(fixed > 0, known["mask_fixed"] > 0)
        for sample, (start, end) in enumerate(zip(known["points_moving"], known["points_fixed"], strict=True)):
            np.testing.assert_array_equal(start, end)
            there = start[np.isfinite(start).all(-1)].astype(int)
            assert len(there) >= 4 and (moving[sample][tuple(there.T)] > 0).all()
            seen.add(tuple(there[0]))
    assert len(seen) > 8


def test_pairs_without_masks_count_everywhere_and_points_are_filled_up():
    """Also in what a shift brings in: as such a pair would among others that have none either."""
    mask = np.zeros((16, 16), bool)
    mask[4:9, 3:12] = True
    places = np.array([[2, 3], [9, 9]], np.float32)
    first, second = pair_of(mask_fixed=mask, points_moving=places, points_fixed=places[::-1]), pair_of()
    for augment in (True, False):
        ((_, _, known), _) = next(iter(pipeline([first, second], 8, 1, 0, augment=augment).as_numpy_iterator()))
        assert set(known) == {"mask_fixed", "points_moving", "points_fixed"}
        with_mask = known["mask_fixed"].reshape(8, -1).mean(1) < 1
        assert with_mask.sum() == 4
        has_points = np.isfinite(known["points_fixed"]).any((1, 2))
        np.testing.assert_array_equal(with_mask, has_points)
    batch = next(iter(pipeline([second], 2, 1, 0).as_numpy_iterator()))
    assert len(batch[0]) == 2


def test_a_landmark_that_a_shift_moves_out_counts_no_more():
    places = np.array([[0.0, 8.0]], np.float32)
    pair = pair_of((32, 16), points_moving=places, points_fixed=places)
    batches = [b[0][2]["points_fixed"] for b in pipeline([pair], 8, 4, 0).as_numpy_iterator()]
    found = np.concatenate(batches)[:, 0]
    gone = np.isnan(found).all(-1)
    assert 0 < gone.sum() < len(found) and (found[~gone] >= 0).all() and (found[~gone] < [32, 16]).all()


def test_a_known_warp_takes_the_mask_along_and_drops_landmarks():
    mask = np.zeros((16, 16), bool)
    mask[4:9, 3:12] = True
    places = np.array([[2.0, 3.0]], np.float32)
    pair = pair_of(mask_moving=mask, points_moving=places, points_fixed=places)
    shifted = warp_by(pair, np.full((16, 16, 2), [1.0, 0.0], np.float32))
    np.testing.assert_array_equal(shifted.mask_fixed, np.roll(mask, -1, 0))
    assert shifted.points_fixed is None


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"mask_fixed": "empty.nii.gz"}, "empty.nii.gz: the mask is empty"),
        ({"mask_moving": "other.nii.gz"}, "other.nii.gz: expected a mask on the grid of .*moving0.nii.gz, 20 × 24 vox"),
        ({"mask_fixed": "none.nii.gz"}, "none.nii.gz: no such file"),
        ({"points_fixed": ""}, "line 2: points_moving is there, points_fixed is not"),
        ({"points_fixed": "one.csv"}, "m.csv holds 2 points, .*one.csv 1: expected the same in both"),
        ({"points_fixed": "renamed.csv"}, "received 'p0' and 'apex' as number 1"),
        (
            {"points_fixed": "far.csv"},
            r"far.csv: point 2 lies at voxel \(12.0, 25.0\), outside fixed0.nii.gz of \(20, 24",
        ),
        ({"points_frame": "ITK"}, "line 2: expected points_frame to be one of .*'ITK'"),
    ],
)
def test_wrong_masks_and_landmarks_are_named(table, cells, message):
    folder = table.parent
    save(folder / "empty.nii.gz", np.zeros(SHAPE, np.uint8), SPACING.tolist())
    save(folder / "other.nii.gz", blob(SHAPE, 5), [1.0, 1.0])
    write_points(folder / "far.csv", [[4, 4], [12, 25]])
    write_points(folder / "renamed.csv", [[4, 4], [12, 21]], ["apex", "p1"])
    with pytest.raises(DataError, match=message):
        read(change(table, 0, **cells))


def test_a_mask_of_which_the_crop_leaves_nothing_is_named(table):
    corner = np.zeros(SHAPE, np.uint8)
    corner[:3, :3] = 1
    save(table.parent / "mask_f.nii.gz", corner, SPACING.tolist())
    with pytest.raises(DataError, match="mask_f.nii.gz: nothing of the mask lies in the crop"):
        read(table, size=(8, 8))


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"mask_fixed": np.zeros((16, 16), bool)}, "a: mask_fixed is empty"),
        ({"mask_moving": np.ones((8, 16), bool)}, "a: expected mask_moving of shape"),
        ({"points_fixed": np.zeros((2, 2))}, "as many points .*points_moving None"),
        ({"points_fixed": np.zeros((2, 2)), "points_moving": np.zeros((3, 2))}, r"received points_moving \(3, 2\)"),
        ({"points_fixed": np.full((2, 2), 17.0), "points_moving": np.zeros((2, 2))}, "point 1 .*outside the image"),
    ],
)
def test_a_pair_refuses_what_does_not_belong_to_it(known, message):
    with pytest.raises(ValueError, match=message):
        pair_of(**known)
