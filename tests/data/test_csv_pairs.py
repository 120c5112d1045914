"""Tables of pairs: what they may say, and everything they may say wrongly."""

import csv

import nibabel as nib
import numpy as np
import pytest

from hetmorph.data import DataError, load
from hetmorph.data.crop import fit
from hetmorph.data.normalise import minmax
from hetmorph.evaluation import Predictor
from hetmorph.io import DataWarning, Grid, read_image, resample, write_image
from hetmorph.registration import Intensities, Scale
from hetmorph.registration.pair import brought_near, model_pair
from tests.data.sets import picture, save, shell, write_csv, write_table
from tests.io.worlds import GRIDS_2D, GRIDS_3D, moving_of


class Resizing(Predictor):
    """A predictor of one size, of which nothing but that is asked."""

    def __init__(self, shape):
        self.resizes_to = shape


def rows_of(table):
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


def read(table, **options):
    return load(table, **{"split": "all", **options})


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1), (10, 12, 14)])
def test_rows_are_pairs_in_file_axes(tmp_path, shape):
    loaded = read(write_table(tmp_path, 3, shape))
    flat = tuple(length for length in shape if length > 1)
    assert loaded.labels == {"label_1": 1, "label_2": 2} and loaded.main == "label_1"
    for number, pair in enumerate(loaded.pairs):
        assert pair.moving.shape == flat and pair.case_id == f"line{number + 2:04d}"
        image = picture(shell(shape, 6, 3), number).reshape(flat).astype(float)
        np.testing.assert_allclose(pair.moving, (image - image.min()) / np.ptp(image), atol=1e-6)
        np.testing.assert_array_equal(pair.fixed_labels, shell(shape, 5, 3).reshape(flat))
        np.testing.assert_allclose(pair.spacing, (1.5, 1.25, 2.0)[: len(flat)], rtol=1e-6)


def test_labels_are_optional(tmp_path):
    loaded = read(write_table(tmp_path, 3, columns=()))
    assert loaded.labels == {} and loaded.main is None and len(loaded.unlabelled) == 3


def test_cells_of_labels_may_be_empty(tmp_path):
    table = write_table(tmp_path, 3)
    rows = rows_of(table)
    rows[1]["fixed_labels"] = ""
    assert read(write_csv(table, rows)).unlabelled == ["line0003"]


def test_size_crops_and_pads_round_the_middle(tmp_path, caplog):
    table = write_table(tmp_path, 3)
    whole = read(table).pairs[0]
    padded = read(table, size=(32, 32)).pairs[0]
    np.testing.assert_array_equal(padded.moving[6:26, 4:28], whole.moving)
    small = read(table, size=(8, 8))
    assert small.pairs[0].moving.shape == (8, 8) and len(small.cut) == 3 and "in 3 of 3 pairs" in caplog.text
    with pytest.raises(DataError, match="fixed0.nii.gz: expected 3 dimensions as in size"):
        read(table, size=(8, 8, 8))


def test_paths_start_from_data_dir_where_it_is_given(tmp_path):
    write_table(tmp_path / "files", 3)
    table = (tmp_path / "files" / "pairs.csv").rename(tmp_path / "pairs.csv")
    assert len(read(table, data_dir=tmp_path / "files").pairs) == 3
    with pytest.raises(DataError, match="images/moving0.nii.gz: no such file"):
        read(table)


def test_the_environment_variable_does_not_move_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("HETMORPH_DATA", "/nowhere")
    assert len(read(write_table(tmp_path, 3)).pairs) == 3


def test_names_of_cases_and_patients_come_from_the_table(tmp_path):
    table = write_table(tmp_path, 4, case=["a", "b", "c", ""], patient=["p", "p", "q", "r"])
    pairs = read(table).pairs
    assert [(pair.case_id, pair.patient) for pair in pairs] == [("a", "p"), ("b", "p"), ("c", "q"), ("line0005", "r")]
    parts = read(table).splits
    assert sorted(sum(parts.values(), [])) == ["p", "q", "r"] and all(parts.values())


def test_a_column_split_is_the_division(tmp_path):
    table = write_table(tmp_path, 4, case=list("abcd"), split=["train", "test", "train", "val"])
    parts = {split: [pair.case_id for pair in load(table, split=split).pairs] for split in ("train", "val", "test")}
    assert parts == {"train": ["a", "c"], "val": ["d"], "test": ["b"]}
    own = {"train": ["b"], "val": ["a"], "test": ["d"]}
    assert [pair.case_id for pair in load(table, split="test", splits=own).pairs] == ["d"]


def test_rows_that_share_an_image_stay_together(tmp_path):
    table = write_table(tmp_path, 6, columns=())
    rows = rows_of(table)
    rows[4]["moving"] = rows[0]["fixed"]
    rows[5]["fixed"] = rows[4]["fixed"]
    owners = [pair.patient for pair in read(write_csv(table, rows)).pairs]
    assert owners == ["line0002", "line0002", "line0002", "line0003", "line0004", "line0005"]


def test_one_atlas_for_all_asks_for_a_column(tmp_path, caplog):
    table = write_table(tmp_path, 4, columns=())
    rows = [row | {"fixed": "images/fixed0.nii.gz"} for row in rows_of(table)]
    assert len({pair.patient for pair in read(write_csv(table, rows)).pairs}) == 1
    assert "a column patient or split says how to divide them" in caplog.text
    named = [row | {"patient": f"p{number}"} for number, row in enumerate(rows)]
    assert len({pair.patient for pair in read(write_csv(table, named)).pairs}) == 4


def test_one_atlas_for_all_is_divided_by_the_column_split(tmp_path, caplog):
    table = write_table(tmp_path, 6, columns=(), split=["train"] * 3 + ["val", "test", "test"])
    rows = [row | {"fixed": "images/fixed0.nii.gz"} for row in rows_of(table)]
    write_csv(table, rows)
    parts = {split: [pair.case_id for pair in load(table, split=split).pairs] for split in ("train", "val", "test")}
    assert parts == {
        "train": ["line0002", "line0003", "line0004"],
        "val": ["line0005"],
        "test": ["line0006", "line0007"],
    }
    assert read(table).splits == {"train": ["line0002"], "val": ["line0005"], "test": ["line0006"]}
    assert "in more than one split" in caplog.text and "fixed0.nii.gz; harmless for an atlas" in caplog.text


def test_large_label_values_are_kept(tmp_path):
    table = write_table(tmp_path, 3)
    save(tmp_path / "images" / "fixed1_seg.nii.gz", shell((20, 24), 5, 3).astype(np.int32) * 1000, (1.5, 1.25))
    loaded = read(table)
    assert loaded.labels == {f"label_{value}": value for value in (1, 2, 1000, 2000)}
    assert loaded.pairs[1].fixed_labels.dtype == np.uint16


def test_spreadsheets_write_marks_spaces_and_further_columns(tmp_path, caplog):
    table = write_table(tmp_path, 3, columns=())
    text = table.read_text().replace("moving,fixed", "moving , fixed,age").replace(".gz\n", ".gz, 54\n")
    table.write_text("\ufeff" + text, encoding="utf-8")
    assert len(read(table).pairs) == 3
    assert "the columns ['age'] are not used" in caplog.text


# --- wrong tables -----------------------------------------------------------------------------------------------------


def _set(number, **cells):
    def change(rows):
        rows[number].update(cells)
        return rows

    return change


def _without(column):
    return lambda rows: [{name: cell for name, cell in row.items() if name != column} for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("fixed"), "pairs.csv: expected a first line with the columns moving,fixed.*fixed not among"),
        (_set(1, moving=""), "pairs.csv, line 3: the cell moving is empty"),
        (
            _set(2, moving="images/moving0.nii.gz", fixed="images/fixed0.nii.gz"),
            "line 4: the same moving and fixed.*line 2",
        ),
        (_set(2, case="a"), "line 4: the case 'a' as in line 2"),
        (_set(0, split="training"), "line 2: expected split to be one of .*'training'"),
        (_set(0, split=""), "line 2: expected split to be one of .*None"),
        (_set(0, patient="q"), "patient 'q' is in more than one split, .*lines 2, 3"),
        (_set(0, patient=""), "line 2: the cell patient is empty"),
        (_set(0, fixed="images/none.nii.gz"), "none.nii.gz: no such file"),
        (_set(0, fixed_labels="images/none.nii.gz"), "none.nii.gz: no such file"),
    ],
)
def test_wrong_rows_are_named(tmp_path, change, message):
    table = write_table(tmp_path, 3, case=["a", "b", "c"], patient=["p", "q", "r"], split=["train", "val", "test"])
    write_csv(table, change(rows_of(table)))
    with pytest.raises(DataError, match=message):
        read(table)


@pytest.mark.parametrize("path", ["images/fixed0.nii.gz", "./images/../images/fixed0.nii.gz", "link.nii.gz"])
def test_an_image_is_one_however_its_path_is_spelt(tmp_path, path):
    table = write_table(tmp_path, 3, columns=())
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "images" / "fixed0.nii.gz")
    rows = _set(2, fixed=path)(rows_of(table))
    assert [pair.patient for pair in read(write_csv(table, rows)).pairs] == ["line0002", "line0002", "line0003"]
    rows[2]["moving"] = rows[0]["moving"]
    with pytest.raises(DataError, match="line 4: the same moving and fixed image as in line 2"):
        read(write_csv(table, rows))


def test_units_and_formats_are_those_of_register(tmp_path):
    """A table of FreeSurfer's files, and of headers in micrometres, gives the pairs of the same images in mm."""
    known = write_table(tmp_path, 1, (10, 12, 14))
    expected = read(known).pairs[0]
    for name in ("moving", "fixed", "moving_labels", "fixed_labels"):
        cell = rows_of(known)[0][name]
        nifti = nib.load(tmp_path / cell)
        nib.save(nib.MGHImage(np.asarray(nifti.dataobj).astype(np.float32), nifti.affine), tmp_path / f"{name}.mgz")
        micron = nib.Nifti1Image(np.asarray(nifti.dataobj), np.diag([1e3, 1e3, 1e3, 1]) @ nifti.affine)
        micron.header.set_xyzt_units("micron")
        nib.save(micron, tmp_path / f"{name}.nii")
    for suffix in (".mgz", ".nii"):
        row = {name: f"{name}{suffix}" for name in ("moving", "fixed", "moving_labels", "fixed_labels")}
        pair = read(write_csv(tmp_path / "other.csv", [row])).pairs[0]
        np.testing.assert_allclose(pair.spacing, expected.spacing, rtol=1e-5)
        for name in ("moving", "fixed", "moving_labels", "fixed_labels"):
            np.testing.assert_allclose(getattr(pair, name), getattr(expected, name), atol=1e-6)


def test_scores_in_mm_have_the_voxels_of_the_affine(tmp_path):
    """Whatever pixdim says."""
    row = {}
    for name in ("moving", "fixed"):
        nifti = nib.Nifti1Image(picture(shell((10, 12, 14), 5, 3), len(name)), np.diag([2.0, 2, 2, 1]))
        nifti.set_sform(nifti.affine, 1)
        nifti.set_qform(None, 0)
        nifti.header["pixdim"][1:4] = 1
        nib.save(nifti, tmp_path / f"{name}.nii")
        row[name] = f"{name}.nii"
    with pytest.warns(DataWarning, match="pixdim"):
        assert read(write_csv(tmp_path / "table.csv", [row])).pairs[0].spacing == (2, 2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a first line"),
        ("moving,fixed\n", "holds no row"),
        ("moving;fixed\na;b\n", "separated by commas"),
        ("moving,fixed\na,b,c\n", "line 2: expected as many cells"),
        ("moving,fixed\na\n", "line 2: expected as many cells"),
        ("moving,fixed,fixed\na,b,c\n", r"the columns \['fixed'\] are there twice"),
        (b"\xff\xfe\x00", "expected a table of pairs"),
        (None, "No such file"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, content, message):
    table = tmp_path / "pairs.csv"
    if content is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"pairs.csv.*{message}"):
        read(table)


@pytest.mark.parametrize(
    ("file", "array", "spacing", "message"),
    [
        ("fixed1", np.full((20, 24), np.nan), (1.5, 1.25), "480 voxels are NaN"),
        (
            "moving1",
            np.ones((2, 3, 4, 5)),
            None,
            r"expected an image with 2 or 3 dimensions, received shape \(2, 3, 4, 5\)",
        ),
        ("moving1", np.ones(7), None, "expected an image with 2 or 3 dimensions"),
        ("moving1_seg", np.full((20, 24), 0.3), (1.5, 1.25), "expected whole label values.*not probabilities"),
        ("moving1_seg", np.full((20, 24), -1.0), (1.5, 1.25), "expected whole label values .*from -1"),
        ("moving1", np.ones((4, 20, 24)), None, r"expected two grids of as many axes.*fixed image fixed1.nii.gz"),
    ],
)
def test_wrong_files_are_named_or_their_patient_skipped(tmp_path, file, array, spacing, message):
    table = write_table(tmp_path, 3)
    save(tmp_path / "images" / f"{file}.nii.gz", array.astype(np.float32), spacing)
    with pytest.raises(DataError, match=f"{file}.nii.gz: {message}"):
        read(table)
    loaded = read(table, skip_bad=True)
    assert [patient for patient, _ in loaded.skipped] == ["line0003"] and len(loaded.pairs) == 2


def test_images_that_do_not_overlap_are_named(tmp_path):
    table = write_table(tmp_path, 3)
    affine = np.diag([1.5, 1.25, 1.0, 1.0])
    affine[0, 3] = 200
    save(tmp_path / "images" / "moving0.nii.gz", picture(shell((20, 24), 5, 3), 0), affine=affine)
    with pytest.raises(DataError, match=r"moving0.nii.gz: the images do not overlap.*fixed image fixed0.nii.gz"):
        read(table)


@pytest.mark.parametrize("size", [None, (16, 16, 16)])
def test_a_moving_image_on_another_grid_is_resampled_as_register_does(tmp_path, size):
    """Another voxel size, turned axes and another field of view, for the image and once more for its labels."""
    table = write_table(tmp_path, 3, (12, 14, 10))
    plain = read(table, size=size).pairs[1]
    other = np.array([[0, 1.0, 0, -2], [-1.5, 0, 0, 20], [0, 0, 1.0, -3], [0, 0, 0, 1]])
    place, labels_place = Grid((20, 16, 26), other), Grid((28, 28, 22), np.diag([0.75, 0.75, 1.0, 1]))
    for name, grid, method in (("moving1", place, "linear"), ("moving1_seg", labels_place, "nearest")):
        image = read_image(tmp_path / "images" / f"{name}.nii.gz")
        save(image.path, resample(image.array, image.grid, grid, method).astype(np.float32), affine=grid.affine)
    pair = read(table, size=size).pairs[1]
    moving, fixed = (read_image(tmp_path / "images" / f"{role}1.nii.gz") for role in ("moving", "fixed"))
    _, grid, seen = model_pair(moving, fixed)
    assert grid.same(fixed.grid)
    if size is None:
        np.testing.assert_array_equal(pair.moving, seen[0])
    np.testing.assert_array_equal(pair.fixed, plain.fixed)
    assert pair.spacing == plain.spacing and pair.moving.shape == plain.moving.shape
    assert np.mean(pair.moving_labels == plain.moving_labels) > 0.97  # a finer grid and back


def test_files_without_orientation_are_matched_voxel_by_voxel(tmp_path):
    table = write_table(tmp_path, 3, columns=())
    bare = nib.Nifti1Image(picture(shell((20, 24), 6, 3), 1), None)
    nib.save(bare, tmp_path / "images" / "moving1.nii.gz")
    assert not read_image(tmp_path / "images" / "moving1.nii.gz").oriented
    np.testing.assert_array_equal(read(table).pairs[1].moving, minmax(np.asarray(bare.dataobj)))
    nib.save(nib.Nifti1Image(np.eye(7), None), tmp_path / "images" / "moving1.nii.gz")
    with pytest.raises(DataError, match=r"moving1.nii.gz: states no orientation"):
        read(table)


def test_real_volumes_through_a_table(data_dir, tmp_path):
    folder = data_dir / "ACDC" / "training" / "patient001"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    row = {"moving": "patient001_frame01.nii.gz", "fixed": "patient001_frame12.nii.gz"}
    row |= {f"{role}_labels": name.replace(".nii", "_gt.nii") for role, name in row.items()}
    loaded = read(write_csv(tmp_path / "pairs.csv", [row]), data_dir=folder, size=(128, 128, 10))
    assert loaded.labels == {"label_1": 1, "label_2": 2, "label_3": 3}
    assert loaded.pairs[0].moving.shape == (128, 128, 10) and loaded.pairs[0].spacing[2] == 10


FIXED = {3: GRIDS_3D["oblique flipped permuted"], 2: GRIDS_2D["oblique flipped"]}
SIZES = {3: (10, 12, 9), 2: (18, 14)}


def write_apart(folder, ndim=3, far=0.0, **cells):
    """A table of one pair whose grids agree in nothing, `far` voxels from each other; each image has a bright spot at a
    known voxel, labels and landmarks."""
    row, rng = {}, np.random.default_rng(0)
    away = moving_of(FIXED[ndim])
    away = Grid(away.shape, away.affine + far * np.pad(away.linear[:, :1], ((0, 4 - len(away.linear)), (3, 0))))
    for role, grid in {"fixed": FIXED[ndim], "moving": away}.items():
        spot = np.array(grid.shape) * (0.4 if role == "fixed" else 0.55)
        distance = np.linalg.norm(grid.indices()[..., :ndim] - spot, axis=-1)
        array = 900 * np.exp(-((distance / 2.0) ** 2)) - 1000 + 20 * rng.random(grid.shape)
        row[role], row[f"{role}_labels"] = f"{role}.nii.gz", f"{role}_seg.nii.gz"
        write_image(folder / row[role], array.astype(np.float32), grid)
        write_image(folder / row[f"{role}_labels"], (distance < 3).astype(np.uint8), grid)
        row[f"mask_{role}"] = row[f"{role}_labels"]
        row[f"points_{role}"] = f"{role}.csv"
        lines = ["name,x,y,z"[: 6 + 2 * (ndim - 1)], ",".join(["spot", *map(str, spot)])]
        (folder / row[f"points_{role}"]).write_text("\n".join(lines) + "\n")
    return write_csv(folder / "apart.csv", [row | {"points_frame": "voxel"} | cells])


@pytest.mark.parametrize(
    ("cells", "scales"),
    [
        ({}, (None, None)),
        ({"modality": "ct"}, ("ct", "ct")),
        ({"modality_moving": "ct", "modality_fixed": "mri"}, ("ct", "mri")),
        ({"modality": "mri", "modality_moving": "ct"}, ("ct", "mri")),
        ({"modality_fixed": "mri"}, (None, "mri")),
    ],
)
@pytest.mark.parametrize("ndim", [2, 3])
def test_resized_images_are_what_register_shows_a_model_of_one_size(tmp_path, ndim, cells, scales):
    (pair,) = read(write_apart(tmp_path, ndim, far=90.0, **cells), size=SIZES[ndim], crop="resize").pairs
    moving, fixed = (read_image(tmp_path / f"{role}.nii.gz").trimmed() for role in ("moving", "fixed"))
    moving = moving.with_axes_of(fixed)
    scaled = Intensities(*(scale and Scale(scale) for scale in scales))
    initial = brought_near(moving, fixed, Resizing(SIZES[ndim]), None)
    _, grid, seen = model_pair(moving, fixed, initial=initial, intensities=scaled, shape=SIZES[ndim])
    np.testing.assert_allclose([pair.moving, pair.fixed], seen, atol=1e-5)
    np.testing.assert_allclose(pair.spacing, grid.spacing)


@pytest.mark.parametrize("crop", ["middle", "resize"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_masks_and_landmarks_follow_the_resized_images(tmp_path, ndim, crop):
    size = {"resize": SIZES, "middle": dict.fromkeys((2, 3))}[crop][ndim]
    far = 90.0 if crop == "resize" else 0.0
    (pair,) = read(write_apart(tmp_path, ndim, far, modality="mri"), size=size, crop=crop).pairs
    for role in ("moving", "fixed"):
        image, labels = getattr(pair, role), getattr(pair, f"{role}_labels")
        (spot,) = getattr(pair, f"points_{role}")
        bright = np.where(image > 0.3, image, 0)
        for weight in (bright, labels, getattr(pair, f"mask_{role}")):
            places = np.argwhere(weight)
            centre = np.average(places, axis=0, weights=np.asarray(weight, float)[tuple(places.T)])
            np.testing.assert_allclose(centre, spot, atol=0.7)


def test_a_scaled_image_is_the_same_before_and_after_a_crop(tmp_path):
    """The window of ct is of Hounsfield units, and not of what a crop happens to hold."""
    table = write_apart(tmp_path, modality="ct")
    whole, part = (read(table, size=size).pairs[0] for size in (None, (7, 7, 6)))
    np.testing.assert_array_equal(part.fixed, fit(whole.fixed, (7, 7, 6)))
    image = read_image(tmp_path / "fixed.nii.gz").array
    np.testing.assert_allclose(whole.fixed, np.clip(image + 1000, 0, 2000) / 2000, atol=1e-6)


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ({"modality": "pet"}, {}, "line 2: expected a modality of ct, mri, received 'pet'"),
        ({}, {"crop": "resize"}, r"expected a size \(--size\) with crop 'resize'"),
        ({}, {"crop": "paper"}, r"crop to be one of \('middle', 'resize'\)"),
        ({}, {"crop": "resize", "size": (8, 8)}, "expected 2 dimensions as in size"),
    ],
)
def test_mistakes_of_scale_and_size_are_told(tmp_path, cells, options, message):
    with pytest.raises(ValueError, match=message):
        read(write_apart(tmp_path, **cells), **options)


def test_a_constant_image_has_no_scale(tmp_path):
    table = write_apart(tmp_path, modality="mri")
    write_image(tmp_path / "moving.nii.gz", np.full(FIXED[3].shape, 7.0, np.float32), FIXED[3])
    with pytest.raises(DataError, match=r"moving.nii.gz: the image is constant \(7\)"):
        read(table)
