"""docs/voxelmorph.md, kept true: every public name is there, in the table, and every test it names exists.

Also the rows of the table that no test of a module covers: what is left of the originals themselves, and what is not
supported.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import hetmorph
from hetmorph.voxelmorph.original import ne, vxm

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "voxelmorph.md").read_text(encoding="utf-8")
NAMED_TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT)))

# Modules of the original, and where their names are in hetmorph.
MODULES = {
    "": (vxm, hetmorph),
    "tf": (vxm.tf, hetmorph.tf),
    "networks": (vxm.networks, hetmorph.networks),
    "layers": (vxm.layers, hetmorph.layers),
    "losses": (vxm.losses, hetmorph.losses),
    "utils": (vxm.utils, hetmorph.utils),
    "generators": (vxm.generators, hetmorph.generators),
    "py": (vxm.py, hetmorph.py),
    "py.utils": (vxm.py.utils, hetmorph.py.utils),
}


def public_names(module):
    """Classes and functions that voxelmorph defines and a module shows; for a package also its modules."""

    def belongs(value):
        if inspect.ismodule(value):
            return module in (vxm, vxm.tf, vxm.py) and value.__name__.startswith("voxelmorph")
        return getattr(value, "__module__", "").startswith("voxelmorph")

    return sorted(name for name, value in vars(module).items() if not name.startswith("_") and belongs(value))


@pytest.mark.parametrize("name", MODULES)
def test_no_public_name_is_missing(name):
    original, ours = MODULES[name]
    assert public_names(original), f"no public names found in {original}"
    assert not [n for n in public_names(original) if not hasattr(ours, n)]


@pytest.mark.parametrize("name", [n for n in MODULES if n not in ("", "tf", "py")])
def test_every_public_name_has_its_row(name):
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    rowless = [n for n in public_names(MODULES[name][0]) if not any(re.search(rf"`{n}`", row) for row in rows)]
    assert not rowless


def test_every_row_names_a_test():
    """Rows of the tables that end in a column of tests."""
    lines = TEXT.splitlines()
    rows, inside = [], False
    for line in lines:
        inside = line.startswith("|") and (inside or line.rstrip(" |").endswith("| test"))
        if inside:
            rows.append(line)
    rows = [row for row in rows if not row.rstrip(" |").endswith("| test") and not set(row) <= set("|- ")]
    assert len(rows) > 60
    assert not [row for row in rows if "::test_" not in row]


@pytest.mark.parametrize(("file", "test"), NAMED_TESTS, ids=[f"{f}::{t}" for f, t in NAMED_TESTS])
def test_a_test_that_is_named_exists(file, test):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# -- what is used of the originals as they are ----------------------------------------------------------------


def test_submodules_are_imported_under_the_new_name():
    """`from voxelmorph.networks import VxmDense` with the package's name changed."""
    for name in ("networks", "layers", "losses", "utils", "generators", "py.utils", "tf"):
        module = importlib.import_module(f"hetmorph.{name}")
        assert module is MODULES[name][1]


def test_neurite_is_imported_by_its_own_name_afterwards():
    import neurite

    assert neurite is ne
    assert {"layers", "losses", "metrics", "models", "modelio", "plot", "py", "utils"} <= set(vars(neurite))


@pytest.mark.parametrize("ndims", [2, 3])
def test_neurite_unet_and_encoder(ndims):
    """Both ask a symbolic tensor for `.shape.as_list()`."""
    size = (8,) * ndims
    unet = ne.models.unet(2, (*size, 1), 2, (3,) * ndims, 3)
    assert unet(np.zeros((1, *size, 1), "float32")).shape == (1, *size, 3)
    encoder = ne.models.conv_enc(2, (*size, 1), 2, (3,) * ndims)
    assert encoder(np.zeros((1, *size, 1), "float32")).shape[1:-1] == (4,) * ndims


def test_neurite_plots(monkeypatch):
    """The figures of VoxelMorph's tutorial."""
    plt = pytest.importorskip("matplotlib.pyplot")
    image = np.random.default_rng(0).uniform(size=(8, 8))
    ne.plot.slices([image, image], titles=["a", "b"], cmaps=["gray"], do_colorbars=True, show=False)
    ne.plot.flow([np.ones((8, 8, 2))], width=5, show=False)
    assert len(plt.get_fignums()) == 2
    plt.close("all")


def test_numpy_tools_that_are_the_originals(tmp_path):
    utils = hetmorph.py.utils
    a = np.array([[0, 1, 1], [2, 2, 0]])
    np.testing.assert_allclose(utils.dice(a, a, labels=[1, 2]), [1, 1])
    np.testing.assert_array_equal(utils.filter_labels(a, [2]), [[0, 0, 0], [2, 2, 0]])
    assert utils.pad(a, (4, 5))[0].shape == (4, 5)
    assert utils.resize(np.ones((4, 4, 1)), 0.5).shape == (2, 2, 1)
    largest = utils.extract_largest_vol(np.array([[1, 0, 1, 1], [1, 0, 1, 1]]))
    np.testing.assert_array_equal(largest, [[0, 0, 1, 1]] * 2)
    np.testing.assert_allclose(utils.affine_shift_to_matrix(np.zeros(12)), np.eye(4))
    (tmp_path / "list.txt").write_text("a\nb\n")
    assert utils.read_file_list(tmp_path / "list.txt", prefix="x/", suffix=".nii") == ["x/a.nii", "x/b.nii"]
    (tmp_path / "pairs.txt").write_text("a b\n")
    assert utils.read_pair_list(tmp_path / "pairs.txt") == [["a", "b"]]
    assert utils.get_backend() == "tensorflow"


def test_surface_tools_that_are_the_originals():
    """They call names that scipy moved."""
    utils = hetmorph.py.utils
    square = np.zeros((9, 9))
    square[2:7, 2:7] = 1
    assert utils.dist_trf(square)[4, 4] == 0 and utils.dist_trf(square)[4, 0] == 2
    volumes = np.stack([square, square])[..., None]
    assert utils.vol_to_sdt_batch(volumes).shape == (2, 9, 9, 1)
    cleaned = utils.clean_seg_batch(volumes, 0.5)
    assert cleaned.shape == volumes.shape and cleaned[0, 4, 4, 0] == pytest.approx(1, abs=0.1)
    edge = square - np.pad(np.ones((3, 3)), 3)
    points = utils.edge_to_surface_pts(edge, nb_surface_pts=7)
    assert points.shape == (7, 2) and (edge[tuple(points.astype(int).T)] == 1).all()
    assert utils.get_surface_pts_per_label(10, [0.26, 0.74]).tolist() == [3, 7]


def test_affine_tools_that_are_the_originals():
    utils = hetmorph.utils
    matrix = np.array([[1.5, 0, 2], [0, 1, 3]], "float32")
    assert utils.is_affine_shape((2, 3)) and not utils.is_affine_shape((5, 5, 2))
    utils.validate_affine_shape((2, 3))
    np.testing.assert_allclose(utils.make_square_affine(tf.constant(matrix))[-1], [0, 0, 1])
    np.testing.assert_allclose(utils.rescale_affine(tf.constant(matrix), 2)[:, -1], [4, 6])
    removed = utils.affine_remove_identity(tf.constant(matrix[None]))
    np.testing.assert_allclose(np.reshape(removed, (2, 3)), matrix - np.eye(2, 3))
    np.testing.assert_allclose(np.reshape(utils.affine_add_identity(removed), (2, 3)), matrix)


# -- rows that a repaired model or layer is not enough for ----------------------------------------------------


@pytest.mark.slow
def test_a_generator_feeds_a_model_that_integrates(rng):
    """`fit(generator)` with `int_steps` failed in eager TensorFlow 2; here it also checks the gradient arrives."""
    volumes = [rng.uniform(size=(16, 16)).astype("float32") for _ in range(3)]
    model = hetmorph.networks.VxmDense((16, 16), nb_unet_features=[[2], [2, 2]], int_steps=7)
    model.compile("adam", loss=[hetmorph.losses.MSE().loss, hetmorph.losses.Grad("l2").loss])
    before = model.get_layer("vxm_dense_flow").get_weights()[0].copy()
    generator = hetmorph.generators.scan_to_scan(volumes, batch_size=2)
    loss = model.fit(generator, steps_per_epoch=2, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(loss).all()
    assert np.abs(model.get_layer("vxm_dense_flow").get_weights()[0] - before).max() > 0


# -- not supported: what a program that still asks for it is told ---------------------------------------------


@pytest.fixture(scope="module")
def model():
    return hetmorph.networks.VxmDense((8, 8), nb_unet_features=[[2], [2, 2]])


@pytest.mark.slow
def test_saving_to_a_folder_is_refused_and_export_takes_its_place(model, tmp_path):
    with pytest.raises(ValueError, match=r"\.keras"):
        model.save(tmp_path / "folder")
    assert (hetmorph.serving.export_savedmodel(model, tmp_path) / "saved_model.pb").exists()


def test_a_loss_function_without_arguments_is_refused(model):
    """Keras 2's `add_loss(lambda: …)`."""
    with pytest.raises((ValueError, NotImplementedError)):
        model.add_loss(lambda: tf.constant(1.0))


def test_optimizers_have_no_minimize_but_gradients_apply():
    assert not hasattr(keras.optimizers.Adam(), "minimize")
    weight = keras.Variable(1.0)
    with tf.GradientTape() as tape:
        loss = weight.value**2
    keras.optimizers.SGD(0.25).apply([tape.gradient(loss, weight.value)], [weight])
    assert float(weight) == pytest.approx(0.5)


def test_tensorflow_functions_on_symbolic_tensors_are_refused(model):
    with pytest.raises(ValueError, match="KerasTensor"):
        tf.expand_dims(model.outputs[0][..., 0], -1)
    assert keras.ops.expand_dims(model.outputs[0][..., 0], -1).shape == (None, 8, 8, 1)
