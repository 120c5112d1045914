"""What each of VoxelMorph's other models does by itself: methods, repairs, sizes and refusals."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hetmorph import losses
from hetmorph.networks.vxm import VxmDense
from hetmorph.voxelmorph.networks.atlas import ProbAtlasSegmentation
from hetmorph.voxelmorph.networks.checkpoint import ModelCheckpointParallel
from hetmorph.voxelmorph.networks.hyper import HyperVxmDense
from hetmorph.voxelmorph.networks.instance import InstanceDense
from hetmorph.voxelmorph.networks.semisupervised import VxmDenseSemiSupervisedPointCloud, VxmDenseSemiSupervisedSeg
from hetmorph.voxelmorph.networks.template import ConditionalTemplateCreation, TemplateCreation
from hetmorph.voxelmorph.original import vxm
from tests.networks.models import golden, random_inputs

pytestmark = pytest.mark.usefixtures("eager")
SIZE = (16, 16)
SMALL = {"nb_unet_features": [[2], [2, 2]], "int_steps": 1}


def test_every_public_model_of_the_original_is_there():
    import hetmorph

    original = vxm.networks
    names = {n for n, v in vars(original).items() if isinstance(v, type) and v.__module__ == original.__name__}
    assert len(names) > 8
    assert names | {"ModelCheckpointParallel"} <= set(dir(hetmorph.networks))
    assert all(getattr(hetmorph.networks, name).__name__ == name for name in names)


# -- semi-supervised ------------------------------------------------------------------------------------------


@pytest.mark.quick("seg")
@pytest.mark.parametrize("name", ["seg", "points", "points_one_way"])
def test_register_takes_the_two_images(name):
    path, inputs, _, arrays = golden(name)
    cls = VxmDenseSemiSupervisedSeg if name == "seg" else VxmDenseSemiSupervisedPointCloud
    model = cls.load(path)
    np.testing.assert_allclose(model.register(*inputs[:2]), arrays["reg"], atol=1e-4)
    warped = model.apply_transform(*inputs[:2], inputs[0])
    np.testing.assert_allclose(warped, model(inputs)[0], atol=1e-5)


@pytest.mark.parametrize("size", [(15, 18), (None, None)])
def test_segmentations_of_any_size(size, rng):
    model = VxmDenseSemiSupervisedSeg(size, nb_labels=2, bidir_labels=True, **SMALL)
    image, seg = rng.uniform(size=(2, 1, 15, 18, 1)), rng.uniform(size=(2, 1, 7, 9, 2))
    outputs = model([*image, *seg])
    assert [tuple(y.shape[1:-1]) for y in outputs] == [(15, 18), (15, 18), (8, 9), (7, 9), (7, 9)]


def test_seg_downsize_is_deprecated():
    with pytest.warns(DeprecationWarning, match="seg_resolution"):
        model = VxmDenseSemiSupervisedSeg(SIZE, nb_labels=2, seg_downsize=4, **SMALL)
    assert model.inputs[2].shape == (None, 4, 4, 2)


# -- one pair -------------------------------------------------------------------------------------------------


def test_set_flow_sets_the_field(rng):
    """The original passes an array where Keras takes a list of them."""
    model = InstanceDense(SIZE, mult=10)
    velocity = rng.normal(size=(8, 8, 2)).astype("float32")
    for given in (velocity, velocity[None]):
        model.set_flow(given)
        np.testing.assert_allclose(model(np.zeros((1, *SIZE, 1)))[1][0], velocity, atol=1e-5)


@pytest.mark.quick("size1")
@pytest.mark.parametrize("size", [(16, 16), (15, 13)])
def test_set_flow_takes_the_displacement_of_another_model(size):
    """`train_instance.py --model` does this, and the field there has the size of the image."""
    model = InstanceDense(size)
    model.set_flow(np.full((1, *size, 2), 1.5))
    image = np.random.default_rng(0).uniform(size=(1, *size, 1))
    np.testing.assert_allclose(model.register(image), 1.5, atol=1e-4)
    np.testing.assert_allclose(model.apply_transform(image, image), model(image)[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        model.set_flow(np.zeros((3, 3)))


@pytest.mark.slow
@pytest.mark.graph  # hundreds of evaluations of one function
def test_set_flow_of_a_displacement_registers_with_that_displacement(rng):
    """Taken as the velocity, as before, it was .85 voxel off."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 32)] * 2, indexing="ij"), -1)
    bump = np.exp(-3 * (grid**2).sum(-1, keepdims=True))
    u = (bump * np.array([4.0, -3.0]) + 2 * bump * grid[..., ::-1])[None].astype("float32")
    image = np.zeros((1, 32, 32, 1), "float32")
    model = InstanceDense((32, 32), int_resolution=1)
    model.set_flow(u, displacement=True)
    assert np.abs(model.register(image) - u).max() < 0.02
    model.set_flow(u, displacement=False)
    assert np.abs(model.register(image) - u).max() > 0.3
    coarse = InstanceDense((32, 32))  # a field on the image's grid, which is not the model's, is a displacement
    coarse.set_flow(u)
    assert np.abs(coarse.register(image) - u).max() < 0.15  # what half the resolution cannot hold


@pytest.mark.slow
@pytest.mark.graph
def test_optimising_a_pair_brings_it_together():
    x, y = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    blob = lambda cx: np.exp(-((x - cx) ** 2 + (y - 8) ** 2) / 8)[None, ..., None].astype("float32")  # noqa: E731
    model = InstanceDense(SIZE, int_steps=3, mult=1)
    field_loss = losses.Grad("l2").loss
    model.compile(keras.optimizers.Adam(0.1), loss=[losses.MSE().loss, field_loss], loss_weights=[1, 0.001])
    zeros = np.zeros((1, 8, 8, 2), "float32")
    history = model.fit(blob(7), [blob(9), zeros], epochs=60, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]


def test_without_integration_the_field_is_the_displacement():
    model = InstanceDense(SIZE, int_steps=0)
    model.set_flow(np.full((8, 8, 2), 0.5))
    np.testing.assert_allclose(model.register(np.zeros((1, *SIZE, 1))), 1.0, atol=1e-5)


# -- hypernetwork ---------------------------------------------------------------------------------------------


def test_the_hyperparameter_changes_the_registration_and_may_enter_the_loss(rng):
    path, inputs, *_ = golden("hyper")
    model = HyperVxmDense.load(path)
    low, high = (model.register(*inputs[:2], np.full((2, 1), h, "float32")) for h in (0.0, 1.0))
    assert np.abs(low - high).max() > 1e-3

    def image_loss(y_true, y_pred):
        return (1 - tf.squeeze(model.references.hyper_val)) * tf.reduce_mean((y_true - y_pred) ** 2)

    def field_loss(y_true, y_pred):
        return tf.squeeze(model.references.hyper_val) * losses.Grad("l2").loss(y_true, y_pred)

    with pytest.raises(ValueError, match="while the model trains"):
        tf.squeeze(HyperVxmDense(SIZE, **SMALL).references.hyper_val)
    model.compile("adam", loss=[image_loss, field_loss], run_eagerly=True)
    targets = [inputs[1], np.zeros((2, 8, 8, 2), "float32")]
    at_one = model.test_on_batch([*inputs[:2], np.ones((2, 1), "float32")], targets)
    assert at_one[1] == pytest.approx(0, abs=1e-6) and at_one[2] > 0


def hyper_weighted(model):
    """Image and field loss of VoxelMorph's `train_hypermorph.py`."""

    def image_loss(y_true, y_pred):
        per_sample = tf.reduce_mean((y_true - y_pred) ** 2, axis=[1, 2, 3])
        return (1 - tf.squeeze(model.references.hyper_val)) * per_sample

    def field_loss(y_true, y_pred):
        return tf.squeeze(model.references.hyper_val) * losses.Grad("l2").loss(y_true, y_pred)

    return image_loss, field_loss


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_hyperparameter_enters_the_loss_in_a_graph(dtype, rng):
    """The batch size is unknown there, and with it the rank of the squeezed hyperparameter; numpy draws float64."""
    model = HyperVxmDense(SIZE, nb_hyp_layers=1, nb_hyp_units=3, **SMALL)
    model.compile(keras.optimizers.SGD(0.0), loss=hyper_weighted(model))
    source, target = rng.uniform(size=(2, 2, *SIZE, 1)).astype("float32")
    inputs = [source, target, np.full((2, 1), 0.25, dtype)]
    expected = 0.75 * np.mean((target - model(inputs)[0]) ** 2)
    zeros = np.zeros((2, 8, 8, 2), "float32")
    batches = iter([(tuple(inputs), (target, zeros))])
    value = model.fit((b for b in batches), shuffle=False, steps_per_epoch=1, verbose=0).history["loss"][0]
    assert value == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_own_losses_are_restored_by_name(tmp_path, rng):
    model = HyperVxmDense(SIZE, nb_hyp_layers=1, nb_hyp_units=3, **SMALL)

    def own(y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred))

    model.compile("adam", loss=[own, losses.Grad("l2").loss], run_eagerly=True)
    inputs = random_inputs(model, rng)
    targets = [inputs[1], np.zeros((2, 8, 8, 2), "float32")]
    model.train_on_batch(inputs, targets)
    model.save(tmp_path / "hyper.keras")
    again = keras.saving.load_model(tmp_path / "hyper.keras", custom_objects={"own": own})
    model.reset_metrics()
    np.testing.assert_allclose(again.train_on_batch(inputs, targets), model.train_on_batch(inputs, targets), rtol=1e-4)


def test_vxm_dense_with_a_hypernetwork_of_its_own_is_reloaded(tmp_path, rng):
    """Never worked: the configuration held the model itself."""
    hyper = keras.Input((1,), name="weight")
    model = VxmDense(SIZE, hyp_model=keras.Model(hyper, keras.layers.Dense(4)(hyper)), **SMALL)
    inputs = random_inputs(model, rng)
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        again = VxmDense.load(tmp_path / f"model{suffix}")
        np.testing.assert_allclose(again(inputs)[0], model(inputs)[0], atol=1e-6)


def test_hypernetwork_in_1d_and_for_any_size(rng):
    """neurite has no 1-D hyperconvolution, and fixes the size."""
    model = HyperVxmDense((None,), nb_hyp_layers=1, nb_hyp_units=3, **SMALL)
    image = rng.uniform(size=(2, 19, 1))
    assert model([image, image, np.ones((2, 1))])[0].shape == (2, 19, 1)


# -- templates ------------------------------------------------------------------------------------------------


def test_template_is_set_and_read():
    path, inputs, outputs, arrays = golden("template")
    model = TemplateCreation.load(path)
    np.testing.assert_allclose(model.get_atlas(), arrays["atlas"], atol=1e-6)
    atlas = np.random.default_rng(0).uniform(size=SIZE)
    for shape in (SIZE, (*SIZE, 1), (1, *SIZE, 1)):
        model.set_atlas(atlas.reshape(shape))
        np.testing.assert_allclose(model.get_atlas(), atlas, atol=1e-6)
    with pytest.raises(ValueError, match=r"\(16, 16, 1\), got \(8, 8\)"):
        model.set_atlas(np.zeros((8, 8)))


def test_template_registers_to_an_image():
    """The original predicts with two inputs from a model that has one."""
    path, inputs, outputs, arrays = golden("template")
    model = TemplateCreation.load(path)
    np.testing.assert_allclose(model.register(inputs[0]), outputs[3], atol=1e-4)
    atlas = np.broadcast_to(arrays["atlas"][None, ..., None], (2, *SIZE, 1))
    np.testing.assert_allclose(model.apply_transform(inputs[0], atlas), outputs[0], atol=1e-4)


def test_a_loss_may_use_the_template(rng):
    model = TemplateCreation(SIZE, **SMALL)
    model.set_atlas(np.full(SIZE, 0.5))
    image_loss = losses.MSE().loss
    value = image_loss(model.references.atlas_tensor, np.full((2, *SIZE, 1), 0.75, "float32"))
    np.testing.assert_allclose(value, 0.0625)
    own = lambda _, y_pred: image_loss(model.references.atlas_tensor, y_pred)  # noqa: E731
    zero = lambda _, y_pred: 0.0 * tf.reduce_mean(y_pred)  # noqa: E731
    model.compile(keras.optimizers.SGD(100.0), loss=[zero, own, zero, zero], run_eagerly=True)
    image = rng.uniform(size=(2, *SIZE, 1)).astype("float32")
    before = model.get_atlas().copy()
    model.train_on_batch(image, [np.zeros_like(y) for y in model(image)])
    assert np.abs(model.get_atlas() - before).max() > 1e-3


@pytest.mark.parametrize("size", [(15, 17), (8, 9, 10)])
def test_templates_of_any_size(size, rng):
    model = TemplateCreation(size, **SMALL)
    image = rng.uniform(size=(1, *size, 1))
    assert [tuple(y.shape[1:-1]) for y in model(image)] == [size] * 4


@pytest.mark.slow
def test_conditional_template_depends_on_the_attributes():
    path, inputs, outputs, _ = golden("conditional")
    model = ConditionalTemplateCreation.load(path)
    atlases = model.get_atlas([[0.0, 1.0], [1.0, 0.0]], inputs[1][:1])
    assert atlases.shape == (2, *SIZE, 1)
    assert np.abs(atlases[0] - atlases[1]).max() > 1e-3
    np.testing.assert_allclose(model.register(*inputs), outputs[-1], atol=1e-4)
    template = model.get_atlas(*inputs[:2])
    np.testing.assert_allclose(model.apply_transform(*inputs, template), outputs[0], atol=1e-4)


def test_conditional_template_takes_the_arguments_of_the_script():
    """`train_cond_template.py` states the channels of both images, of which there is one kind."""
    model = ConditionalTemplateCreation(SIZE, (2,), src_feats=2, trg_feats=2, conv_nb_features=2, **SMALL)
    assert model.outputs[0].shape == (None, *SIZE, 2)
    assert type(model).from_config(model.get_config()).get_config() == model.get_config()


def test_template_image_from_its_labels(rng, tmp_path):
    """`templcondsi` names a tensor that does not exist in the original, which never ran."""
    make = lambda **kw: ConditionalTemplateCreation(SIZE, (2,), conv_nb_features=2, **SMALL, **kw)  # noqa: E731
    model = make(src_feats=4, templcondsi=True, templcondsi_init=np.array([0.2, 0.5, 0.9]))
    logits = 50 * np.eye(4)[rng.integers(1, 4, (1, *SIZE))]
    atlas = model.get_atlas(np.zeros((1, 2)), logits)
    np.testing.assert_allclose(atlas[..., 0], logits[..., 1:] @ [0.2, 0.5, 0.9] / 50, atol=1e-3)
    model.save(tmp_path / "model.h5")
    inputs = random_inputs(model, rng)
    again = ConditionalTemplateCreation.load(tmp_path / "model.h5")
    np.testing.assert_allclose(again(inputs)[0], model(inputs)[0], atol=1e-6)
    with pytest.raises(ValueError, match="src_feats=1"):
        make(templcondsi=True)


# -- atlas ----------------------------------------------------------------------------------------------------


def test_likelihood_is_the_normal_density(rng):
    from scipy.stats import norm

    model = ProbAtlasSegmentation(SIZE, nb_labels=2, init_mu=[0.2, 0.7], init_sigma=[0.1, 0.3], **SMALL)
    image, atlas = rng.uniform(size=(1, *SIZE, 1)), rng.dirichlet([1, 1], (1, *SIZE))
    likelihood, mean, log_variance, displacement = model.get_gaussian_warp_model()([image, atlas])
    scale = np.exp(np.asarray(log_variance) / 2)
    np.testing.assert_allclose(mean, np.broadcast_to([0.2, 0.7], mean.shape), atol=1e-2)
    np.testing.assert_allclose(likelihood, norm.logpdf(image, np.asarray(mean), scale), rtol=1e-3, atol=1e-3)
    assert displacement.shape == (1, *SIZE, 2)


@pytest.mark.slow
@pytest.mark.graph
def test_a_loss_may_leave_out_voxels_by_their_intensity(rng):
    """`train_unsupervised_seg.py` leaves the background out, with the model's symbolic input."""
    model = ProbAtlasSegmentation(SIZE, nb_labels=2, **SMALL)

    def own(_, y_pred):
        foreground = tf.cast(tf.convert_to_tensor(model.references.image) > 0.5, tf.float32)
        return -tf.reduce_sum(y_pred * foreground) / tf.reduce_sum(foreground)

    model.compile(keras.optimizers.SGD(0.0), loss=[own, losses.Grad("l2").loss], loss_weights=[1, 0])
    image, atlas = rng.uniform(size=(1, *SIZE, 1)), rng.dirichlet([1, 1], (1, *SIZE))
    log_likelihood = np.asarray(model([image, atlas])[0])
    targets = [np.zeros((1, *SIZE, 1)), np.zeros((1, *SIZE, 2))]
    value = model.fit([image, atlas], targets, verbose=0).history["loss"][0]
    assert value == pytest.approx(-log_likelihood[image > 0.5].mean(), rel=1e-4)


def test_stat_post_warp_needs_the_warp():
    with pytest.raises(ValueError, match="warp_atlas"):
        ProbAtlasSegmentation(SIZE, nb_labels=2, warp_atlas=False, **SMALL)


# -- saving, and losses inside the model ----------------------------------------------------------------------


@pytest.mark.parametrize("save_best_only", [False, True])
def test_checkpoints_of_the_parallel_callback(save_best_only, tmp_path):
    """`np.Inf` in its constructor, and then a layer that has no `save`."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", loss="mse")
    path = str(tmp_path / "{epoch:02d}.keras")
    callback = ModelCheckpointParallel(path, monitor="loss", save_best_only=save_best_only)
    model.fit(np.ones((4, 4)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=[callback])
    assert (tmp_path / "00.keras").exists()
    keras.saving.load_model(tmp_path / "00.keras")


def test_a_loss_between_tensors_inside_the_model(rng):
    """SynthMorph's `model.add_loss(Dice().loss(map, moved))`, where nothing is given to `fit` to compare with."""
    model = VxmDense(SIZE, **SMALL)
    model.add_loss(losses.MSE().loss(model.references.target, model.references.y_source) + 1.0)
    model.add_loss(losses.Grad("l2").loss(None, model.references.svf))
    model.compile("adam", run_eagerly=True)
    source, target = rng.uniform(size=(2, 2, *SIZE, 1)).astype("float32")
    expected = 1 + float(tf.reduce_mean((target - model([source, target])[0]) ** 2))
    value = model.train_on_batch([source, target])
    assert float(np.ravel(value)[0]) == pytest.approx(expected, rel=1e-4)
