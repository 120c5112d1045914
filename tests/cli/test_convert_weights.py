"""`hetmorph convert-weights`, and registration by what it has written."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from hetmorph import io
from tests.convert.weights_2018 import VM1, kernels, write
from tests.golden import unigradicon_recipes as recipes
from tests.networks.models import GOLDEN

CHECKPOINT = GOLDEN / "unigradicon.trch"
SIZE = "x".join(map(str, recipes.SIZE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, masks and a converted model."""
    folder = tmp_path_factory.mktemp("unigradicon")
    for role, affine in recipes.AFFINES.items():
        grid = io.Grid(recipes.SHAPES[role], affine)
        io.write_image(folder / f"{role}.nii.gz", recipes.volume(role), grid, np.int16)
        io.write_image(folder / f"{role}_mask.nii.gz", recipes.mask(role), grid, np.uint8)
    return folder


@pytest.fixture
def model(folder, hetmorph):
    path = folder / "universal"
    if not path.exists():
        said = hetmorph("convert-weights", "--from", "unigradicon", CHECKPOINT, "--to", path, "--size", SIZE).stdout
        assert "7,332 weights, of 3-D images, images resized to 22 × 18 × 20 voxels" in said
    return path


def register(hetmorph, folder, model, *more, moving="moving", **status):
    pair = ("--moving", folder / f"{moving}.nii.gz", "--fixed", folder / "fixed.nii.gz")
    return hetmorph("register", "--model", model, *pair, *more, **status)


def modalities(moving, fixed):
    return "--modality-moving", moving, "--modality-fixed", fixed


def test_by_command_as_the_original(hetmorph, folder, model):
    """Masked quantiles for the one, a window for the other; the displacement of the original to 1e-3 voxel."""
    masks = ("--mask-input", "--mask-moving", folder / "moving_mask.nii.gz")
    bounds = ("--ct-window", *recipes.WINDOW, "--mri-quantiles", *recipes.QUANTILES)
    register(hetmorph, folder, model, *modalities("mri", "ct"), *bounds, *masks, "--transform", folder / "phi.h5")
    found = io.read_transform(folder / "phi.h5")
    mm = found.displacement @ found.grid.linear.T * [-1, -1, 1]
    with np.load(GOLDEN / "unigradicon.npz") as original:
        expected = original["mri to ct mm"]
    np.testing.assert_allclose(mm[::2, ::2, ::2], expected, atol=1e-3 * 1.5)
    card = json.loads((model / "model.json").read_text())
    assert card["name"] == "universal" and card["ndims"] == 3 and card["converted_from"] == CHECKPOINT.name


def test_what_a_modality_needs(hetmorph, folder, model):
    grid = io.Grid(recipes.SHAPES["moving"], recipes.AFFINES["moving"])
    io.write_image(folder / "constant.nii.gz", np.full(grid.shape, 7), grid, np.int16)
    io.write_image(folder / "flat.nii.gz", recipes.volume("moving")[..., 0], io.Grid(grid.shape[:2], grid.affine))
    ct, out = modalities("ct", "ct"), ("--moved", folder / "no.nii.gz")
    mask = ("--mask", folder / "fixed_mask.nii.gz")
    for words, message, moving in (
        ((), "--modality-moving and --modality-fixed are needed, ct or mri", "moving"),
        (("--modality-fixed", "mri"), "--modality-moving is needed, ct or mri", "moving"),
        ((*ct, "--ct-window", 300, -300), "from a lower to a higher intensity, received 300 to -300", "moving"),
        ((*ct, "--mri-quantiles", 0, 1), "--mri-quantiles has no effect without --modality-moving mri", "moving"),
        ((*ct, "--mask-input"), "--mask-input has no effect without --mask-fixed or --mask-moving", "moving"),
        ((*ct, "--spacing", 2), "sees every image whole, resized to 22 × 18 × 20 voxels", "moving"),
        ((*ct, *mask), "neither a voxel size nor a region of interest", "moving"),
        (ct, "constant.nii.gz: the image is constant (7): there is nothing to register", "constant"),
        (ct, "flat.nii.gz: is 2-D", "flat"),
    ):
        said = register(hetmorph, folder, model, *words, *out, moving=moving, status=2).stderr
        assert message in said and said.count("\n") == 1, said
    assert not (folder / "no.nii.gz").exists()


def test_a_modality_goes_with_any_model(hetmorph, stack, models):
    """What lies beyond a window changes nothing with it, and much without."""
    image = io.read_image(stack / "m.nii.gz")
    bright = np.where(image.array > 100, 100 + 9 * (image.array - 100.0), image.array)
    io.write_image(stack / "bright.nii.gz", bright, image, np.float32)

    def displacement(moving, *words):
        pair = ("--moving", stack / f"{moving}.nii.gz", "--fixed", stack / "f.nii.gz")
        hetmorph("register", "--model", models["vxm3d"], *pair, *words, "--transform", stack / "t.nii.gz")
        return io.read_transform(stack / "t.nii.gz").displacement

    window = ("--modality-moving", "ct", "--ct-window", 0, 100)
    np.testing.assert_array_equal(displacement("m", *window), displacement("bright", *window))
    assert np.abs(displacement("m") - displacement("bright")).max() > 0.1


def test_of_voxelmorph_2018(hetmorph, stack, tmp_path):
    path, model = write(tmp_path / "w.h5", kernels(VM1, 3)), tmp_path / "vm1"
    assert "of 3-D images" in hetmorph("convert-weights", "--from", "voxelmorph-2018", path, "--to", model).stdout
    pair = ("--moving", stack / "m.nii.gz", "--fixed", stack / "f.nii.gz", "--transform", stack / "t.nii.gz")
    assert "model: vm1, registers a brain to an atlas" in hetmorph("register", "--model", model, *pair).stdout
    assert np.abs(io.read_transform(stack / "t.nii.gz").displacement).max() > 0.1


def test_what_cannot_be_converted(hetmorph, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil", "w") as file:
        file.writestr("a/data.pkl", pickle.dumps({"w": __import__("os").system}, 2))
    (tmp_path / "cut").write_bytes(CHECKPOINT.read_bytes()[:5000])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    weights = write(tmp_path / "w.h5", kernels(VM1, 3))
    for source, file, words, message in (
        ("unigradicon", "nowhere", (), "nowhere: no such file"),
        ("unigradicon", "evil", (), "evil: the file wants to call posix.system"),
        ("unigradicon", "cut", (), "cut: expected a checkpoint of PyTorch; this file is cut off"),
        ("unigradicon", weights.name, (), "w.h5: expected a checkpoint of PyTorch; this file is none"),
        ("unigradicon", CHECKPOINT, ("--size", "16x16"), "unigradicon.trch: expected 3 sizes"),
        ("unigradicon", CHECKPOINT, ("--size", "big"), "expected a size such as 128x128"),
        ("voxelmorph-2018", CHECKPOINT, (), "expected a file of HDF5 or a .keras file, received another archive"),
        ("voxelmorph-2018", weights.name, ("--size", "8x8x8"), "--size has no effect on --from voxelmorph-2018"),
        ("voxelmorph-2018", weights.name, ("--to", tmp_path / "full"), "full: expected a new or an empty folder"),
    ):
        to = () if "--to" in words else ("--to", tmp_path / "new")
        said = hetmorph("convert-weights", "--from", source, tmp_path / file, *to, *words, status=2).stderr
        assert message in said and said.count("\n") == 1, said
    assert not (tmp_path / "new").exists()
