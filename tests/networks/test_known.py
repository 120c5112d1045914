"""Training with masks, landmarks, mass: every kind of model minds them, both ways, and Keras does not notice."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from hetmorph.instance.criterion import Criterion, LocalCorrelation
from hetmorph.losses import LNCC, MSE, NCC, Grad
from hetmorph.networks import HetRegistration, HetVxmDense, NllVxmDense, Registration, VxmDense, velocity_network
from hetmorph.networks.adareg import AdaRegVxmDense
from hetmorph.objectives import Landmarks, Overlap, Similarity
from hetmorph.objectives.sampled import SampledCorrelation
from hetmorph.ops.fields import integrate
from hetmorph.steps import Ends, Registered, VelocityStep, check_known, split_known
from hetmorph.transforms import Displacement
from tests import reference
from tests.graphs import eagerly

pytestmark = pytest.mark.usefixtures("eager")
SIZE, COUNT = (16, 20), 3
FEATURES = [[4], [4]]


@pytest.fixture
def images(rng):
    noise = gaussian_filter(rng.normal(size=(2, COUNT, *SIZE, 1)), (0, 0, 1, 1, 0))
    return list(((noise - noise.min()) / np.ptp(noise)).astype("float32"))


@pytest.fixture
def masks():
    there = np.zeros((2, COUNT, *SIZE), bool)
    there[0, :, 3:12, 4:15], there[1, :, 2:11, 5:18] = True, True
    there[:, 1, 6:] = False
    return {"mask_moving": there[0], "mask_fixed": there[1]}


@pytest.fixture
def points():
    places = np.full((2, COUNT, 4, 2), np.nan, "float32")
    places[0, 0, :2], places[1, 0, :2] = [[3, 4], [7, 9]], [[4.5, 4], [8, 8]]
    places[0, 1], places[1, 1] = [[2, 2], [2, 9], [9, 2], [5, 15]], [[2, 3], [2, 9], [9, 2], [5.5, 15]]
    return {"points_moving": places[0], "points_fixed": places[1]}


def velocity_step():
    return VelocityStep(velocity_network((None, None), nb_unet_features=FEATURES, name="velocity"), int_steps=1)


HET = {"variance_features": FEATURES, "warm_start": 0}
MODELS = {
    "vxm both ways": lambda: VxmDense(SIZE, FEATURES, int_steps=1, bidir=True),
    "vxm filled": lambda: VxmDense(SIZE, FEATURES, int_steps=1, fill_value=0.2),
    "het both ways": lambda: HetVxmDense(SIZE, FEATURES, int_steps=1, bidir=True, variance_pass="recompute", **HET),
    "nll": lambda: NllVxmDense(SIZE, FEATURES, int_steps=1, variance_features=FEATURES),
    "adareg": lambda: AdaRegVxmDense(SIZE, FEATURES, int_steps=0),
    "steps": lambda: Registration(velocity_step(), SIZE, "exchange"),
    "het steps": lambda: HetRegistration(velocity_step(), SIZE, "inverse", **HET),
}
kinds = pytest.mark.parametrize("kind", MODELS)


def model_of(kind, rate=0.05, terms=(), image_loss=None):
    keras.utils.set_random_seed(3)
    model = MODELS[kind]()
    for weight in model.trainable_variables:
        if "flow/kernel" in weight.path:
            weight.assign(0.3 * keras.random.normal(weight.shape))
    losses = [*[image_loss or MSE().loss] * (len(model.outputs) - 1), Grad("l2").loss]
    model.compile(keras.optimizers.SGD(rate), loss=losses, terms=terms)
    return model


def tensors(known):
    return {name: tf.constant(value) for name, value in known.items()}


@pytest.mark.quick("steps")
@kinds
def test_a_mask_of_ones_is_none(kind, images):
    """In the losses that are shown, and in the weights that come of them."""
    ones = {name: np.ones((COUNT, *SIZE, 1), "uint8") for name in ("mask_moving", "mask_fixed")}
    logs, weights = [], []
    for x in (tuple(images), (*images, ones)):
        model = model_of(kind)
        history = model.fit(x, batch_size=2, epochs=1, shuffle=False, verbose=0)  # the last batch is of one
        logs.append(history.history)
        weights.append(model.get_weights())
    assert logs[0].keys() == logs[1].keys() and len(logs[0]) >= 1
    for name, (value,) in logs[0].items():
        np.testing.assert_allclose(logs[1][name], [value], rtol=2e-4, atol=1e-6, err_msg=name)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.quick("het steps")
@kinds
def test_a_step_with_masks_and_landmarks(kind, images, masks, points):
    """It moves the weights elsewhere than a step without either, and the loss it shows has both in it."""
    known = masks | points
    shown, weights = [], []
    for more, terms in (((), ()), ((masks,), ()), ((known,), [Landmarks(0.1)])):
        model = model_of(kind, terms=terms)
        shown.append(model.train_on_batch((*images, *more), return_dict=True))
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    assert abs(shown[0]["loss"] - shown[1]["loss"]) > 1e-4
    assert shown[2]["loss"] == pytest.approx(shown[1]["loss"] + 0.1 * shown[2]["landmarks"], rel=1e-4)
    assert np.abs(weights[0] - weights[1]).max() > 1e-6 and np.abs(weights[1] - weights[2]).max() > 1e-6
    assert np.isfinite(weights).all()


def test_landmarks_are_those_of_numpy(rng, points):
    u, v = (np.stack([reference.smooth_field(rng, SIZE, 1.5, 3.0) for _ in range(COUNT)]) for _ in range(2))
    blank = tf.zeros((COUNT, *SIZE, 1))
    places = Ends(points["points_moving"], points["points_fixed"])

    def missed(field, start, end):
        result = []
        for one, a, b in zip(field, start, end, strict=True):
            a, b = a[np.isfinite(a).all(-1)].astype(float), b[np.isfinite(b).all(-1)].astype(float)
            there = a + np.stack([_bilinear(one[..., axis], a) for axis in range(2)], -1)
            result.append(((there - b) ** 2).sum(-1).mean() if len(a) else 0.0)
        return np.array(result)

    forth, back = missed(u, places.fixed, places.moving), missed(v, places.moving, places.fixed)
    assert forth[2] == 0 and (forth[:2] > 0).all()
    there, back_again = Displacement(tf.constant(u, tf.float32)), Displacement(tf.constant(v, tf.float32))
    one_way = Registered(blank, blank, there, points=places)
    np.testing.assert_allclose(Landmarks()(one_way), forth, rtol=1e-4)
    both = Registered(blank, blank, there, back_again, points=places)
    np.testing.assert_allclose(Landmarks()(both), (forth + back) / 2, rtol=1e-4)
    np.testing.assert_array_equal(Landmarks()(Registered(blank, blank, there)), np.zeros(COUNT))


def test_overlap_is_that_of_the_structures_both_images_have(rng):
    """By hand: structures warped one by one; one that an image lacks, or a sample without any, says nothing."""
    labels = rng.integers(0, 4, (2, COUNT, *SIZE))
    labels[0, 1][labels[0, 1] == 2] = 0
    labels[:, 2] = 0
    u, v = (np.stack([reference.smooth_field(rng, SIZE, 2.0, 3.0) for _ in range(COUNT)]) for _ in range(2))
    voxels = np.stack(np.indices(SIZE), -1).astype(float)

    def apart(moving, fixed, field):
        result = []
        for m, f, there in zip(moving, fixed, field, strict=True):
            both = [label for label in (1, 2) if (m == label).any() and (f == label).any()]
            scores = []
            for label in both:
                mask = np.pad((m == label).astype(float), 20, mode="edge")
                warped = _bilinear(mask, (voxels + there + 20).reshape(-1, 2)).reshape(SIZE)
                scores.append(1 - 2 * (warped * (f == label)).sum() / (warped.sum() + (f == label).sum()))
            result.append(np.mean(scores) if both else 0.0)
        return np.array(result)

    blank, ends = tf.zeros((COUNT, *SIZE, 1)), Ends(*(tf.constant(one, tf.float32) for one in labels))
    ways = [Displacement(tf.constant(field, tf.float32)) for field in (u, v)]
    term, forth, back = Overlap(labels=[1, 2]), apart(*labels, u), apart(*labels[::-1], v)
    assert forth[2] == 0 and (forth[:2] > 0.2).all()
    np.testing.assert_allclose(term(Registered(blank, blank, ways[0], labels=ends)), forth, rtol=1e-4)
    np.testing.assert_allclose(term(Registered(blank, blank, *ways, labels=ends)), (forth + back) / 2, rtol=1e-4)
    np.testing.assert_array_equal(term(Registered(blank, blank, ways[0])), np.zeros(COUNT))


def test_samples_without_landmarks_have_a_gradient_of_zero(points):
    """Not of NaN, which fills up the places."""
    field = tf.Variable(tf.zeros((COUNT, *SIZE, 2)))
    blank = tf.zeros((COUNT, *SIZE, 1))
    with tf.GradientTape() as tape:
        places = Ends(points["points_moving"], points["points_fixed"])
        value = tf.reduce_sum(Landmarks()(Registered(blank, blank, Displacement(field), points=places)))
    gradient = tf.convert_to_tensor(tape.gradient(value, field)).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient[1]).max() > 0 and not gradient[2].any()


@pytest.mark.parametrize("given", [("mask_moving",), ("mask_fixed",), ("mask_moving", "mask_fixed")])
def test_what_is_masked_is_what_the_optimisation_of_a_pair_masks(images, masks, rng, given):
    """The same number as `instance.Criterion`, sample by sample, and the gradient of the displacement too."""
    moving, fixed = (tf.constant(image) for image in images)
    u = integrate(np.stack([reference.smooth_field(rng, SIZE, 2.0, 3.0) for _ in range(COUNT)]).astype("float32"))
    loss, criterion = LocalCorrelation(5), Criterion(LocalCorrelation(5).loss, 0.0, weighted=False)
    there = Ends(*(masks[name] if name in given else None for name in ("mask_moving", "mask_fixed")))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(u)
        ours = Similarity(loss)(Registered(moving, fixed, Displacement(u), masks=there))
        theirs = []
        for number in range(COUNT):
            said = {name: tf.constant(masks[name][number, ..., None], tf.float32)[None] for name in given}
            said = {name: tf.cast(value, tf.float32) for name, value in said.items()}
            said["part"] = tf.reduce_mean(said["mask_fixed" if "mask_fixed" in given else "mask_moving"])[None]
            one = slice(number, number + 1)
            theirs.append(criterion(fixed[one], moving[one], None, u[one], said))
        theirs = tf.stack(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(ours, u), tape.gradient(theirs, u), atol=1e-6)


@pytest.mark.parametrize("backward", [False, True])
def test_what_lies_outside_the_masks_moves_nothing(images, masks, rng, backward):
    """Neither loss nor gradient, given the transforms: voxels of the moving image that interpolation meets too."""
    u = tf.constant(np.stack([reference.smooth_field(rng, SIZE, 2.0, 3.0) for _ in range(COUNT)]), tf.float32)
    there = {"moving": masks["mask_moving"], "fixed": masks["mask_fixed"]}
    noise = rng.uniform(-1, 2, (2, COUNT, *SIZE, 1))
    other = [np.where(there[role][..., None], x, n) for role, x, n in zip(there, images, noise, strict=True)]
    values, gradients = [], []
    for moving, fixed in (images, [x.astype("float32") for x in other]):
        with tf.GradientTape() as tape:
            tape.watch(u)
            ways = [Displacement(u), Displacement(-u) if backward else None]
            record = Registered(tf.constant(moving), tf.constant(fixed), *ways, masks=Ends(**there))
            value = Similarity(NCC(win=5))(record)
        values.append(value)
        gradients.append(tape.gradient(value, u).numpy())
    np.testing.assert_allclose(*values, rtol=1e-4)
    np.testing.assert_allclose(*gradients, atol=1e-5)
    assert np.abs(gradients[0]).max() > 1e-4


@pytest.mark.parametrize("fixed_too", [False, True])
def test_nothing_is_gained_by_pushing_voxels_out_of_a_mask(images, masks, rng, fixed_too):
    """Of a moving image without contrast, every displacement matches as badly: none is asked for, though the mean of
    what counts would fall if the worst voxels left it."""
    u = tf.constant(np.stack([reference.smooth_field(rng, SIZE, 2.0, 3.0) for _ in range(COUNT)]), tf.float32)
    moving, fixed = tf.fill((COUNT, *SIZE, 1), 0.3), tf.constant(images[1])
    there = Ends(masks["mask_moving"], masks["mask_fixed"] if fixed_too else None)
    said = {"mask_moving": tf.constant(masks["mask_moving"][:1, ..., None], tf.float32), "part": tf.constant([0.4])}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(u)
        trained = Similarity(MSE())(Registered(moving, fixed, Displacement(u), masks=there))
        optimised = Criterion(MSE().loss, 0.0, weighted=False)(fixed[:1], moving[:1], None, u[:1], said)
    assert (trained > 1e-3).numpy().all() and optimised > 1e-3
    for value in (trained, optimised):
        np.testing.assert_allclose(tape.gradient(value, u), 0, atol=1e-6)


# --- mass -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(14, 17), (9, 8, 10)])
def test_what_keeps_its_mass_is_compared_as_published(rng, shape):
    """In both directions, by the formula written out; so does the optimisation of a pair compare them."""
    u, v = (reference.smooth_field(rng, shape, 1.5, 2.0) for _ in range(2))
    images = [rng.uniform(size=(*shape, 1)).astype("float32") for _ in range(2)]
    moving, fixed = (tf.constant(image[None]) for image in images)
    ones, inner = np.ones((1, *shape)), (slice(-1),) * len(shape)
    there = reference.conserved(reference.warp(images[0], u)[..., 0], u), images[1][..., 0][inner]
    back = reference.conserved(reference.warp(images[1], v)[..., 0], v), images[0][..., 0][inner]
    record = Registered(moving, fixed, *(Displacement(tf.constant(w[None])) for w in (u, v)), volumes=Ends(ones))
    for loss in (MSE(), LNCC(2.0)):
        expected = [loss.loss(*(one[None, ..., None] for one in pair)).numpy().item() for pair in (there, back)]
        assert Similarity(loss)(record).numpy() == pytest.approx(sum(expected), rel=1e-4)
        said = {"volume_moving": tf.ones((1, *shape, 1))}
        optimised = Criterion(loss.loss, 0.0, weighted=False)(fixed, moving, None, tf.constant(u[None]), said)
        assert optimised.numpy() == pytest.approx(expected[0], rel=1e-4)


def test_the_mass_of_a_body_stays_however_it_is_deformed(rng):
    """As an integral; the voxels of one image stand for a third more than those of the other."""
    shape, image = (40, 36, 38), np.zeros((1, 40, 36, 38, 1), "float32")
    image[:, 12:28, 12:26, 10:26] = 1
    image = gaussian_filter(image, (0, 2, 2, 2, 0))
    forth = integrate(reference.smooth_field(rng, shape, 4.0, 5.0)[None])
    volumes = Ends(np.full((1, *shape), 4.0), np.full((1, *shape), 3.0))
    record = Registered(tf.constant(image), tf.constant(image), Displacement(forth), volumes=volumes)
    mass = [tf.reduce_sum(record.views[0].moved).numpy(), 4 * image.sum()]
    assert mass[0] == pytest.approx(mass[1], rel=0.01)
    assert abs(4 * tf.reduce_sum(record.warped).numpy() / mass[1] - 1) > 0.03
    np.testing.assert_allclose(record.views[0].fixed, 3 * image[:, :-1, :-1, :-1])


def test_a_mask_says_where_mass_counts(rng, images, masks):
    """Alone: whatever stands elsewhere."""
    u = tf.constant(np.stack([reference.smooth_field(rng, SIZE, 2.0, 3.0) for _ in range(COUNT)]), tf.float32)
    mask, values = masks["mask_fixed"][..., None], []
    known = {"masks": Ends(fixed=mask), "volumes": Ends(np.ones((COUNT, *SIZE)))}
    for fixed in (images[1], np.where(mask, images[1], 7)):
        record = Registered(*(tf.constant(one, tf.float32) for one in (images[0], fixed)), Displacement(u), **known)
        values.append(Similarity(MSE())(record))
    np.testing.assert_allclose(*values, rtol=1e-5)


@pytest.mark.quick("steps")
@pytest.mark.parametrize("kind", ["vxm both ways", "steps"])
def test_a_step_keeps_mass(kind, images):
    """By the displacements that the model had before it; what else is minimised stays."""
    model, ones = model_of(kind), {"volume_moving": np.ones((COUNT, *SIZE), "float32")}
    images = 5 * images[0], images[1]
    record = model.play(tuple(map(tf.constant, images)), None, None, training=False).registered
    plain = model_of(kind).train_on_batch(images, return_dict=True)["loss"]
    conserved = model.train_on_batch((*images, ones), return_dict=True)["loss"]
    ways = record.displacement.numpy(), record.backward_displacement.numpy()
    expected = 0.0
    for view, displacement in zip(record.views, ways, strict=True):
        moved, fixed = view.moved.numpy(), view.fixed.numpy()
        mass = [reference.conserved(one[..., 0], u) for one, u in zip(moved, displacement, strict=True)]
        expected += np.mean((np.stack(mass) - fixed[:, :-1, :-1, 0]) ** 2) - np.mean((moved - fixed) ** 2)
    assert conserved - plain == pytest.approx(expected, rel=1e-3) and abs(expected) > 1e-3


@pytest.mark.slow
def test_a_translation_is_learnt_from_landmarks_alone(rng):
    """The images say nothing: both are the same noise. A few steps of a tiny network."""
    image = rng.uniform(size=(2, *SIZE, 1)).astype("float32")
    inside = rng.uniform([5, 5], np.array(SIZE) - 6, (2, 6, 2)).astype("float32")
    known = {"points_fixed": inside, "points_moving": inside + [1.5, -1.0]}
    keras.utils.set_random_seed(0)
    model = VxmDense(SIZE, FEATURES, int_steps=0)
    model.compile(keras.optimizers.Adam(0.03), loss=[None, Grad("l2").loss], loss_weights=[0, 0.1], terms=[Landmarks()])
    history = model.fit((image, image, known), epochs=20, verbose=0).history["landmarks"]
    assert history[-1] < 0.1 * history[0]
    middle = model.register(image, image)[:, 5:-6, 5:-6].mean((0, 1, 2))
    np.testing.assert_allclose(middle, [1.5, -1.0], atol=0.3)


def test_models_with_landmarks_are_saved_with_them_and_their_losses(tmp_path, images, masks, points):
    model = model_of("vxm filled", terms=[Landmarks(0.3)], image_loss=NCC(win=5).loss)
    x = (*images, masks | points)
    model.train_on_batch(x)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.terms[0].weight == 0.3 and again.loss[0].owner.win == 5
    assert again.train_on_batch(x) == pytest.approx(model.train_on_batch(x), rel=1e-5)


@pytest.mark.slow
@pytest.mark.graph
def test_a_graph_trains_on_a_stream_with_masks_and_landmarks(images, masks, points):
    """As eager steps do, with a last batch of another size; and the model is called with all of a batch."""
    x = (*images, masks | points)
    model, twin = (model_of("vxm both ways", terms=[Landmarks(0.1)]) for _ in range(2))
    batches = tf.data.Dataset.from_tensor_slices((x,)).batch(2)
    shown = model.fit(batches, verbose=0).history
    twin.compile_from_config(twin.get_compile_config())
    twin.run_eagerly = True
    expected = twin.fit(x, batch_size=2, shuffle=False, verbose=0).history
    for name in ("loss", "landmarks"):  # those of the outputs Keras weights by batches where their size is not known
        np.testing.assert_allclose(shown[name], expected[name], rtol=1e-4, err_msg=name)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_array_equal(model(x)[0], model(images)[0])


@pytest.mark.slow
@pytest.mark.graph
def test_two_replicas_train_as_one(two_replicas, images, masks, points):
    # As numbers: Keras adds up a first batch over replicas, which truth values are not made for.
    x, losses = [(*images, {name: mask.astype("float32") for name, mask in masks.items()} | points)], []
    for strategy in (None, two_replicas):
        with strategy.scope() if strategy else eagerly():
            model = model_of("vxm filled", terms=[Landmarks(0.1)])
            batches = tf.data.Dataset.from_tensor_slices((x[0],)).take(2).batch(2)
            model.fit(batches, verbose=0)
        losses.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_allclose(*losses, atol=2e-6)


# --- wrong input ------------------------------------------------------------------------------------------------------


def _outside(known):
    known["points_fixed"][1, 2, 1] = 19.6
    return known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: {"mask": k["mask_fixed"]}, "by the names mask_moving, mask_fixed, points_moving, points_fixed"),
        (lambda k: {"points_fixed": k["points_fixed"]}, "together, received points_fixed alone"),
        (lambda k: k | {"points_fixed": k["points_fixed"][:, :3]}, r"as many points .*\(3, 4, 2\).*\(3, 3, 2\)"),
        (lambda k: k | {"points_fixed": k["points_fixed"][..., :1]}, r"points_fixed \[3, P, 2\], received"),
        (lambda k: k | {"mask_fixed": k["mask_fixed"][:, 1:]}, r"mask_fixed on the grid .*received \(3, 15, 20\)"),
        (
            lambda k: k | {"mask_moving": 0 * k["mask_moving"][..., None].astype(int)},
            "mask_moving of sample 0 is empty",
        ),
        (lambda k: k | {"volume_moving": np.zeros((COUNT, *SIZE))}, "volume_moving above 0, received 0 to 0"),
        (lambda k: {"volume_fixed": np.ones((COUNT, 4, 4))}, r"volume_fixed on the grid of .*received \(3, 4, 4\)"),
        (_outside, r"points_fixed: point 3 of sample 1, \[9.0, 19.6.*\], lies outside the image of \(16, 20\)"),
    ],
)
def test_wrong_masks_and_landmarks_are_refused(images, masks, points, change, message):
    with pytest.raises(ValueError, match=message):
        model_of("vxm filled").fit((*images, change(masks | points)), verbose=0)


def test_what_does_not_go_together_is_said(images, masks):
    with pytest.raises(ValueError, match="λ ≥ 0, received -1"):
        Landmarks(-1)
    model = model_of("vxm filled", image_loss=keras.losses.MeanAbsoluteError())
    with pytest.raises(ValueError, match="received MeanAbsoluteError of Keras"):
        model.train_on_batch((*images, masks))
    ones = {"volume_moving": np.ones((COUNT, *SIZE))}
    with pytest.raises(ValueError, match="conserve mass needs a model without a variance network, received vxm_dense"):
        model_of("het both ways").train_on_batch((*images, ones))
    with pytest.raises(ValueError, match="volumes need batches without targets"):
        model_of("vxm filled").train_on_batch((*images, ones), [images[1], np.zeros((COUNT, *SIZE, 2))])
    record = Registered(*map(tf.constant, images), Displacement(tf.zeros((COUNT, *SIZE, 2))), volumes=Ends(np.ones(1)))
    with pytest.raises(ValueError, match="conserve mass needs a loss of moved images, received correlation at points"):
        SampledCorrelation()(record)
    model = model_of("vxm filled")
    model.pre_registered = 0.5
    with pytest.raises(ValueError, match="pre_registered 0 with masks, points or labels"):
        model.train_on_batch((*images, masks))
    assert split_known(images) == (images, {}) and check_known(images) is None


def _bilinear(image, points):
    low = np.clip(np.floor(points).astype(int), 0, np.array(image.shape) - 2)
    part = points - low
    return sum(
        image[tuple((low + corner).T)] * np.prod(np.where(corner, part, 1 - part), -1) for corner in np.ndindex(2, 2)
    )
