"""Images with headers through models with known answers: what comes back lies where it should, in the right units."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hetmorph.evaluation import Prediction
from hetmorph.evaluation.predictor import Predictor
from hetmorph.io import DataError, DataWarning, Grid, Image, Transform, warp_image
from hetmorph.registration import jacobian, model_pair, register
from hetmorph.uncertainty import UncertaintyMap
from tests import anatomy, reference
from tests.io.worlds import GRIDS_2D, GRIDS_3D, moving_of


class Constant(Predictor):
    """Answers with one vector, and remembers what it was shown."""

    def __init__(self, vector, ndims=None, log_variance=None):
        super().__init__(ndims)
        self.vector, self.log_variance, self.seen, self.runs = vector, log_variance, [], 0

    def predict_batch(self, moving, fixed):
        self.runs += 1
        self.seen += list(zip(moving, fixed, strict=True))
        return [self._one(np.asarray(image)) for image in moving]

    def _one(self, image):
        u = np.broadcast_to(np.float32(self.vector), (*image.shape, image.ndim)).copy()
        variance = None if self.log_variance is None else np.full(image.shape, self.log_variance, np.float32)
        return Prediction(u, image, variance, variance)


def inner(array, margin=0.3):
    return array[tuple(slice(int(margin * n), n - int(margin * n)) for n in array.shape)]


@pytest.mark.parametrize("spacing", [None, 2.2])
@pytest.mark.parametrize("name", GRIDS_3D)
def test_a_vector_of_the_model_is_one_translation_of_the_world(name, spacing):
    """Whatever the grids, moved(place) = moving(place + L·c), with the anatomy as an analytic function."""
    fixed_grid = GRIDS_3D[name]
    fixed, moving = anatomy.image(fixed_grid), anatomy.image(moving_of(fixed_grid), about=fixed_grid)
    vector = np.array([0.7, -0.4, 0.3])
    result = register(moving, fixed, Constant(vector), spacing)
    millimetres = result.grid.linear @ vector
    places = fixed_grid.world(fixed_grid.indices())
    assert np.abs(result.transform.world(places.reshape(-1, 3)) - places.reshape(-1, 3) - millimetres).max() < 1e-3
    there = moving.grid.index(places + millimetres)
    inside = ((there >= 0) & (there <= np.array(moving.grid.shape) - 1)).all(-1)
    expected = anatomy.intensity(places + millimetres, anatomy.middle(fixed_grid), anatomy.extent(fixed_grid) / 3)
    error = np.abs(result.moved - expected)[inside]
    assert inside.mean() > 0.5
    assert error.max() < 0.12 * np.ptp(expected)  # linear interpolation between coarse voxels
    assert np.median(error) < 0.02 * np.ptp(expected)
    if spacing:
        np.testing.assert_allclose(result.grid.spacing, spacing, rtol=1e-5)


def test_arrays_with_a_last_axis_of_one_are_volumes():
    """Of images that were made by hand; files are read so."""
    fixed = anatomy.image(GRIDS_3D["oblique"])
    labels, vector = anatomy.labels(GRIDS_3D["oblique"]), [0.7, -0.4, 0.3]
    stored = [dataclasses.replace(image, array=image.array[..., None]) for image in (fixed, labels)]
    expected, got = register(fixed, fixed, Constant(vector)), register(stored[0], stored[0], Constant(vector))
    np.testing.assert_array_equal(got.moved, expected.moved)
    np.testing.assert_array_equal(got.labels(stored[1], stored[0]), expected.labels(labels, fixed))
    register(stored[0], fixed, Constant(vector), mask=stored[1])


@pytest.mark.parametrize("name", GRIDS_2D)
def test_2d(name):
    grid = GRIDS_2D[name]
    fixed, moving = anatomy.image(grid), anatomy.image(moving_of(grid), about=grid)
    result = register(moving, fixed, Constant([0.0, 0.0], ndims=2))
    assert result.moved.shape == grid.shape
    np.testing.assert_allclose(inner(result.moved), inner(fixed.array), atol=0.1 * np.ptp(fixed.array))


def test_the_model_sees_images_of_zero_to_one_on_one_grid():
    grid = GRIDS_3D["oblique"]
    model = Constant([0, 0, 0.0])
    fixed = anatomy.image(grid)
    register(dataclasses.replace(fixed, array=fixed.array * 7 - 300), fixed, model)
    ((moving_seen, fixed_seen),) = model.seen
    assert moving_seen.min() == fixed_seen.min() == 0 and moving_seen.max() == fixed_seen.max() == 1
    np.testing.assert_allclose(moving_seen, fixed_seen, atol=1e-5)


def test_outside_the_moving_image_is_its_darkest_value():
    """A field of view that ends inside the fixed one must not look brighter than anything in it."""
    grid = GRIDS_3D["plain"]
    fixed = anatomy.image(grid)
    part = Grid((5, 10, 9), grid.affine)
    moving = anatomy.image(part, about=grid)
    moving = dataclasses.replace(moving, array=moving.array - 500)
    model = Constant([0, 0, 0.0])
    register(moving, fixed, model)
    assert np.all(model.seen[0][0][6:] == 0)


def test_constant_images_are_black():
    grid = GRIDS_3D["plain"]
    fixed = anatomy.image(grid)
    model = Constant([0, 0, 0.0])
    with pytest.warns(DataWarning, match="the moving image is constant"):
        result = register(dataclasses.replace(fixed, array=np.full(grid.shape, 7, np.int16)), fixed, model)
    assert np.all(model.seen[0][0] == 0) and np.all(result.moved == 7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_model_takes_a_stack_slice_by_slice(axis):
    """Across the axis of the largest spacing, each slice scaled by itself, nothing moving across."""
    shape, spacing = [12, 11, 10], [1.2, 1.1, 1.3]
    shape[axis], spacing[axis] = 5, 8.0
    fixed = anatomy.image(Grid(tuple(shape), np.diag([*spacing, 1.0])))
    model = Constant([1.0, -2.0], ndims=2, log_variance=np.log(0.04))
    result = register(fixed, fixed, model)
    plane = [i for i in range(3) if i != axis]
    assert len(model.seen) == 5 and model.seen[0][0].shape == tuple(shape[i] for i in plane)
    assert all(image.max() == 1 and image.min() == 0 for pair in model.seen for image in pair)
    assert np.abs(result.transform.displacement[..., axis]).max() == 0
    np.testing.assert_allclose(result.transform.displacement[..., plane], np.broadcast_to([1, -2], (*shape, 2)))
    np.testing.assert_allclose(result.variance, 0.04, rtol=1e-5)
    assert result.variance.shape == tuple(shape)


def test_slices_of_a_stack_go_through_the_model_together():
    stack = np.random.default_rng(0).random((64, 64, 40), dtype=np.float32)
    image = Image(stack, (1.0, 1.0, 8.0), np.diag([1.0, 1, 8, 1]), True, Path("stack"))
    model = Constant([1.0, 0.0], ndims=2)
    register(image, image, model)
    assert (model.runs, len(model.seen)) == (1, 40)


def test_a_single_slice_is_a_slice_whatever_its_thickness():
    fixed = anatomy.image(Grid((12, 11, 1), np.diag([1.5, 1.5, 1.0, 1.0])))
    model = Constant([1.0, 0.5], ndims=2)
    result = register(fixed, fixed, model)
    assert model.seen[0][0].shape == (12, 11)
    assert jacobian(result.transform).shape == (12, 11, 1)


def test_spacing_of_a_stack_is_that_of_its_slices():
    fixed = anatomy.image(Grid((12, 11, 5), np.diag([1.0, 1.0, 8.0, 1.0])))
    result = register(fixed, fixed, Constant([1.0, 0.0], ndims=2), spacing=2.0)
    np.testing.assert_allclose(result.grid.spacing, (2, 2, 8))
    np.testing.assert_allclose(result.transform.displacement[..., 0], 2.0, rtol=1e-5)  # voxels of 1 mm


def test_the_inverse_leads_back(rng):
    grid = GRIDS_3D["oblique flipped permuted"]
    u = reference.smooth_field(rng, grid.shape, 0.8, 2.5)
    result = register(anatomy.image(moving_of(grid), about=grid), anatomy.image(grid), lambda moving, fixed: u)
    found = result.inverse()
    assert found.worst < 1e-3
    inverse = found.transform
    assert inverse.grid.same(result.moving)
    index = np.argwhere(inner(np.ones(grid.shape))) + (0.3 * np.array(grid.shape)).astype(int)  # of inner voxels
    start = grid.world(index)
    back = inverse.world(result.transform.world(start))
    assert np.linalg.norm(back - start, axis=-1).max() < 0.1 * min(grid.spacing)
    assert np.linalg.norm(result.transform.world(start) - start, axis=-1).max() > 0.5 * min(grid.spacing)


class BothWays(Constant):
    """A model that knows the way back, more or less."""

    def __init__(self, u, back):
        super().__init__(u)
        self.back = back

    def backward(self, moving, fixed):
        return np.broadcast_to(np.asarray(self.back, np.float32), (*moving.shape, moving.ndim))


@pytest.mark.parametrize(("missed", "searched"), [(0.01, False), (0.5, True)])
def test_the_inverse_is_the_models_own_where_it_is_one(missed, searched):
    grid = GRIDS_3D["oblique"]
    u = np.array([1.5, -1.0, 0.5])
    found = register(anatomy.image(grid, u), anatomy.image(grid), BothWays(u, missed - u)).inverse()
    assert found.searched == searched and found.worst < 0.1
    assert found.summary()["source"] == ("a search for each voxel" if searched else "the model")
    assert ("of the model itself" in str(found)) != searched


def test_labels_follow_the_image():
    grid = GRIDS_3D["oblique"]
    shift = np.array([3.0, -2.0, 1.0])
    fixed, moving = anatomy.image(grid), anatomy.image(grid, shift)
    u = np.linalg.solve(grid.linear, shift)
    result = register(moving, fixed, Constant(u))
    other = moving_of(grid)  # the labels have a grid of their own
    got = result.labels(anatomy.labels(other, shift, about=grid), fixed)
    expected = anatomy.labels(grid).array
    assert set(np.unique(got)) == {0, 2, 3} and got.dtype == np.uint8
    assert (got == expected).mean() > 0.93
    assert 2 * ((got == 3) & (expected == 3)).sum() / ((got == 3).sum() + (expected == 3).sum()) > 0.8


@pytest.mark.parametrize("ndims", [2, 3])
def test_uncertainty_comes_in_millimetres(ndims):
    """A standard deviation of (0.5, 0, …) voxels is half the voxel size of the grid that the model saw."""
    grid = GRIDS_3D["anisotropic"]
    calls = []

    def estimate(predictor, moving, fixed):
        calls.append(moving.shape)
        variances = np.zeros((*moving.shape, ndims), np.float32)
        variances[..., 0] = 0.25
        std, valid = np.sqrt(variances.sum(-1)), np.ones(moving.shape, bool)
        return UncertaintyMap("test", std, valid, "voxels", None, 2, 2, 0.0, variances=variances)

    fixed = anatomy.image(grid)
    result = register(fixed, fixed, Constant([0.0] * ndims, ndims), estimate=estimate)
    np.testing.assert_allclose(result.uncertainty_mm, 0.5 * 1.25, rtol=1e-5)
    assert result.uncertainty_mm.dtype == np.float32
    assert calls == ([(14, 11)] * 6 if ndims == 2 else [(14, 11, 6)])


def test_a_mask_shows_the_model_its_box_alone():
    grid = GRIDS_3D["oblique"]
    fixed = anatomy.image(grid)
    box = np.zeros(grid.shape, np.uint8)
    box[3:9, 2:7, 1:5] = 1
    model = Constant([0.5, 0.0, 0.0], log_variance=0.0)
    result = register(fixed, fixed, model, mask=dataclasses.replace(fixed, array=box))
    assert model.seen[0][0].shape == (6, 5, 4)
    np.testing.assert_allclose(result.grid.world([0, 0, 0]), grid.world([3, 2, 1]))
    np.testing.assert_allclose(result.transform.displacement[..., 0], 0.5, rtol=1e-5)
    assert np.isfinite(result.variance[3:9, 2:7, 1:5]).all() and np.isnan(result.variance[0]).all()


def test_the_jacobian_of_a_stretch():
    grid = GRIDS_3D["oblique"]
    u = 0.1 * grid.indices()[..., :1] * [1, 0, 0]
    np.testing.assert_allclose(jacobian(Transform(u, grid)), 1.1, rtol=1e-4)


@pytest.mark.parametrize(
    ("moving", "fixed", "ndims", "message"),
    [
        ((8, 8), (8, 8), 3, "this model registers 3-D images"),
        ((8, 8), (8, 8, 8), None, "m.nii.gz: is 2-D, f.nii.gz is 3-D"),
        ((8, 8, 8, 3), (8, 8, 8), None, "m.nii.gz: expected a 2-D or 3-D image.*--reference"),
    ],
)
def test_images_that_do_not_fit_are_named(moving, fixed, ndims, message):
    def made(shape, path):
        image = anatomy.image(Grid(shape[:3], np.eye(4)), path=path)
        return dataclasses.replace(image, array=np.resize(image.array, shape))

    with pytest.raises(DataError, match=message):
        register(made(moving, "m.nii.gz"), made(fixed, "f.nii.gz"), Constant([0.0] * 3, ndims))


def test_images_far_apart_are_refused():
    grid = GRIDS_3D["plain"]
    away = Grid(grid.shape, np.diag([1, 1, 1, 1]) + np.array([[0, 0, 0, 500]] + [[0] * 4] * 3))
    with pytest.raises(ValueError, match="do not overlap"):
        register(anatomy.image(away), anatomy.image(grid), Constant([0, 0, 0.0]))


def test_an_empty_mask_is_named():
    fixed = anatomy.image(GRIDS_3D["plain"])
    empty = dataclasses.replace(fixed, array=np.zeros(fixed.array.shape), path="mask.nii.gz")
    with pytest.raises(DataError, match="mask.nii.gz: the mask is empty"):
        register(fixed, fixed, Constant([0, 0, 0.0]), mask=empty)


def test_a_model_that_answers_nan_has_failed():
    fixed = anatomy.image(GRIDS_3D["plain"])
    with pytest.raises(RuntimeError, match="NaN"):
        register(fixed, fixed, Constant([np.nan, 0, 0]))


def test_what_the_model_is_shown_can_be_had_alone():
    fixed = anatomy.image(GRIDS_3D["anisotropic"])
    own, grid, seen = model_pair(fixed, fixed, spacing=3.0, slices=True)
    assert own.same(fixed.grid) and seen.shape == (2, *grid.shape)
    np.testing.assert_allclose(grid.spacing, (3, 3, 8))


def test_moved_is_interpolated_once(rng):
    """It equals `warp_image` of the moving image's own voxels, also where the model saw coarse ones."""
    grid = GRIDS_3D["plain"]
    moving, fixed = anatomy.image(moving_of(grid), about=grid), anatomy.image(grid)
    result = register(moving, fixed, Constant([0.3, 0, 0]), spacing=3.0)
    np.testing.assert_array_equal(result.moved, warp_image(result.transform, moving.array, moving.grid))
