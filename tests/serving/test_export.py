"""SavedModels run with TensorFlow alone, give the model's numbers, and refuse bad requests."""

import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.serving import export_savedmodel
from tests.reference_serving import warp_reference

SMALL = {"nb_unet_features": [[4], [4, 4]], "int_steps": 1}
DEEP = [[4, 4, 4], [4, 4, 4, 4]]  # halves three times: sizes not divisible by 8 are padded inside


def random_weights(model, scale=0.2):
    """Weights large enough for displacements of about a voxel, unlike the initial ones."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * scale)
    return model


def images(shape, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.random((batch, *shape, 1)).astype("float32") for _ in range(2))


def run_eagerly(model, *inputs):
    """Displacement and moved image of a Keras model, without tracing a graph for them."""
    references = model.references
    outputs = keras.Model(model.inputs, [references.pos_flow, references.y_source])(list(inputs), training=False)
    return [output.numpy() for output in outputs]


def numpy_of(outputs):
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.fixture(scope="module", params=["2d", pytest.param("3d", marks=pytest.mark.slow)])
def exported(request, tmp_path_factory):
    """(model, loaded SavedModel, folder) of a VxmDense with weights that move voxels."""
    shape = (32, 32) if request.param == "2d" else (16, 16, 16)
    model = random_weights(VxmDense(shape, nb_unet_features=DEEP, int_steps=1))
    folder = export_savedmodel(model, tmp_path_factory.mktemp(request.param))
    return model, tf.saved_model.load(folder), folder


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """(model, loaded SavedModel, folder) of one small 2-D VxmDense."""
    model = random_weights(VxmDense((32, 32), **SMALL))
    folder = export_savedmodel(model, tmp_path_factory.mktemp("plane"))
    return model, tf.saved_model.load(folder), folder


SIZES = {2: [(32, 32), (21, 37), (50, 16)], 3: [(16, 16, 16), (9, 18, 13)]}


def test_register_equals_the_keras_model_at_any_size(exported):
    model, served, _ = exported
    for shape in SIZES[len(model.inshape)]:
        moving, fixed = images(shape, batch=3)
        displacement, moved = run_eagerly(model.with_shape(shape), moving, fixed)
        assert np.abs(displacement).max() > 0.1  # else the comparison would say nothing
        for batch in (1, 3):
            result = numpy_of(served.signatures["register"](moving=moving[:batch], fixed=fixed[:batch]))
            assert set(result) == {"displacement", "moved"}
            np.testing.assert_allclose(result["displacement"], displacement[:batch], atol=1e-5)
            np.testing.assert_allclose(result["moved"], moved[:batch], atol=1e-5)


def test_serving_default_keeps_the_names_of_a_keras_2_export(plane):
    model, served, _ = plane
    moving, fixed = images((32, 32))
    result = numpy_of(served.signatures["serving_default"](vxm_dense_source_input=moving, vxm_dense_target_input=fixed))
    assert set(result) == {"vxm_dense_transformer", "vxm_dense_flow_resize"}
    moved, field = model([moving, fixed], training=False)
    np.testing.assert_allclose(result["vxm_dense_transformer"], moved, atol=1e-5)
    np.testing.assert_allclose(result["vxm_dense_flow_resize"], field, atol=1e-5)


@pytest.mark.slow
def test_names_follow_the_models_name(tmp_path):
    model = VxmDense((16, 16), **SMALL, name="heart")
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    signature = served.signatures["serving_default"]
    assert set(signature.structured_input_signature[1]) == {"heart_source_input", "heart_target_input"}
    assert set(signature.structured_outputs) == {"heart_transformer", "heart_flow_resize"}


@pytest.mark.slow
def test_bidirectional_model_also_serves_the_moved_target(tmp_path):
    model = random_weights(VxmDense((32, 32), **SMALL, bidir=True))
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    moving, fixed = images((32, 32))
    result = served.signatures["serving_default"](vxm_dense_source_input=moving, vxm_dense_target_input=fixed)
    _, moved_target, _ = model([moving, fixed], training=False)
    np.testing.assert_allclose(result["vxm_dense_neg_transformer"], moved_target, atol=1e-5)


@pytest.mark.slow
def test_probabilistic_model_serves_its_mean(tmp_path):
    model = random_weights(VxmDense((32, 32), **SMALL, use_probs=True))
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    moving, fixed = images((32, 32))
    first, second = (served.signatures["register"](moving=moving, fixed=fixed) for _ in range(2))
    np.testing.assert_array_equal(first["displacement"], second["displacement"])
    np.testing.assert_allclose(first["displacement"], run_eagerly(model, moving, fixed)[0], atol=1e-5)


def test_without_integration(tmp_path):
    model = random_weights(VxmDense((32, 32), **(SMALL | {"int_steps": 0})))
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    moving, fixed = images((32, 32))
    result = served.signatures["register"](moving=moving, fixed=fixed)
    np.testing.assert_allclose(result["displacement"], run_eagerly(model, moving, fixed)[0], atol=1e-5)


@pytest.mark.slow
def test_hyperparameter_input_keeps_its_name(tmp_path):
    entry = keras.Input((1,), name="hyp_input")
    hyper = keras.Model(entry, keras.layers.Dense(4, activation="relu")(entry))
    model = random_weights(VxmDense((16, 16), **SMALL, hyp_model=hyper))
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    moving, fixed = images((16, 16))
    weak, strong = (np.full((1, 1), value, "float32") for value in (0.1, 0.9))
    result = served.signatures["register"](moving=moving, fixed=fixed, hyp_input=weak)["displacement"]
    np.testing.assert_allclose(result, run_eagerly(model, moving, fixed, weak)[0], atol=1e-5)
    other = served.signatures["register"](moving=moving, fixed=fixed, hyp_input=strong)["displacement"]
    assert np.abs(other - result).max() > 1e-4


def test_input_model_keeps_its_names_and_size(tmp_path):
    entries = [keras.Input((16, 16, 1), name=name) for name in ("end_diastole", "end_systole")]
    halves = [keras.layers.Rescaling(0.5, name=f"half_{x.name}")(x) for x in entries]
    model = random_weights(VxmDense((16, 16), **SMALL, input_model=keras.Model(entries, halves)))
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    moving, fixed = images((16, 16), batch=2)
    result = served.signatures["register"](end_diastole=moving, end_systole=fixed)
    np.testing.assert_allclose(result["displacement"], run_eagerly(model, moving, fixed)[0], atol=1e-5)


@pytest.mark.slow
def test_several_image_channels(tmp_path):
    model = random_weights(VxmDense((16, 16), **SMALL, src_feats=2, trg_feats=3))
    served = tf.saved_model.load(export_savedmodel(model, tmp_path))
    rng = np.random.default_rng(0)
    moving, fixed = (rng.random((1, 19, 23, channels)).astype("float32") for channels in (2, 3))
    assert served.signatures["register"](moving=moving, fixed=fixed)["moved"].shape == (1, 19, 23, 2)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("signature", "method"), [("warp", "linear"), ("warp_nearest", "nearest")])
def test_warp_is_the_reference_interpolation(exported, rng, signature, method, channels):
    model, served, _ = exported
    shape = (11, 7, 5)[: len(model.inshape)]
    image = rng.random((2, *shape, channels)).astype("float32")
    displacement = rng.normal(scale=2, size=(2, *shape, len(shape))).astype("float32")
    moved = served.signatures[signature](image=image, displacement=displacement)["moved"]
    np.testing.assert_allclose(moved, warp_reference(image, displacement, method), atol=1e-5)


def test_variance_only_where_the_model_has_one(plane):
    _, served, _ = plane
    assert set(served.signatures) == {"serving_default", "register", "warp", "warp_nearest"}


@pytest.fixture(scope="module")
def heteroscedastic(tmp_path_factory):
    """(model, loaded SavedModel) of a HetVxmDense."""
    model = random_weights(HetVxmDense((32, 32), **SMALL, variance_features=SMALL["nb_unet_features"]))
    return model, tf.saved_model.load(export_savedmodel(model, tmp_path_factory.mktemp("het")))


def test_heteroscedastic_model_has_one_more_signature(heteroscedastic):
    _, served = heteroscedastic
    names = {"serving_default", "register", "variance", "warp", "warp_nearest"}
    assert set(served.signatures) == names
    assert set(served.signatures["serving_default"].structured_outputs) == {"displacement", "moved"}
    assert set(served.signatures["serving_default"].structured_input_signature[1]) == {"moving", "fixed"}


@pytest.mark.quick("shape0-1")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(32, 32), (21, 37)])
def test_variance_equals_the_keras_model(heteroscedastic, shape, batch):
    model, served = heteroscedastic
    moving, fixed = images(shape, batch)
    expected = model.with_shape(shape).predict_all(moving, fixed)
    result = numpy_of(served.signatures["variance"](moving=moving, fixed=fixed))
    result |= numpy_of(served.signatures["register"](moving=moving, fixed=fixed))
    assert set(result) == {"displacement", "moved", "log_variance", "weight"}
    assert result["log_variance"].std() > 1e-2  # else the comparison would say nothing
    for name, value in result.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


# Versions


@pytest.mark.slow
def test_versions_count_up_and_leave_nothing_unfinished(plane, tmp_path):
    model, _, _ = plane
    (tmp_path / "notes").mkdir()
    assert export_savedmodel(model, tmp_path).name == "1"
    assert export_savedmodel(model, tmp_path, version=7).name == "7"
    assert export_savedmodel(model, tmp_path).name == "8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "7", "8", "notes"]


def test_a_version_is_never_overwritten(plane):
    model, _, folder = plane
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(FileExistsError, match="never overwritten"):
        export_savedmodel(model, folder.parent, version=int(folder.name))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("version", [-1, 1.5, "2", True])
def test_a_version_that_servers_cannot_read_is_refused(plane, tmp_path, version):
    with pytest.raises(ValueError, match="non-negative integer"):
        export_savedmodel(plane[0], tmp_path, version=version)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_no_version(plane, tmp_path, monkeypatch):
    def half_way(module, path, **_):
        with open(os.path.join(path, "saved_model.pb"), "w") as file:
            file.write("half")
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", half_way)
    with pytest.raises(OSError, match="disk full"):
        export_savedmodel(plane[0], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_displacement_is_refused(tmp_path):
    entry = keras.Input((8,))
    with pytest.raises(ValueError, match="expected a registration model"):
        export_savedmodel(keras.Model(entry, keras.layers.Dense(1)(entry)), tmp_path)


# Bad requests


def test_images_of_different_size_are_refused(plane):
    moving, fixed = images((32, 32))
    with pytest.raises(tf.errors.InvalidArgumentError, match="moving and fixed must have the same batch size"):
        plane[1].signatures["register"](moving=moving, fixed=fixed[:, :16])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_images_with_nan_are_refused_by_name(plane, role, bad):
    request = dict(zip(("moving", "fixed"), images((16, 16)), strict=True))
    request[role][0, 3, 3] = bad
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{role} has NaN or infinite"):
        plane[1].signatures["register"](**request)


def test_warp_refuses_one_image_for_many_displacements(plane):
    image, displacement = np.ones((1, 8, 8, 1), "float32"), np.zeros((3, 8, 8, 2), "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="same batch size"):
        plane[1].signatures["warp"](image=image, displacement=displacement)


# Other loaders


RUN_WITH_TENSORFLOW_ALONE = """
import sys
import warnings

for name in ("hetmorph", "voxelmorph", "neurite", "keras"):
    sys.modules[name] = None  # importing it fails as if it were not installed
import numpy as np
import tensorflow as tf

served = tf.saved_model.load(sys.argv[1])
request = np.load(sys.argv[2])
result = served.signatures["register"](moving=request["moving"], fixed=request["fixed"])
np.savez(sys.argv[3], **{name: value.numpy() for name, value in result.items()})
"""


def test_runs_where_only_tensorflow_can_be_imported(plane, tmp_path):
    model, _, folder = plane
    moving, fixed = images((24, 40))
    np.savez(tmp_path / "request.npz", moving=moving, fixed=fixed)
    command = [sys.executable, "-c", RUN_WITH_TENSORFLOW_ALONE, folder]
    subprocess.run([*command, tmp_path / "request.npz", tmp_path / "result.npz"], check=True, cwd=tmp_path)
    displacement = run_eagerly(model.with_shape((24, 40)), moving, fixed)[0]
    np.testing.assert_allclose(np.load(tmp_path / "result.npz")["displacement"], displacement, atol=1e-5)


def saved_graph(folder):
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].graph_def


def graph_nodes(folder):
    graph = saved_graph(folder)
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def test_graph_holds_stock_operations_only(exported):
    types = {node.op for node in graph_nodes(exported[2])}
    assert len(types) > 20
    assert not {op for op in types if "PyFunc" in op}
    functions = {op for op in types if op_def_registry.get(op) is None}
    assert functions == set()


def test_graph_holds_no_gradients(exported):
    """They made the file nearly twice as large, and loading three times as long."""
    names = [function.signature.name for function in saved_graph(exported[2]).library.function]
    assert names and not [name for name in names if "grad" in name]


def test_graph_is_bound_to_no_device(exported):
    # The saver pins itself to the host in every SavedModel; convolutions and gathers must be free to go to a GPU.
    pinned = {node.op for node in graph_nodes(exported[2]) if node.device}
    computing = {"Conv2D", "Conv3D", "GatherV2", "AddV2", "Mul", "ConcatV2", "LeakyRelu", "MatMul", "Floor"}
    assert not pinned & computing


@pytest.mark.slow
def test_runs_in_a_tensorflow_1_session(plane):
    model, _, folder = plane
    moving, fixed = images((17, 20))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = meta_graph.signature_def["register"]
        assert signature.method_name == "tensorflow/serving/predict"
        feed = {
            signature.inputs["moving"].name: moving,
            signature.inputs["fixed"].name: fixed,
        }
        result = session.run(signature.outputs["displacement"].name, feed)
        with pytest.raises(tf.errors.InvalidArgumentError, match="moving and fixed must have the same"):
            session.run(signature.outputs["displacement"].name, {**feed, signature.inputs["fixed"].name: fixed[:, :9]})
    np.testing.assert_allclose(result, run_eagerly(model.with_shape((17, 20)), moving, fixed)[0], atol=1e-5)


@pytest.mark.slow
def test_saved_model_cli_shows_the_signatures(plane):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--all", "--dir"]
    shown = subprocess.run([*command, plane[2]], capture_output=True, text=True, check=True).stdout
    for text in (
        "signature_def['register']",
        "inputs['vxm_dense_source_input']",
        "outputs['vxm_dense_flow_resize']",
        "Method name is: tensorflow/serving/predict",
    ):
        assert text in shown


def lite_of(converter):
    """What runs a model of TensorFlow Lite."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*tf\.lite\.Interpreter is deprecated.*")
        return tf.lite.Interpreter(model_content=converter.convert())


@pytest.mark.slow
def test_tensorflow_lite_runs_an_export_by_its_own_operations(tmp_path):
    """Any size from an export; a model of one size as it is, in any batch. Grids of 8 voxels made it fail."""
    model = random_weights(VxmDense((16, 16), nb_unet_features=[[4], [4, 4]], int_steps=1))
    moving, fixed = images((16, 16))
    folder = export_savedmodel(model, tmp_path)
    lite = lite_of(tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["register"]))
    found = lite.get_signature_runner("register")(moving=moving, fixed=fixed)["displacement"]
    np.testing.assert_allclose(found, model.register(moving, fixed), atol=1e-4)

    lite = lite_of(tf.lite.TFLiteConverter.from_keras_model(model))
    named = dict(zip(("vxm_dense_source_input", "vxm_dense_target_input"), (moving, fixed), strict=True))
    moved, _ = lite.get_signature_runner("serving_default")(**named).values()
    np.testing.assert_allclose(moved, model([moving, fixed], training=False)[0], atol=1e-4)


@pytest.mark.slow
def test_tensorflow_lite_does_not_find_the_weights_of_keras_models():
    """Of none: what it makes of a function and a model reads variables that nobody fills, as docs/deploying.md says."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    concrete = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec([1, 4]))
    found = tf.Module()
    found.weights = [variable.value for variable in model.variables]
    for holder, reads in ((model, True), (found, False)):
        lite = lite_of(tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder))
        assert ("READ_VARIABLE" in {one["op_name"] for one in lite._get_ops_details()}) is reads
