"""`hetmorph apply` and `jacobian` on transforms that are known."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest

from hetmorph.io import Grid, Transform, read_image, read_transform, warp_image, write_image, write_transform
from tests import anatomy
from tests.cli.conftest import arrays
from tests.cli.test_main import STARTS, run
from tests.io.worlds import GRIDS_3D

GRID = GRIDS_3D["oblique"]
SHIFT = np.array([2.0, -1.0, 3.0])  # RAS mm, fixed to moving


@pytest.fixture
def moved_world(tmp_path):
    """A translation on disk, and an image and labels that lie where it leads."""
    u = np.broadcast_to(np.linalg.solve(GRID.linear, SHIFT), (*GRID.shape, 3))
    write_transform(tmp_path / "t.nii.gz", Transform(u, GRID))
    write_image(tmp_path / "m.nii.gz", anatomy.image(GRID, SHIFT).array, GRID)
    write_image(tmp_path / "l.nii.gz", anatomy.labels(GRID, SHIFT).array, GRID)
    return tmp_path


@pytest.mark.parametrize(("frame", "sign"), [("LPS", (-1, -1, 1)), ("RAS", (1, 1, 1))])
def test_points_of_the_fixed_image_come_out_in_the_moving_one(hetmorph, moved_world, frame, sign):
    place = anatomy.middle(GRID) * sign
    (moved_world / "p.csv").write_text(f"x,y,z\n{','.join(map(str, place))}\n")
    words = ("apply", "--transform", moved_world / "t.nii.gz", "--points", moved_world / "p.csv")
    hetmorph(*words, "--points-out", moved_world / "q.csv", "--points-frame", frame)
    got = np.array((moved_world / "q.csv").read_text().splitlines()[1].split(","), float)
    np.testing.assert_allclose(got, place + SHIFT * sign, atol=1e-4)


def test_images_and_labels_come_onto_the_fixed_grid(hetmorph, moved_world):
    hetmorph(
        *("apply", "--transform", moved_world / "t.nii.gz", "--moving", moved_world / "m.nii.gz"),
        *("--moved", moved_world / "moved.nii.gz", "--labels", moved_world / "l.nii.gz", "--nearest"),
        *("--labels-out", moved_world / "lo.nii.gz"),
    )
    moved, labels = arrays(moved_world / "moved.nii.gz", moved_world / "lo.nii.gz")
    expected = anatomy.image(GRID).array
    there = moved != 0
    assert there.mean() > 0.6 and np.abs(moved - expected)[there].max() < 0.1 * np.ptp(expected)
    assert (labels == anatomy.labels(GRID).array).mean() > 0.9 and labels.dtype == np.uint8


def test_another_fixed_image(hetmorph, moved_world):
    """The transform is a mapping of millimetres: on a finer grid the result is the same world."""
    from hetmorph.io import model_grid

    finer = model_grid(GRID, spacing=1.0)
    write_image(moved_world / "f.nii.gz", anatomy.image(finer, about=GRID).array, finer)
    hetmorph(
        *("apply", "--transform", moved_world / "t.nii.gz", "--fixed", moved_world / "f.nii.gz"),
        *("--moving", moved_world / "m.nii.gz", "--moved", moved_world / "moved.nii.gz"),
    )
    moved = read_image(moved_world / "moved.nii.gz")
    assert moved.grid.same(finer)
    expected = anatomy.image(finer, about=GRID).array
    there = moved.array != 0
    assert np.abs(moved.array - expected)[there].max() < 0.12 * np.ptp(expected)


def test_a_sequence_goes_through_one_transform(hetmorph, moved_world):
    frames, like = np.stack([anatomy.image(GRID, SHIFT).array * factor for factor in (1, 2)], -1), anatomy.image(GRID)
    like = dataclasses.replace(like, spacing=(*GRID.spacing, 40.0), time_unit="msec", codes=(4, 4))
    write_image(moved_world / "m4.nii.gz", frames, like)
    hetmorph(
        *("apply", "--transform", moved_world / "t.nii.gz", "--moving", moved_world / "m4.nii.gz"),
        *("--moved", moved_world / "moved.nii.gz"),
    )
    image = read_image(moved_world / "moved.nii.gz")
    moved = image.array
    assert image.spacing[3] == 40 and image.time_unit == "msec" and image.codes == (1, 1)  # of the fixed image
    np.testing.assert_allclose(2 * moved[..., 0], moved[..., 1], rtol=1e-4, atol=1e-3)


def test_a_dry_run_writes_nothing(hetmorph, moved_world):
    before = sorted(moved_world.iterdir())
    words = ("--moving", moved_world / "m.nii.gz", "--moved", moved_world / "x.nii.gz", "--dry-run")
    assert "would write" in hetmorph("apply", "--transform", moved_world / "t.nii.gz", *words).output
    words = ("--out", moved_world / "j.nii.gz", "--dry-run")
    assert "folds 0 %" in hetmorph("jacobian", "--transform", moved_world / "t.nii.gz", *words).output
    assert sorted(moved_world.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--points", "p.csv"), "--points and --points-out belong together"),
        (("--moved", "x.nii.gz"), "--moved needs --moving"),
        ((), "nothing to write"),
        (("--labels", "{}/m.nii.gz", "--labels-out", "{}/x.nii.gz"), "labels must be whole numbers"),
        (("--points", "{}/p.txt", "--points-out", "{}/q.csv"), "p.txt: no such file"),
        (("--moving", "{}/t.nii.gz", "--moved", "{}/x.nii.gz"), "expected"),
    ],
)
def test_mistakes_are_named(hetmorph, moved_world, words, message):
    words = [word.format(moved_world) for word in words]
    result = hetmorph("apply", "--transform", moved_world / "t.nii.gz", *words, status=2)
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_what_is_no_transform_is_named(hetmorph, moved_world):
    words = ("--moving", moved_world / "m.nii.gz", "--moved", moved_world / "x.nii.gz")
    result = hetmorph("apply", "--transform", moved_world / "m.nii.gz", *words, status=2)
    assert "m.nii.gz" in result.stderr and "expected displacements" in result.stderr


def test_jacobian_of_a_stretch(hetmorph, tmp_path):
    write_transform(tmp_path / "t.nii.gz", Transform(0.2 * GRID.indices() * [1, 0, 0], GRID))
    assert (
        "determinant 1.2 to 1.2"
        in hetmorph("jacobian", "--transform", tmp_path / "t.nii.gz", "--out", tmp_path / "j.nii.gz", "--log").output
    )
    np.testing.assert_allclose(arrays(tmp_path / "j.nii.gz")[0], np.log(1.2), atol=1e-4)


def test_there_and_back(hetmorph, moved_world):
    """Through a transform and its inverse an image stays what it is, interpolated once."""
    words = ("-t", moved_world / "t.nii.gz", "-t", f"[{moved_world / 't.nii.gz'},inverse]")
    hetmorph("apply", *words, "--moving", moved_world / "m.nii.gz", "--moved", moved_world / "same.nii.gz")
    np.testing.assert_allclose(*arrays(moved_world / "same.nii.gz", moved_world / "m.nii.gz"), rtol=1e-4, atol=1e-3)
    assert "determinant 1 to 1" in hetmorph("jacobian", *words, "--out", moved_world / "j.nii.gz").output
    hetmorph("jacobian", *words[2:], "--fixed", moved_world / "m.nii.gz", "--out", moved_world / "j.nii.gz")
    said = hetmorph("jacobian", *words[2:], "--out", moved_world / "j.nii.gz", status=2).stderr
    assert "does not say on which grid the results shall lie; give the fixed image" in said


@pytest.mark.parametrize("method", ["linear", "nearest", "cubic", "sinc"])
def test_interpolation_and_what_lies_outside(hetmorph, moved_world, method):
    words = ("--moving", moved_world / "m.nii.gz", "--moved", moved_world / "x.nii.gz", "--interpolation", method)
    hetmorph("apply", "-t", moved_world / "t.nii.gz", *words, "--fill-value", -77)
    moved, moving = arrays(moved_world / "x.nii.gz", moved_world / "m.nii.gz")
    image, grid = read_image(moved_world / "m.nii.gz"), read_transform(moved_world / "t.nii.gz")
    np.testing.assert_allclose(moved, warp_image(grid, moving, image.grid, method, -77), rtol=1e-5, atol=1e-4)
    assert 0 < (moved == -77).mean() < 0.5


def test_labels_of_another_place_are_not_zeros(hetmorph, moved_world):
    labels = read_image(moved_world / "l.nii.gz")
    away = labels.affine.copy()
    away[:3, 3] += 1000
    write_image(moved_world / "l.nii.gz", labels.array, Grid(labels.grid.shape, away))
    words = ("--labels", moved_world / "l.nii.gz", "--labels-out", moved_world / "lo.nii.gz")
    said = hetmorph("apply", "-t", moved_world / "t.nii.gz", *words, status=2).stderr
    assert "their headers place them apart" in said and not (moved_world / "lo.nii.gz").exists()


def test_points_of_another_place_are_told_of(hetmorph, moved_world):
    (moved_world / "p.csv").write_text("x,y,z\n100000,0,0\n")
    words = ("--points", moved_world / "p.csv", "--points-out", moved_world / "q.csv")
    said = hetmorph("apply", "-t", moved_world / "t.nii.gz", *words).stderr
    assert said.startswith("hetmorph apply: warning: 1 of 1 points lie up to ")
    assert len(said.splitlines()) == 1


def test_neither_needs_tensorflow(moved_world):
    transform = ("-t", moved_world / "t.nii.gz")
    apply = ("apply", *transform, "--moving", moved_world / "m.nii.gz", "--moved", moved_world / "x.nii.gz")
    for words in (apply, ("jacobian", *transform, "--out", moved_world / "j.nii.gz")):
        done = run(words, ("-c", STARTS["script"]))
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr


def dispvect(path, vectors, intent):
    nifti = nib.Nifti1Image(vectors.astype(np.float32), GRID.affine)
    nifti.header.set_intent(intent)
    nib.save(nifti, path)


def test_a_warp_of_another_program_is_understood_or_asked_about(hetmorph, moved_world):
    """Points say which way the vectors go; the sidecar and a dry run say how they were understood."""
    place, warp = anatomy.middle(GRID), moved_world / "w.nii.gz"
    (moved_world / "p.csv").write_text(f"x,y,z\n{','.join(map(str, place))}\n")
    words = ("--points", moved_world / "p.csv", "--points-out", moved_world / "q.csv", "--points-frame", "RAS")
    field = np.broadcast_to(SHIFT, (*GRID.shape, 3))
    dispvect(warp, field[:, :, :, None], 1006)  # as FreeSurfer and ITK have it, RAS
    for what, said in ((field, ()), (field, ("--field-convention", "ras")), (-field, ("--field-convention", "lps"))):
        if said:
            dispvect(warp, what * [1, 1, -1 if said[1] == "lps" else 1], 1007)  # four axes: programs differ
            result = hetmorph("apply", "--transform", warp, *words, status=2)
            assert "--field-convention" in result.output and len(result.output.splitlines()) == 1
        hetmorph("apply", "--transform", warp, *words, *said)
        got = np.array((moved_world / "q.csv").read_text().splitlines()[1].split(","), float)
        np.testing.assert_allclose(got, place + SHIFT, atol=1e-4)
        understood = json.loads((moved_world / "q.csv.json").read_text())["transform_understood"]
        assert understood.startswith(f"displacements, {said[1].upper() if said else 'RAS'} mm")
        assert understood in hetmorph("apply", "--transform", warp, *words, *said, "--dry-run").output
        hetmorph("jacobian", "--transform", warp, *said, "--out", moved_world / "j.nii.gz")
        assert json.loads((moved_world / "j.json").read_text())["transform_understood"] == understood


def test_a_transform_of_elastix_is_named(hetmorph, moved_world):
    pytest.importorskip("SimpleITK")
    (moved_world / "TransformParameters.0.txt").write_text('(Transform "EulerTransform")\n(NumberOfParameters 6)\n')
    words = (
        "--fixed",
        moved_world / "l.nii.gz",
        "--moving",
        moved_world / "m.nii.gz",
        "--moved",
        moved_world / "x.nii",
    )
    result = hetmorph("apply", "--transform", moved_world / "TransformParameters.0.txt", *words, status=2)
    assert "elastix" in result.output and "transformix" in result.output and "damaged" not in result.output


def test_results_in_freesurfers_format_and_the_qform_of_the_fixed_image(hetmorph, moved_world):
    """A sequence too has the place of the fixed image, its qform of another place included."""
    fixed = nib.load(moved_world / "m.nii.gz")
    fixed = nib.Nifti1Image(np.asarray(fixed.dataobj), fixed.affine)
    elsewhere = fixed.affine + np.array([[0, 0, 0, 9.0]] * 3 + [[0, 0, 0, 0]])
    fixed.set_sform(fixed.affine, 4)
    fixed.set_qform(elsewhere, 1)
    nib.save(fixed, moved_world / "f.nii.gz")
    frames = np.stack([np.asarray(fixed.dataobj)] * 2, -1)
    write_image(moved_world / "m4.nii.gz", frames, GRID)
    words = ("apply", "--transform", moved_world / "t.nii.gz", "--fixed", moved_world / "f.nii.gz", "--moving")
    for moving in ("m", "m4"):
        result = hetmorph(*words, moved_world / f"{moving}.nii.gz", "--moved", moved_world / "moved.nii.gz")
        assert result.output.count("warning") == 1 and "qform" in result.output
        header = nib.load(moved_world / "moved.nii.gz").header
        assert (header["sform_code"], header["qform_code"]) == (4, 1)
        np.testing.assert_allclose(header.get_qform(), elsewhere, atol=1e-3)
    hetmorph(*words, moved_world / "m.nii.gz", "--moved", moved_world / "moved.mgz")
    np.testing.assert_allclose(nib.load(moved_world / "moved.mgz").affine, fixed.affine, atol=1e-4)
