"""`hetmorph register` on real files: what is written fits together, whoever reads it."""

import json
import re
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from hetmorph.cli.results import transform_of
from hetmorph.cli.settings import Settings
from hetmorph.io import Grid, Inverse, Transform, read_image, read_transform, write_image, write_transform
from hetmorph.metrics import dice
from tests import anatomy
from tests.cli.conftest import arrays
from tests.documentation import ROOT
from tests.networks.models import FEATURES, lively

ALL = ("moved", "transform", "inverse", "jacobian", "uncertainty", "labels-out")


def register(hetmorph, folder, model, *more, results=("moved", "transform"), **status):
    files = [word for name in results for word in (f"--{name}", folder / f"{name}.nii.gz")]
    labels = ("--labels-moving", folder / "l.nii.gz") if "labels-out" in results else ()
    pair = ("--moving", folder / "m.nii.gz", "--fixed", folder / "f.nii.gz")
    return hetmorph("register", *pair, *files, *labels, "--model", model, *more, **status)


@pytest.mark.quick("spacing1")
@pytest.mark.parametrize("spacing", [(), ("--spacing", 1.7)])
def test_what_is_written_fits_together(hetmorph, volumes, models, spacing):
    """The transform written, applied, gives --moved and --labels-out; points go there and back; the inverse inverts."""
    register(hetmorph, volumes, models["vxm3d"], "--draws", 4, *spacing, results=ALL)
    fixed, moving = read_image(volumes / "f.nii.gz"), read_image(volumes / "m.nii.gz")
    for name in set(ALL) - {"inverse", "transform"}:
        image = read_image(volumes / f"{name}.nii.gz", finite=False)
        assert image.grid.same(fixed.grid), name
    assert read_image(volumes / "moved.nii.gz").array.dtype == np.int16
    transform = read_transform(volumes / "transform.nii.gz")
    assert transform.grid.same(fixed.grid)
    assert np.linalg.norm(transform.displacement, axis=-1).max() > 0.3  # the model moves something

    hetmorph(
        *("apply", "--transform", volumes / "transform.nii.gz"),
        *("--moving", volumes / "m.nii.gz", "--moved", volumes / "again.nii.gz"),
        *("--labels", volumes / "l.nii.gz", "--labels-out", volumes / "labels.nii.gz"),
    )
    again, moved, labels, labels_out = arrays(
        *(volumes / name for name in ("again.nii.gz", "moved.nii.gz", "labels.nii.gz", "labels-out.nii.gz"))
    )
    assert np.abs(again.astype(int) - moved).max() <= 1  # vectors on disk are float32 millimetres
    assert (labels == labels_out).mean() > 0.999 and set(np.unique(labels_out)) == {0, 2, 3}
    (jacobian,) = arrays(volumes / "jacobian.nii.gz")
    hetmorph("jacobian", "--transform", volumes / "transform.nii.gz", "--out", volumes / "j.nii.gz")
    np.testing.assert_allclose(arrays(volumes / "j.nii.gz")[0], jacobian, atol=1e-3)

    inverse = read_transform(volumes / "inverse.nii.gz")
    assert inverse.grid.same(moving.grid)
    index = np.argwhere(np.ones(fixed.grid.shape))
    index = index[((index > 2) & (index < np.array(fixed.grid.shape) - 3)).all(-1)]
    start = fixed.grid.world(index)
    there = transform.world(start)
    assert (
        np.linalg.norm(inverse.world(there) - start, axis=-1).mean()
        < 0.1 * np.linalg.norm(there - start, axis=-1).mean()
    )
    said = json.loads((volumes / "inverse.json").read_text())["inverse"]
    assert said["residual_max_voxels"] < 1e-3 and said["share_above_1_voxel"] == 0
    (uncertainty,) = arrays(volumes / "uncertainty.nii.gz")
    assert np.nanmax(uncertainty) > 0 and np.isfinite(uncertainty).mean() > 0.3


def test_simpleitk_moves_the_image_to_the_same_place(hetmorph, volumes, models):
    sitk = pytest.importorskip("SimpleITK")
    register(hetmorph, volumes, models["vxm3d"])
    field = sitk.Cast(sitk.ReadImage(str(volumes / "transform.nii.gz")), sitk.sitkVectorFloat64)
    fixed, moving = (sitk.ReadImage(str(volumes / name), sitk.sitkFloat32) for name in ("f.nii.gz", "m.nii.gz"))
    warp = sitk.DisplacementFieldTransform(field)
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, warp, sitk.sitkLinear, 0.0)).T
    (ours,) = arrays(volumes / "moved.nii.gz")
    both = theirs != 0
    assert both.mean() > 0.5
    assert np.abs(ours - theirs)[both].max() < 1  # rounded to int16, as the moving image


def test_points_go_the_other_way(hetmorph, volumes, models):
    """A landmark of the fixed image comes out where the moving image has it; the inverse brings it back."""
    register(hetmorph, volumes, models["vxm3d"], results=("moved", "transform", "inverse"))
    fixed = read_image(volumes / "f.nii.gz").grid
    start = fixed.world((np.array(fixed.shape) - 1) / 2) * [-1, -1, 1]
    (volumes / "p.csv").write_text(f"name,x,y,z\napex,{','.join(f'{x:.6f}' for x in start)}\n")
    for transform, source, target in (("transform", "p.csv", "q.csv"), ("inverse", "q.csv", "r.csv")):
        hetmorph(
            *("apply", "--transform", volumes / f"{transform}.nii.gz"),
            *("--points", volumes / source, "--points-out", volumes / target),
        )
    there, back = (
        np.array((volumes / name).read_text().splitlines()[1].split(",")[1:], float) for name in ("q.csv", "r.csv")
    )
    expected = read_transform(volumes / "transform.nii.gz").world(start[None] * [-1, -1, 1])[0] * [-1, -1, 1]
    np.testing.assert_allclose(there, expected, atol=1e-4)
    assert np.abs(there - start).max() > 0.05 and np.abs(back - start).max() < 0.3 * np.abs(there - start).max()


def test_a_2d_model_on_a_stack(hetmorph, stack, models):
    register(hetmorph, stack, models["het2d"], results=("moved", "transform", "variance", "labels-out"))
    transform = read_transform(stack / "transform.nii.gz")
    assert np.abs(transform.displacement[..., 2]).max() < 1e-4 < np.abs(transform.displacement[..., :2]).max()
    (variance,) = arrays(stack / "variance.nii.gz")
    assert variance.shape == transform.grid.shape and variance.min() > 0


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
def test_png(hetmorph, tmp_path, models):
    from PIL import Image as Picture

    for name, shift in (("m.png", 0.0), ("f.png", 2.0)):
        x, y = np.meshgrid(np.arange(24.0), np.arange(20.0))
        pixels = 200 * np.exp(-((x - 11 - shift) ** 2 + (y - 9) ** 2) / 30)
        Picture.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    hetmorph(
        *("register", "--moving", tmp_path / "m.png", "--fixed", tmp_path / "f.png", "--model", models["het2d"]),
        *("--moved", tmp_path / "moved.png", "--transform", tmp_path / "t.nii.gz", "--instance-optimise", 40),
        *("--instance-window", 0, "--instance-lambda", 0.001),
    )
    moving, fixed, moved = (x.astype(float) for x in arrays(*(tmp_path / n for n in ("m.png", "f.png", "moved.png"))))
    assert moved.shape == (24, 20)
    assert np.square(moved - fixed).mean() < 0.2 * np.square(moving - fixed).mean()
    assert read_transform(tmp_path / "t.nii.gz").grid.shape == (24, 20)


@pytest.mark.parametrize(("name", "format"), [("t.h5", "itk"), ("t.npz", "learn2reg"), ("t.npz", "voxelmorph")])
def test_formats_of_others(hetmorph, volumes, models, name, format):
    if format == "itk":
        pytest.importorskip("SimpleITK")
    register(hetmorph, volumes, models["vxm3d"], "--transform", volumes / name, "--format", format, results=("moved",))
    hetmorph(
        *("apply", "--transform", volumes / name, "--fixed", volumes / "f.nii.gz", "--format", format),
        *("--moving", volumes / "m.nii.gz", "--moved", volumes / "again.nii.gz"),
    )
    again, moved = arrays(volumes / "again.nii.gz", volumes / "moved.nii.gz")
    assert np.abs(again.astype(int) - moved).max() <= 1


def test_where_it_comes_from_stands_beside_it(hetmorph, volumes, models):
    register(hetmorph, volumes, models["vxm3d"], "--seed", 3)
    for name, unit in (("transform", "mm"), ("moved", "intensity of the moving image")):
        entries = json.loads((volumes / f"{name}.json").read_text())
        assert entries["command"][:2] == ["hetmorph", "register"] and "--seed" in entries["command"]
        assert entries["inputs"]["moving"] == str(volumes / "m.nii.gz")
        assert len(entries["model"]["sha256"]) == 64 and entries["settings"]["seed"] == 3
        assert unit in (entries.get("unit"), entries.get("transform", {}).get("unit"))


def test_bids_names(hetmorph, volumes, models):
    register(hetmorph, volumes, models["vxm3d"], "--bids", volumes / "out", results=())
    names = {path.name for path in (volumes / "out").glob("*.nii.gz")}
    assert "sub-m_from-moving_to-fixed_mode-image_xfm.nii.gz" in names and len(names) == 4
    assert json.loads((volumes / "out" / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def test_a_last_axis_of_one_and_a_single_slice_are_no_other_dimension(hetmorph, tmp_path, rng):
    """(X, Y, Z, 1) is the volume that it is, (X, Y, 1) meets (X, Y); the fixed image says which comes out."""
    array = rng.random((10, 12, 6)).astype(np.float32)
    for name, values in (("m", array), ("f", array), ("l", (array > 0.5).astype(np.int16))):
        nib.save(nib.Nifti1Image(values[..., None], np.diag([1.5, 2, 3, 1])), tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(values[:, :, :1], np.diag([1.5, 2, 3, 1])), tmp_path / f"slice-{name}.nii.gz")
        nib.save(nib.Nifti1Image(values[:, :, 0], np.diag([1.5, 2, 3, 1])), tmp_path / f"flat-{name}.nii.gz")
    for moving, fixed, shape in (
        ("", "", (10, 12, 6)),
        ("slice-", "flat-", (10, 12)),
        ("flat-", "slice-", (10, 12, 1)),
    ):
        hetmorph(
            *("register", "--model", "undeformed", "--moving", tmp_path / f"{moving}m.nii.gz"),
            *("--fixed", tmp_path / f"{fixed}f.nii.gz", "--moved", tmp_path / "o.nii.gz"),
            *("--labels-moving", tmp_path / f"{moving}l.nii.gz", "--labels-fixed", tmp_path / f"{fixed}l.nii.gz"),
            *("--mask", tmp_path / f"{moving}l.nii.gz", "--labels-out", tmp_path / "lo.nii.gz"),
        )
        for got, source in zip(arrays(tmp_path / "o.nii.gz", tmp_path / "lo.nii.gz"), "fl", strict=True):
            assert got.shape == shape
            np.testing.assert_allclose(got, arrays(tmp_path / f"{fixed}{source}.nii.gz")[0], atol=1e-6)


def test_an_initial_warp_of_another_program_is_understood_as_it_is_said(hetmorph, volumes):
    """A translation by (3, 2, 1) mm RAS, in a file of which programs differ, takes the undeformed image with it."""
    fixed = nib.load(volumes / "f.nii.gz")
    warp = nib.Nifti1Image(np.full((*fixed.shape, 3), [3.0, 2, 1], np.float32), fixed.affine)
    warp.header.set_intent(1007)
    nib.save(warp, volumes / "w.nii.gz")
    words = ("--initial", volumes / "w.nii.gz")
    result = register(hetmorph, volumes, "undeformed", *words, results=("transform",), status=2)
    assert "--field-convention" in result.output
    words = (*words, "--field-convention", "ras")
    register(hetmorph, volumes, "undeformed", *words, results=("transform",))
    grid = read_image(volumes / "f.nii.gz").grid
    transform, corners = read_transform(volumes / "transform.nii.gz"), grid.world(grid.corners())
    np.testing.assert_allclose(transform.world(corners) - corners, np.broadcast_to([3, 2, 1], (8, 3)), atol=1e-3)
    said = json.loads((volumes / "transform.json").read_text())
    assert said["initial_understood"] == "displacements, RAS mm (field convention)"
    words = ("--field-convention", "ras")
    assert "--initial" in register(hetmorph, volumes, "undeformed", *words, results=("transform",), status=2).output


@pytest.mark.quick("True")
@pytest.mark.parametrize("backwards", [False, True])
def test_an_initial_transform_is_a_part_of_the_result(hetmorph, volumes, models, backwards):
    """The image goes through it first; what is written is one transform, applied once."""
    fixed = read_image(volumes / "f.nii.gz").grid
    shift = (-1 if backwards else 1) * 0.08 * anatomy.extent(fixed) * np.array([1.0, -0.5, 0.3])
    u = np.broadcast_to(np.linalg.solve(fixed.linear, shift), (*fixed.shape, 3))
    expected = -u if backwards else u
    write_transform(volumes / "first.nii.gz", Transform(u, fixed))
    first = f"[{volumes / 'first.nii.gz'},inverse]" if backwards else volumes / "first.nii.gz"
    register(hetmorph, volumes, "undeformed", "--initial", first, results=("moved", "transform"))
    np.testing.assert_allclose(read_transform(volumes / "transform.nii.gz").displacement, expected, atol=1e-3)

    results = ("moved", "transform", "inverse", "labels-out")
    register(hetmorph, volumes, models["vxm3d"], "--initial", first, results=results)
    words = ("apply", "-t", volumes / "transform.nii.gz", "--moving", volumes / "m.nii.gz")
    hetmorph(*words, "--moved", volumes / "again.nii.gz")
    again, moved = arrays(volumes / "again.nii.gz", volumes / "moved.nii.gz")
    assert np.abs(again.astype(int) - moved).max() <= 1
    there, back = (read_transform(volumes / f"{name}.nii.gz") for name in ("transform", "inverse"))
    assert np.abs(there.displacement - expected).max() > 0.3  # the model moves something too
    start = back.grid.world(back.grid.indices().reshape(-1, 3))
    np.testing.assert_allclose(there.world(back.world(start)), start, atol=0.01 * min(fixed.spacing))


def test_images_in_which_nothing_can_be_found(hetmorph, volumes):
    grid = read_image(volumes / "f.nii.gz").grid
    for array, what in ((np.full(grid.shape, 7.0), "is constant"), (np.zeros((1, 1, 1)), "holds a single voxel")):
        write_image(volumes / "m.nii.gz", array, Grid(array.shape, grid.affine))
        said = register(hetmorph, volumes, "undeformed").stderr
        told, doubted = said.splitlines()
        assert f"warning: {volumes / 'm.nii.gz'}: the moving image {what}" in told
        assert "warning: review: The images have nothing in common, and nothing was moved" in doubted
        assert np.isfinite(arrays(volumes / "moved.nii.gz")[0]).all()


def test_values_that_single_precision_does_not_hold(hetmorph, volumes):
    image = read_image(volumes / "m.nii.gz")
    write_image(volumes / "m.nii.gz", image.array * 1e300, image, float)
    register(hetmorph, volumes, "undeformed")
    (moved,) = arrays(volumes / "moved.nii.gz")
    assert moved.max() > 1e301 and np.isfinite(moved).all()


def test_an_image_and_a_transform_may_be_called_alike(hetmorph, volumes):
    pytest.importorskip("SimpleITK")
    words = ("--moved", volumes / "x.mha", "--transform", volumes / "x.h5")
    register(hetmorph, volumes, "undeformed", *words, results=())
    assert {path.name for path in volumes.glob("x.*")} == {"x.mha", "x.mha.json", "x.h5", "x.h5.json"}


def test_a_mask(hetmorph, volumes, models):
    register(hetmorph, volumes, models["vxm3d"], "--mask", volumes / "f.nii.gz", results=("transform",))
    assert json.loads((volumes / "transform.json").read_text())["inputs"]["mask"].endswith("f.nii.gz")


def test_a_dry_run_writes_nothing(hetmorph, volumes, models):
    before = sorted(volumes.iterdir())
    said = register(hetmorph, volumes, models["vxm3d"], "--dry-run", results=ALL).output
    assert sorted(volumes.iterdir()) == before
    assert all(f"would write {volumes / name}.nii.gz" in said for name in ALL)
    assert "9 × 13 × 11 voxels" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--moved", "x.tiff"), "--moved x.tiff: expected a name that ends in .nii.gz"),
        (("--moved", "{}/m.nii.gz"), "--moved {}/m.nii.gz: would overwrite --moving"),
        (
            ("--moved", "{}/a.nii.gz", "--transform", "{}/a.nii"),
            "--transform {}/a.nii: is the same file as --moved, or would share a.json",
        ),
        (("--moved", "{}"), "--moved {}: expected a name that ends"),
        ((), "nothing to write"),
        (("--labels-out", "{}/x.nii.gz"), "--labels-moving and --labels-out belong together"),
        (("--moved", "{}/x.nii.gz", "--mask", "no.nii.gz"), "--mask no.nii.gz: no such file"),
        (("--moved", "{}/x.nii.gz", "--model", "brain"), "no model 'brain': no such file or folder"),
        (("--variance", "{}/x.nii.gz"), "--variance needs a model with a variance network"),
        (("--uncertainty", "{}/x.nii.gz", "--method", "tarot"), "--method tarot: expected one of equivariance"),
        (("--uncertainty", "{}/x.nii.gz", "--method", "dropout"), "dropout"),
        (("--moved", "{}/x.nii.gz", "--resume"), "--out, --resume, --shard, --workers and --scheduler are for --pairs"),
        (("--moved", "{}/x.nii.gz", "--reference", "ED"), "give either --fixed, or --reference"),
        (("--moved", "{}/x.nii.gz", "--passes", "0"), "'--passes': 0 is not in the range"),
        (("--moved", "{}/x.nii.gz", "--instance-window", "5"), "no effect without --instance-optimise"),
        (("--moved", "{}/x.nii.gz", "--labels-fixed", "{}/l.nii.gz"), "--labels-fixed needs --labels-moving"),
        (("--moved", "{}/x.nii.gz", "--instance-window", "4"), "received 4: it has no middle voxel"),
        (("--moved", "{}/x.nii.gz", "--spacing", "0.001"), "a spacing of 0.001 × 0.001 × 0.001 mm makes"),
        (("--moved", "{}/x.nii.gz", "--spacing", "5000"), "leaves a single voxel along an axis"),
        (("--moved", "{}/x.nii.gz", "--initial", "no.h5"), "--initial no.h5: no such file"),
    ],
)
def test_a_mistake_is_named_in_one_line(hetmorph, volumes, models, words, message):
    result = register(
        *(hetmorph, volumes, models["vxm3d"]), *(word.format(volumes) for word in words), results=(), status=2
    )
    assert message.format(volumes) in result.stderr
    assert result.stderr.startswith("hetmorph register: error: ") and len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in volumes.iterdir()) == ["f.nii.gz", "l.nii.gz", "m.nii.gz"]


def test_a_broken_file_is_named(hetmorph, volumes, models):
    (volumes / "m.nii.gz").write_bytes((volumes / "m.nii.gz").read_bytes()[:500])
    assert "m.nii.gz: not a complete NIfTI file" in register(hetmorph, volumes, models["vxm3d"], status=2).stderr


def test_a_program_is_a_model_too(hetmorph, volumes):
    register(hetmorph, volumes, "undeformed")
    assert np.abs(read_transform(volumes / "transform.nii.gz").displacement).max() == 0


def test_the_shipped_model_by_its_name(hetmorph, stack):
    said = register(hetmorph, stack, "acdc_vxm_het", results=("moved", "variance")).stdout
    assert said.startswith("model: acdc_vxm_het, ") and "made for: heart, cine MR" in said.splitlines()[0]
    assert arrays(stack / "variance.nii.gz")[0].min() > 0


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
def test_a_cine(hetmorph, tmp_path, models):
    """The reference frame comes out as each frame; labels of it give a curve."""
    import csv
    import dataclasses

    grid = Grid((20, 18, 3), np.diag([-1.5, 1.5, 8.0, 1.0]))
    frames = [anatomy.image(grid, (shift, 0.0, 0.0)).array for shift in (0.0, 1.5, 3.0)]
    like = dataclasses.replace(anatomy.image(grid), spacing=(*grid.spacing, 0.05))
    write_image(tmp_path / "cine.nii.gz", np.stack(frames, -1), like)
    write_image(tmp_path / "ed.nii.gz", anatomy.labels(grid).array, grid)
    words = (
        *("register", "--moving", tmp_path / "cine.nii.gz", "--reference", "ED", "--model", models["het2d"]),
        *(
            "--moved",
            tmp_path / "moved.nii.gz",
            "--transform",
            tmp_path / "t.nii.gz",
            "--variance",
            tmp_path / "s.nii.gz",
        ),
        *("--labels-moving", tmp_path / "ed.nii.gz", "--labels-out", tmp_path / "labels.nii.gz"),
        *("--instance-optimise", 4),
    )
    said = hetmorph(*words, "--dry-run").output
    assert "reference: frame 0" in said and "t_frame-02.nii.gz" in said and "moved_curve.png" in said
    assert len(list(tmp_path.iterdir())) == 2
    hetmorph(*words)
    moved = read_image(tmp_path / "moved.nii.gz")
    assert moved.array.shape == (20, 18, 3, 3) and moved.spacing[3] == pytest.approx(0.05)
    assert all(read_image(tmp_path / f"{name}.nii.gz").array.shape == (20, 18, 3, 3) for name in ("labels", "s"))
    transforms = [read_transform(tmp_path / f"t_frame-0{i}.nii.gz") for i in range(3)]
    hetmorph(
        *("apply", "--transform", tmp_path / "t_frame-02.nii.gz", "--labels", tmp_path / "ed.nii.gz"),
        *("--labels-out", tmp_path / "l2.nii.gz"),
    )
    (labels,) = arrays(tmp_path / "labels.nii.gz")
    assert (arrays(tmp_path / "l2.nii.gz")[0] == labels[..., 2]).mean() > 0.999
    assert all(transform.grid.same(grid) for transform in transforms)
    with open(tmp_path / "moved_curve.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "1", "2"] and float(rows[2]["time"]) == pytest.approx(0.1)
    volume = (labels[..., 1] == 2).sum() * 1.5 * 1.5 * 8 / 1000
    assert float(rows[1]["volume_ml_2"]) == pytest.approx(volume, rel=1e-3)
    assert rows[1]["circumferential_strain_3"] and (tmp_path / "moved_curve.png").exists()


@pytest.mark.quick("het2d")
@pytest.mark.parametrize("model", ["vxm3d", "het2d"])
def test_a_report(hetmorph, stack, models, model):
    write_image(
        stack / "lf.nii.gz",
        anatomy.labels(read_image(stack / "f.nii.gz").grid).array,
        read_image(stack / "f.nii.gz"),
        np.uint8,
    )
    pair = ("--moving", stack / "m.nii.gz", "--fixed", stack / "f.nii.gz", "--model", models[model], "--draws", 3)
    labels = ("--labels-moving", stack / "l.nii.gz", "--labels-fixed", stack / "lf.nii.gz")
    hetmorph("report", *pair, *labels, "--out", stack / "case.html", "--dry-run")
    assert not (stack / "case.html").exists()
    hetmorph("report", *pair, *labels, "--out", stack / "case.html")
    page = (stack / "case.html").read_text()
    assert "equivariance" in page.lower() and "label" in page.lower() and "Dice" in page
    assert "patient" not in page.split("<header")[1].split("</header>")[0], "nobody has named one"
    register(hetmorph, stack, models[model], "--report", stack / "other.html", "--draws", 3, results=("moved",))
    assert "Dice" not in (stack / "other.html").read_text()


def test_an_inverse_that_is_none_is_told_and_refused(capsys):
    """What the search for preimages misses, as it may where a transform folds, is warned of or refused."""
    grid = Grid((8, 8), np.eye(4))
    residual = np.zeros(grid.shape)
    residual[2, 3] = 1.5
    found = Inverse(Transform(np.zeros((*grid.shape, 2)), grid), residual)
    result = SimpleNamespace(inverse=lambda: found)
    with pytest.raises(ValueError, match="residual up to 1.5 voxels, .* expected at most --inverse-tolerance 1"):
        transform_of("inverse", result, Settings("any"))
    assert transform_of("inverse", result, Settings("any", inverse_tolerance=2)) is found
    assert capsys.readouterr().err.startswith("warning: inverse: residual up to 1.5 voxels, above 0.1 in 1.6 %")
    assert found.summary()["share_above_1_voxel"] == 1 / 64


def scores(said, name):
    """The numbers before and after in a line that begins with `name`."""
    line = next(line for line in said.splitlines() if line.startswith(name))
    return [float(number) for number in re.findall(r"(\d+\.\d+) (?:undeformed|registered)", line)]


@pytest.mark.graph  # dozens of evaluations of one function
def test_it_says_what_it_did(hetmorph, stack):
    """Similarity rises, Dice too, nothing folds; the numbers are those of the files."""
    fixed = read_image(stack / "f.nii.gz")
    write_image(stack / "lf.nii.gz", anatomy.labels(fixed.grid).array, fixed, np.uint8)
    labels = ("--labels-moving", stack / "l.nii.gz", "--labels-fixed", stack / "lf.nii.gz")
    outputs = ("--labels-out", stack / "labels-out.nii.gz", "--jacobian", stack / "j.nii.gz")
    done = register(hetmorph, stack, "undeformed", *labels, *outputs, "--instance-optimise", 10)
    said = done.stdout
    assert "model: undeformed, a program for images of any kind" in said and not done.stderr
    assert re.search(r"optimised on this pair.*loss (\S+) to (\S+),", said) and "took " in said
    before, after = scores(said, "similarity")
    assert after > before + 0.1 and "; folds 0.000 %" in said
    target, moved = arrays(stack / "lf.nii.gz", stack / "labels-out.nii.gz")
    for label in (2, 3):
        before, after = scores(said, f"Dice of label {label}")
        assert after == pytest.approx(dice(target == label, moved == label), abs=6e-4) and after > before
    assert (arrays(stack / "j.nii.gz")[0] > 0).all()


def test_it_says_when_the_result_is_worse(hetmorph, stack, tmp_path):
    """A model that pushes everything aside: less similar, less overlap, and no word on what it is for but that."""
    from hetmorph.networks import VxmDense

    model = VxmDense((16, 16), FEATURES, int_steps=0)
    lively(model, np.random.default_rng(3), 3.0).save(tmp_path / "astray.keras")
    fixed = read_image(stack / "f.nii.gz")
    write_image(stack / "lf.nii.gz", anatomy.labels(fixed.grid).array, fixed, np.uint8)
    labels = ("--labels-moving", stack / "l.nii.gz", "--labels-fixed", stack / "lf.nii.gz")
    done = register(hetmorph, stack, tmp_path / "astray.keras", *labels, results=("moved",))
    assert done.exit_code == 3 and "verdict: reject" in done.stdout.splitlines()
    assert "hetmorph register: warning: reject: " in done.stderr and "less like the fixed one" in done.stderr
    assert "% of the voxels" in done.stderr and "Dice is lower than undeformed (label " in done.stderr
    assert "no model.json beside it says for what it was made" in done.stdout
    told = json.loads((stack / "moved.json").read_text())
    assert told["verdict"]["flag"] == "reject" and told["verdict"]["by"] == "checks"
    before, after = (told["checks"][f"{when}_similarity"] for when in ("undeformed", "registered"))
    assert after < before
    assert register(hetmorph, stack, tmp_path / "astray.keras", "--fail-on", "never").exit_code == 0


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
def test_it_says_when_the_optimisation_lowers_the_dice_of_the_model(hetmorph, stack, models):
    """The labels to reach are those of the model's own answer: whatever is optimised leads away from them."""
    register(hetmorph, stack, models["het2d"], results=("labels-out",))
    labels = ("--labels-moving", stack / "l.nii.gz", "--labels-fixed", stack / "labels-out.nii.gz")
    done = register(hetmorph, stack, models["het2d"], *labels, "--instance-optimise", 20)
    assert re.search(r"Dice, mean: \S+ undeformed, 1.000 by the model alone, 0\.\d+ registered", done.stdout)
    assert "the optimisation lowered the mean Dice from 1.000, of the model alone, to 0." in done.stderr


def test_every_shipped_model_says_for_what_it_is_and_a_broken_card_is_named(tmp_path):
    from hetmorph.cli.models import described

    folders = [path for path in (ROOT / "saved_models").iterdir() if path.is_dir()]
    for folder in folders:
        version = next(path for path in folder.iterdir() if path.name.isdecimal())
        assert described(str(folder)) == described(str(version)) and f"model: {folder.name}, " in described(str(folder))
    (tmp_path / "model.json").write_text('{"name": "brain"}')
    with pytest.raises(ValueError, match="model.json: expected name, purpose, anatomy"):
        described(str(tmp_path))
