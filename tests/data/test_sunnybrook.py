"""The Sunnybrook adapter."""

import numpy as np
import pytest

from hetmorph.data import DataError, load
from tests.data.sets import sunnybrook_arrays, write_sunnybrook

SIZE = (24, 24)


@pytest.fixture
def folder(tmp_path):
    return write_sunnybrook(tmp_path, 2)


def test_slices_of_the_two_phases_are_pairs_with_axes_x_y(folder):
    loaded = load("sunnybrook", folder, split="all", size=(22, 20))
    assert [pair.slice_index for pair in loaded.pairs] == [0, 1, 2] * 2 and not loaded.cut
    arrays = sunnybrook_arrays(1)
    for pair in loaded.pairs[:3]:
        for image, phase in ((pair.moving, 5), (pair.fixed, 2)):
            plane = arrays["cine"][pair.slice_index, phase].T.astype(float)
            np.testing.assert_allclose(image, (plane - plane.min()) / np.ptp(plane), atol=1e-6)
        np.testing.assert_array_equal(pair.moving_labels, arrays["endo_ED"][pair.slice_index].T)
        np.testing.assert_array_equal(pair.fixed_labels, arrays["endo_ES"][pair.slice_index].T)
        assert pair.spacing == (1.5, 1.25)


def test_a_small_window_says_what_it_cuts(folder, caplog):
    loaded = load("sunnybrook", folder, split="all", size=(8, 8))
    assert len(loaded.cut) == 6 and "in 6 of 6 slices" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cine": None}, "expected the arrays cine, .*received none called cine"),
        ({"endo_ES": np.zeros((3, 20, 21), np.uint8)}, r"expected endo_ES of shape \(3, 20, 22\)"),
        (
            {"endo_ES": np.full((3, 20, 22), 2, np.uint8)},
            "expected the labels 0 background, 1 lv_endo; received values 2",
        ),
        ({"cine": np.zeros((20, 22, 6), np.int16)}, r"expected cine with axes \(Z, T, Y, X\)"),
        ({"cine": np.full((3, 6, 20, 22), np.nan)}, "cine holds NaN"),
        ({"ed_phase": np.array(6)}, "expected ed_phase from 0 to 5, received 6"),
        ({"es_phase": np.array(5)}, "ed_phase and es_phase are the same"),
        ({"spacing_zyx": np.array([8.0, 1.25])}, "expected spacing_zyx of shape"),
        ({"cine": np.array([{}], object)}, "not a complete npz file"),
        ({"cine": np.full((3, 6, 20, 22), "a")}, "expected cine to hold real numbers"),
        ({"ed_phase": np.array("5")}, "expected ed_phase to hold real numbers"),
        ({"ed_phase": np.array(np.nan)}, "ed_phase holds NaN"),
        ({"es_phase": np.array(3.7)}, "expected es_phase to be the number of a frame, received 3.7"),
        ({"spacing_zyx": np.array([8.0, 0.0, 1.5])}, "expected spacing_zyx as millimetres above 0"),
        ({"spacing_zyx": np.array([8.0, 1.5, -1.5])}, "expected spacing_zyx as millimetres above 0"),
        ({"spacing_zyx": np.array([1.25, 1.5, 8.0])}, "expected .* the largest, between slices, first"),
    ],
)
def test_damage_is_named_or_skipped(folder, change, message):
    arrays = sunnybrook_arrays() | change
    np.savez(folder / "SCD0000001.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(DataError, match=f"SCD0000001.npz: {message}"):
        load("sunnybrook", folder, split="all", size=SIZE)
    loaded = load("sunnybrook", folder, split="all", size=SIZE, skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["SCD0000001"] and len(loaded.pairs) == 3


def test_a_text_file_is_no_archive(folder):
    (folder / "SCD0000001.npz").write_text("<html>login</html>")
    with pytest.raises(DataError, match="SCD0000001.npz: not a complete npz file"):
        load("sunnybrook", folder, split="all")


def test_a_single_array_is_no_archive(folder):
    with open(folder / "SCD0000001.npz", "wb") as file:
        np.save(file, sunnybrook_arrays()["cine"])
    with pytest.raises(DataError, match="SCD0000001.npz: not a complete npz file"):
        load("sunnybrook", folder, split="all")


def test_no_flipped_bit_gets_past(folder):
    path, rng = folder / "SCD0000001.npz", np.random.default_rng(0)
    np.savez_compressed(path, **sunnybrook_arrays())
    content = path.read_bytes()
    for place in rng.integers(0, len(content), 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 32]) + content[place + 1 :])
        assert load("sunnybrook", folder, split="all", size=SIZE, skip_bad=True).pairs


def test_real_cavities_are_bright_and_shrink(data_dir):
    if not (data_dir / "Sunnybrook").is_dir():
        pytest.skip(f"no Sunnybrook in {data_dir}")
    areas = {}
    for pair in load("sunnybrook", data_dir, split="all").pairs:
        assert pair.moving.shape == (128, 128)
        total = areas.setdefault(pair.patient, np.zeros(2))
        for place, (image, mask) in enumerate(
            ((pair.moving, pair.moving_labels == 1), (pair.fixed, pair.fixed_labels == 1))
        ):
            total[place] += mask.sum()
            assert not mask.any() or image[mask].mean() > image.mean()
    assert all(es < 0.9 * ed for ed, es in areas.values())
