"""UniGradICON against its original, of which tests/golden/make_unigradicon.py stored checkpoint and results."""

import dataclasses

import keras
import numpy as np
import pytest
import SimpleITK as sitk
import tensorflow as tf

from hetmorph import io
from hetmorph.cli.models import Optimisation
from hetmorph.convert import convert_unigradicon, read_checkpoint
from hetmorph.evaluation import Guide, wrap
from hetmorph.instance import SIMILARITIES, known
from hetmorph.instance.criterion import Criterion
from hetmorph.instance.problems import Trained
from hetmorph.instance.search import Search
from hetmorph.losses import consistency
from hetmorph.networks import UniGradICON
from hetmorph.registration import Intensities, Scale, model_pair, register
from tests.golden import unigradicon_recipes as recipes
from tests.graphs import eagerly
from tests.networks.models import GOLDEN

pytestmark = pytest.mark.usefixtures("eager")
CHECKPOINT = GOLDEN / "unigradicon.trch"
EVERY = (slice(None, None, 2),) * 3
SCALES = {
    "ct": Scale("ct"),
    "window": Scale("ct", window=recipes.WINDOW),
    "mri": Scale("mri"),
    "quantiles": Scale("mri", quantiles=recipes.QUANTILES),
}


@pytest.fixture(scope="module")
def original():
    with np.load(GOLDEN / "unigradicon.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model():
    return convert_unigradicon(read_checkpoint(CHECKPOINT), recipes.SIZE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of the images and masks, as a user has them."""
    folder = tmp_path_factory.mktemp("pair")
    for role, affine in recipes.AFFINES.items():
        grid = io.Grid(recipes.SHAPES[role], affine)
        io.write_image(folder / f"{role}.nii.gz", recipes.volume(role), grid, np.int16)
        io.write_image(folder / f"{role}_mask.nii.gz", recipes.mask(role), grid, np.uint8)
    return folder


@pytest.fixture(scope="module")
def pair(files):
    return {path.name.split(".")[0]: io.read_image(path) for path in files.iterdir()}


def intensities(pair, moving, fixed, roles=("moving", "fixed")):
    """Quantiles go with masks, as in the script; `roles`: which image is the moving one, and which the fixed."""
    masks = [
        pair[f"{role}_mask"] if scale == "quantiles" else None
        for role, scale in zip(roles, (moving, fixed), strict=True)
    ]
    return Intensities(SCALES[moving], SCALES[fixed], *masks)


@pytest.mark.parametrize("scale", SCALES)
def test_the_model_sees_what_the_original_sees(scale, pair, original):
    _, _, seen = model_pair(
        *(pair["moving"],) * 2,
        intensities=intensities(pair, scale, scale, roles=("moving", "moving")),
        shape=recipes.SIZE,
    )
    np.testing.assert_array_equal(*seen)
    np.testing.assert_allclose(seen[0][EVERY], original[f"seen_{scale}"], atol=1e-5)


CASES = {"ct to mri": ("ct", "mri"), "mri to ct": ("quantiles", "window")}


@pytest.fixture(scope="module")
def results(model, pair):
    with eagerly():
        return {
            name: register(pair["moving"], pair["fixed"], model, intensities=intensities(pair, *scales))
            for name, scales in CASES.items()
        }


def test_the_network(model, results, original):
    assert model.count_params() - sum(w.shape[0] for w in model.non_trainable_weights) == original["parameters"]
    found = results["mri to ct"].prediction.displacement[EVERY]
    assert np.abs(found).max() > 3
    np.testing.assert_allclose(found, original["network"], atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_from_files_to_the_transform(name, results, original, pair, tmp_path):
    """In thousandths of a voxel at the voxels of the fixed image, and so moves ITK the image by the file."""
    result, grid = results[name], pair["fixed"].grid
    mm = (result.transform.displacement @ grid.linear.T * [-1, -1, 1])[EVERY]
    np.testing.assert_allclose(mm, original[f"{name} mm"], atol=1e-3 * min(grid.spacing))
    path = io.write_transform(tmp_path / "phi.h5", result.transform)
    fixed, moving = (_for_itk(pair[role], tmp_path / f"{role}.nii.gz") for role in ("fixed", "moving"))
    moved = sitk.Resample(moving, fixed, sitk.ReadTransform(str(path)), sitk.sitkLinear, -5000.0)
    found, expected = sitk.GetArrayFromImage(moved).T[EVERY], original[f"{name} moved"]
    inside = np.minimum(found, expected) > -5000
    assert inside.mean() > 0.3 and (inside == (np.maximum(found, expected) > -5000)).mean() > 0.99
    np.testing.assert_allclose(found[inside], expected[inside], atol=1.0)  # Hounsfield units, of 2400
    np.testing.assert_allclose(result.moved[EVERY][inside], expected[inside], atol=1.0)


def _for_itk(image, path):
    io.write_image(path, image.array.astype(np.float32), image.grid)
    return sitk.ReadImage(str(path))


def test_the_other_direction_is_the_originals_with_the_images_exchanged(model, results, pair):
    there = results["mri to ct"]
    shown = intensities(pair, "window", "quantiles", roles=("fixed", "moving"))
    back = register(pair["fixed"], pair["moving"], model, intensities=shown)
    np.testing.assert_allclose(there.backward(), back.prediction.displacement, atol=1e-4)


def test_a_same_field_of_view_needs_no_fitting(model, pair):
    result = register(pair["fixed"], pair["fixed"], model, intensities=Intensities(SCALES["mri"], SCALES["mri"]))
    assert result.fitted and result.initial is None


def test_undeformed_is_as_the_headers_say(results):
    assert results["ct to mri"].initial is not None and results["ct to mri"].undeformed is None


# -- the model ------------------------------------------------------------------------------------------------------


def test_it_is_stored_with_its_size(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, UniGradICON) and loaded.resizes_to == recipes.SIZE
    other = loaded.with_shape((8, 10, 9))
    assert other.resizes_to == (8, 10, 9)
    np.testing.assert_array_equal(other.get_weights()[3], model.get_weights()[3])


@pytest.mark.slow  # held by test_instance.py for a network's own losses, by test_icon.py for the published ones
def test_a_pair_goes_on_with_what_it_was_published_with(model, pair):
    """The first loss is that of the published terms, and the weights of the model itself stay as they are."""
    images = [np.asarray(pair[role].array[:12, :14, :10], np.float32) for role in ("moving", "fixed")]
    images = [(one - one.min()) / np.ptp(one) for one in images]
    small, before = model.with_shape((12, 14, 10)), model.get_weights()
    refined = Optimisation(2, of="network").after(wrap(small))
    found = refined.refine(*images)
    assert refined.optimizer == "adam" and refined.learning_rate == 2e-5 and len(found.losses) >= 2
    expected = small.evaluate(tuple(image[None, ..., None] for image in images), verbose=0)
    assert found.losses[0] == pytest.approx(np.ravel(expected)[0], abs=2e-3), "up to the points that are drawn"
    for one, other in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def optimised(model, results, monkeypatch):
    """Of the pair, after so many updates of all weights for the loss of this name."""
    return lambda name, updates: _optimised(name, updates, model, results["mri to ct"].seen, monkeypatch)


def _optimised(name, updates, model, seen, monkeypatch):
    size = np.array(recipes.SIZE)
    points = np.stack(np.indices(size), -1) + 2 * recipes.noise()[..., ::-1] / size[0] * (size - 1)
    monkeypatch.setattr(consistency, "_points", lambda *_: tf.constant(points[EVERY][None], tf.float32))
    labels = [recipes.labels(role) for role in ("fixed", "moving")] if "dice" in name else []
    known_of_pair = {"volume": np.ones(recipes.SIZE)} if "mass" in name else {}
    if labels:  # the original sums the directions, of which the mean is taken here
        known_of_pair |= {"labels_fixed": labels[0], "labels_moving": labels[1], "dice_weight": 2 * recipes.DICE_WEIGHT}
    Trained.check(predictor := wrap(model))
    problem = Trained(Criterion(SIMILARITIES[name.split()[0]][0], 0.0, False), recipes.SIZE, predictor)
    images = [tf.constant(image[None, ..., None], tf.float32) for image in seen]
    search = Search(problem, (*images, None, None, known.known(Guide(**known_of_pair))))
    search.run("adam", updates, recipes.RATE)
    return search


def test_the_loss_of_an_optimisation_is_the_originals(optimised, original):
    assert optimised("mind dice", 0).losses == pytest.approx([original["losses mind dice"][0]], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.OPTIMISED)
def test_an_optimisation_is_the_originals(name, optimised, results, original):
    """Losses before and after some updates of all weights, and the displacement then."""
    search = optimised(name, recipes.UPDATES)
    np.testing.assert_allclose([search.losses[0], search.losses[-1]], original[f"losses {name}"], rtol=1e-4)
    np.testing.assert_allclose(search.best[::4, ::4, ::4], original[f"optimised {name}"], atol=1e-3)
    assert np.abs(search.best - results["mri to ct"].prediction.displacement).max() > 0.02


def test_sizes_left_open_take_images_as_they_are():
    assert UniGradICON((None, None), recipes.FEATURES).resizes_to is None


@pytest.mark.slow
def test_the_published_number_of_weights():
    model = UniGradICON()
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == 70_680_916
    assert model.resizes_to == (175, 175, 175)


# -- what is wrong --------------------------------------------------------------------------------------------------


def test_other_checkpoints_are_refused(original):
    good = read_checkpoint(CHECKPOINT)
    name = "netPsi.net.downConvs.0.weight"
    less = {key: value for key, value in good.items() if key != name}
    with pytest.raises(ValueError, match=rf"lacks 1 of their 72 parameters \({name}\) and has 0 others"):
        convert_unigradicon(less, recipes.SIZE)
    with pytest.raises(ValueError, match=r"has 1 others \(head.weight\)"):
        convert_unigradicon(good | {"head.weight": np.zeros(3)}, recipes.SIZE)
    with pytest.raises(ValueError, match=r"expected a checkpoint of GradICON's four networks.*received encoder.weight"):
        convert_unigradicon({"encoder.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=rf"{name} becomes .* where the network has"):
        convert_unigradicon(good | {name: good[name][:, :1]}, recipes.SIZE)
    with pytest.raises(ValueError, match=rf"{name} holds NaN"):
        convert_unigradicon(good | {name: good[name] * np.nan}, recipes.SIZE)
    with pytest.raises(ValueError, match=r"expected 3 sizes.*received \(16, 16\)"):
        convert_unigradicon(good, (16, 16))


BAD_SCALES = [
    (lambda: Scale("pet"), "ct, mri, received 'pet'"),
    (lambda: Scale("ct", window=(400, -100)), "from a lower to a higher intensity, received 400 to -100"),
    (lambda: Scale("ct", window=(7, 7)), "received 7 to 7"),
    (lambda: Scale("mri", quantiles=(0.9, 0.1)), "0 <= lower < upper <= 1, received 0.9 and 0.1"),
]


@pytest.mark.parametrize(("call", "message"), BAD_SCALES)
def test_bounds_that_hold_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_images_in_which_nothing_is_left_are_refused(pair):
    image = pair["fixed"]
    constant = dataclasses.replace(image, array=np.full_like(image.array, 5))
    background = dataclasses.replace(image, array=np.zeros_like(image.array))
    background.array[0, 0, 0] = 9
    for scale, bad, message in (
        ("ct", constant, "constant"),
        ("mri", constant, "constant"),
        ("mri", background, "0 at the lower and 0 at the upper quantile"),
        ("ct", dataclasses.replace(image, array=image.array * 0 + 2000 + image.array % 7), "nothing is left"),
    ):
        with pytest.raises(io.DataError, match=message):
            SCALES[scale].of(bad)


def test_images_that_do_not_go_with_the_model_are_refused(model, pair):
    both = Intensities(SCALES["ct"], SCALES["ct"])
    moving, fixed = pair["moving"], pair["fixed"]
    for options, message in (
        ({}, "scaled by their modality, ct or mri"),
        ({"intensities": Intensities(SCALES["ct"], None)}, "scaled by their modality"),
        ({"intensities": both, "spacing": 2.0}, "resized to 22 × 18 × 20 voxels: neither"),
        ({"intensities": both, "mask": pair["fixed_mask"]}, "neither a voxel size nor a region"),
        ({"intensities": dataclasses.replace(both, mask_moving=pair["fixed_mask"])}, "expected a mask on the grid of"),
    ):
        with pytest.raises(ValueError, match=message):
            register(moving, fixed, model, **options)
    flat = dataclasses.replace(fixed, array=fixed.array[..., 0], spacing=fixed.spacing[:2])
    with pytest.raises(io.DataError, match="registers 3-D images, received shape"):
        register(flat, flat, model, intensities=both)
