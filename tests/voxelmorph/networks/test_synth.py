"""Images from label maps, and SynthStrip."""

import keras
import numpy as np
import pytest

from hetmorph.voxelmorph.networks.synth import SynthStrip, labels_to_image
from hetmorph.voxelmorph.original import ne

QUIET = {"warp_std": 0, "bias_std": 0, "blur_std": 0, "gamma_std": 0, "zero_background": 0, "normalize": False}


@pytest.fixture
def label_map(rng):
    return rng.choice([0, 2, 5], size=(2, 12, 10, 1)).astype("int32")


def test_without_noise_each_label_has_its_intensity(label_map):
    fixed = {"mean_min": [0, 40, 90], "mean_max": [0, 40, 90], "std_min": [0] * 3, "std_max": [0] * 3}
    model = labels_to_image((12, 10), [0, 2, 5], **fixed, **QUIET)
    image, one_hot = model(label_map)
    expected = np.select([label_map == 2, label_map == 5], [40, 90], 0)
    np.testing.assert_allclose(image, expected)
    np.testing.assert_array_equal(one_hot, label_map == [0, 2, 5])


def test_output_labels_are_chosen_and_renamed(label_map):
    def labels_of(**kwargs):
        return np.asarray(labels_to_image((12, 10), [0, 2, 5], **kwargs, **QUIET)(label_map)[1])

    np.testing.assert_array_equal(labels_of(out_label_list=[2, 5]), label_map == [2, 5])
    np.testing.assert_array_equal(labels_of(out_label_list={2: 1, 5: 1}), label_map > 0)
    np.testing.assert_array_equal(labels_of(out_label_list={5: 7}, one_hot=False), np.where(label_map == 5, 7, 0))


def test_image_and_labels_deform_together(label_map):
    """Without noise the image tells the labels, whatever the deformation."""
    fixed = {"mean_min": [0, 40, 90], "mean_max": [0, 40, 90], "std_min": [0] * 3, "std_max": [0] * 3}
    model = labels_to_image((12, 10), [0, 2, 5], **fixed, **{**QUIET, "warp_std": 3}, return_vel=True, return_def=True)
    image, one_hot, velocity, displacement = (np.asarray(y) for y in model(label_map))
    np.testing.assert_allclose(image[..., 0], one_hot @ [0, 40, 90])
    assert velocity.shape == (2, 6, 5, 2)
    assert displacement.shape == (2, 12, 10, 2)
    assert np.abs(displacement).max() > 0.1


def test_defaults_give_images_in_the_unit_range_that_differ_every_time(label_map):
    model = labels_to_image((12, 10), [0, 2, 5], num_chan=2)
    first, second = (model(label_map)[0].numpy() for _ in range(2))
    assert first.shape == (2, 12, 10, 2)
    assert first.min() >= 0 and first.max() <= 1 and np.isfinite(first).all()
    assert np.abs(first - second).max() > 0.05
    assert np.abs(first[0] - first[1]).max() > 0.05


def test_the_global_seed_repeats_the_images(label_map):
    images = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        images.append(labels_to_image((12, 10), [0, 2, 5])(label_map)[0].numpy())
    np.testing.assert_array_equal(*images)


@pytest.mark.quick("out_shape1")
@pytest.mark.parametrize("out_shape", [(12, 12), (8, 9), (15, 10)])
def test_out_shape_crops_and_pads_around_the_centre(out_shape, label_map):
    one_hot = labels_to_image((12, 10), [0, 2, 5], out_shape=out_shape, **QUIET)(label_map)[1]
    assert one_hot.shape == (2, *out_shape, 3)
    deformed = labels_to_image((12, 10), [0, 2, 5], out_shape=out_shape)(label_map)[0]
    assert deformed.shape == (2, *out_shape, 1)
    if out_shape == (8, 9):
        np.testing.assert_array_equal(one_hot, (label_map == [0, 2, 5])[:, 2:10, 0:9])


def test_3d():
    maps = np.random.default_rng(0).integers(0, 3, (1, 8, 8, 8, 1))
    image, one_hot = labels_to_image((8, 8, 8), [0, 1, 2])(maps)
    assert image.shape == (1, 8, 8, 8, 1) and one_hot.shape == (1, 8, 8, 8, 3)


def test_neurite_has_the_repaired_ones():
    """`import neurite as ne` finds them: in the original, TensorFlow functions meet Keras tensors and fail."""
    assert ne.models.labels_to_image is labels_to_image
    assert ne.models.SynthStrip is SynthStrip


def test_the_generator_is_reloaded(tmp_path, label_map):
    model = labels_to_image((12, 10), np.array([0, 2, 5]), {2: 1, 5: 4}, warp_res=[4, 8])
    model.save(tmp_path / "synth.keras")
    again = keras.saving.load_model(tmp_path / "synth.keras")
    keras.utils.set_random_seed(1)
    first = model(label_map)
    keras.utils.set_random_seed(1)
    for a, b in zip(first, again(label_map), strict=True):
        np.testing.assert_array_equal(a, b)


def test_synthstrip_trains_and_is_reloaded(tmp_path, label_map):
    model = SynthStrip((12, 10), [0, 2, 5], {2: 1, 5: 1}, nb_unet_features=4, nb_unet_levels=2)
    model.compile("adam", loss="mse", run_eagerly=True)
    model.fit(label_map, np.zeros((2, 12, 10, 2)), verbose=0)
    model.save(tmp_path / "strip.keras")
    again = keras.saving.load_model(tmp_path / "strip.keras")
    image = np.random.default_rng(0).uniform(size=(1, 12, 10, 1))
    np.testing.assert_allclose(again.get_strip_model()(image), model.get_strip_model()(image), atol=1e-6)


def test_deformation_outputs_need_a_deformation():
    with pytest.raises(ValueError, match="warp_std=0"):
        labels_to_image((8, 8), [0, 1], warp_std=0, return_vel=True)
