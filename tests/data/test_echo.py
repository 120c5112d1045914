"""The 3-D echo adapter."""

import nibabel as nib
import numpy as np
import pytest

from hetmorph.data import DataError, load
from tests.data.sets import blob, picture, save, shell, write_echo

SHAPE, SPACING = (12, 10, 16), (1.2, 1.3, 0.9)


@pytest.fixture
def folder(tmp_path):
    return write_echo(tmp_path, 2)


def read(folder, **options):
    return load("echo", folder, split="all", **{"size": (16, 16, 16), **options}).pairs


def equal(one, other):
    for name in ("moving", "fixed", "moving_labels", "fixed_labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("crop", ["paper", "aspect"])
def test_volumes_of_structures_stay(folder, crop):
    pair = read(folder, crop=crop, size=(72, 72, 72))[0]
    assert pair.case_id == pair.patient == "p1" and pair.moving.shape == (72, 72, 72)
    for labels, radius in ((pair.moving_labels, 5), (pair.fixed_labels, 4)):
        original = shell(SHAPE, radius, radius - 2)
        for inside, here in ((original > 0, labels > 0), (original == 2, labels == 2)):
            volume = np.count_nonzero(here) * np.prod(pair.spacing)
            assert volume == pytest.approx(np.count_nonzero(inside) * np.prod(SPACING), rel=0.06)


def test_endo_and_epi_masks_say_the_same_as_labels(folder):
    expected = read(folder)[0]
    for time, radius in (("ED", 5), ("ES", 4)):
        (folder / "p1" / f"p1_{time}_gt.nii.gz").unlink()
        save(folder / "p1" / f"p1_{time}_endo.nii.gz", blob(SHAPE, radius - 2), SPACING)
        save(folder / "p1" / f"p1_{time}_epi.nii.gz", blob(SHAPE, radius), SPACING)
    equal(read(folder)[0], expected)


def test_a_cine_with_frame_numbers_stands_in_for_frames(folder):
    expected = read(folder)[0]
    frames = [folder / "p1" / f"p1_{time}.nii.gz" for time in ("ED", "ES")]
    cine = np.zeros((*SHAPE, 4), np.uint8)
    cine[..., 0], cine[..., 2] = (np.asarray(nib.load(path).dataobj) for path in frames)
    save(folder / "p1" / "p1_4d.nii.gz", cine, affine=np.diag([*SPACING, 1]))
    (folder / "p1" / "Info.cfg").write_text("ED: 1\nES: 3\n")
    for path in frames:
        path.unlink()
    equal(read(folder)[0], expected)
    (folder / "p1" / "Info.cfg").write_text("ED: 1\nES: 5\n")
    with pytest.raises(DataError, match="p1_4d.nii.gz: ES is frame 5, the file holds 4 frames"):
        read(folder)


def test_masks_are_optional(folder):
    for path in folder.rglob("*_gt.nii.gz"):
        path.unlink()
    assert all(pair.moving_labels is None for pair in read(folder))


def _swapped_walls(folder):
    (folder / "p1_ED_gt.nii.gz").unlink()
    save(folder / "p1_ED_endo.nii.gz", blob(SHAPE, 5), SPACING)
    save(folder / "p1_ED_epi.nii.gz", blob(SHAPE, 3), SPACING)


def _one_wall(folder):
    (folder / "p1_ED_gt.nii.gz").unlink()
    save(folder / "p1_ED_endo.nii.gz", blob(SHAPE, 3), SPACING)


def _no_es(folder):
    (folder / "p1_ES.nii.gz").unlink()


def _no_frames(folder):
    for time in ("ED", "ES"):
        (folder / f"p1_{time}.nii.gz").unlink()


def _plane(folder):
    save(folder / "p1_ED.nii.gz", np.ones((12, 10), np.uint8))


def _wrong_label(folder):
    save(folder / "p1_ED_gt.nii.gz", blob(SHAPE, 5, 3), SPACING)


def _nan(folder):
    save(folder / "p1_ES.nii.gz", np.full(SHAPE, np.nan, np.float32), SPACING)


def _elsewhere(folder):
    affine = np.diag([*SPACING, 1.0])
    affine[2, 3] = 20
    save(folder / "p1_ES.nii.gz", picture(shell(SHAPE, 4, 2), 0), affine=affine)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_swapped_walls, "p1_ED_endo.nii.gz: .* voxels lie outside p1_ED_epi.*swapped"),
        (_one_wall, "p1_ED_epi.nii.gz: no such file; labels need both"),
        (_no_es, r"p1_ES.nii.gz: no such file \(ES\)"),
        (_no_frames, r"p1_ED.nii.gz: no such file \(ED\)"),
        (_plane, "p1_ED.nii.gz: expected an image with 3 dimensions"),
        (_wrong_label, "p1_ED_gt.nii.gz: expected the labels 0 background, 1 lv, 2 myo; received values 0, 3"),
        (_nan, "p1_ES.nii.gz: 1920 voxels are NaN"),
        (_elsewhere, "p1_ES.nii.gz: lies elsewhere than p1_ED.nii.gz.*20.0 mm"),
    ],
)
def test_damage_is_named_or_skipped(folder, damage, message):
    damage(folder / "p1")
    with pytest.raises(DataError, match=message):
        read(folder)
    loaded = load("echo", folder, split="all", size=(16, 16, 16), skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["p1"] and [pair.patient for pair in loaded.pairs] == ["p2"]


def test_real_echo_through_the_same_code(data_dir, tmp_path):
    """A public cine of seven frames; its segmentation is of a valve's ring, taken here as the wall."""
    cine, ring = data_dir / "echo3d_greedy" / "img4d.nii.gz", data_dir / "echo3d_greedy" / "seg4d_resliced.nii.gz"
    if not cine.is_file():
        pytest.skip(f"no {cine}")
    folder = tmp_path / "echo" / "greedy"
    folder.mkdir(parents=True)
    (folder / "greedy_4d.nii.gz").symlink_to(cine)
    (folder / "Info.cfg").write_text("ED: 1\nES: 4\nNbFrame: 7\n")
    masks = nib.load(ring)
    for time, frame in (("ED", 0), ("ES", 3)):
        mask = 2 * (np.asarray(masks.dataobj)[..., frame] > 0)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), masks.affine), folder / f"greedy_{time}_gt.nii.gz")
    for crop in ("paper", "aspect"):
        [pair] = load("echo", tmp_path, split="all", crop=crop).pairs
        assert pair.moving.shape == (64, 64, 64) and pair.moving.max() == pair.fixed.max() == 1
        volume = np.count_nonzero(pair.moving_labels == 2) * np.prod(pair.spacing)
        voxel = np.prod(masks.header.get_zooms()[:3])
        assert volume == pytest.approx((np.asarray(masks.dataobj)[..., 0] > 0).sum() * voxel, rel=0.05)
        assert np.abs(pair.moving - pair.fixed).mean() > 0.01
