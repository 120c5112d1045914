"""Registration models as SavedModels that need nothing but TensorFlow to run."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import tensorflow as tf

from hetmorph.evaluation.predictor import whole_answer
from hetmorph.networks import VxmDense
from hetmorph.ops.warp import warp
from hetmorph.serving.protos import tensorflow_serving
from hetmorph.serving.warmup import write_warmup

# Functions of gradients would be three quarters of the functions, and make loading three times as long.
NO_GRADIENTS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)


def export_savedmodel(
    model: keras.Model,
    directory: str | os.PathLike,
    version: int | None = None,
    warmup: Iterable[tuple[int, ...]] = (),
) -> Path:
    """Write `directory/<version>/`, which `tf.saved_model.load` or TensorFlow Serving runs without this library.

    Batch and spatial sizes are free. Images are `[B, *S, C]` float32 in [0, 1]; a displacement is `[B, *S, N]` in
    voxels on the grid of the fixed image and pulls: moved(x) = moving(x + u(x)). Signatures:

    - `register`: `moving`, `fixed` → `displacement`, `moved`, and of a model that registers in both directions
      `backward`, the displacement on the grid of the moving image that takes the fixed image to it.
    - `serving_default`: the same. For a VxmDense, inputs and outputs have the names that its export under Keras 2
      had (`vxm_dense_source_input`, … → `vxm_dense_transformer`, …), so that existing clients go on working.
    - `variance`, of a model with a variance network: `moving`, `fixed` → `displacement`, `moved` (and `backward`),
      `log_variance` (log σ_I²), `weight`, the last two `[B, *S, C]`; one request for all, which one version answers.
    - `warp` (linear), `warp_nearest`: `image` of any number of channels, `displacement` → `moved`.

    Further inputs of a model, such as hyperparameters, keep their own names. A model with `input_model` keeps the
    size and the input names of that model. Inference is deterministic: with `use_probs` the mean is taken. A request
    with NaN or infinite voxels, or with images that differ in batch or grid, fails with an error that says so.
    What was exported answers and is not trained further: for gradients keep the `.keras` file.

    Args:
        model: a VxmDense, or a model with its `references` and `with_shape`.
        directory: folder of all versions of this model; made if missing.
        version: folder name, a non-negative integer; None for one above the largest there is.
        warmup: spatial sizes that TensorFlow Serving registers when it loads the version; see `write_warmup`.

    Returns:
        The folder written. It appears under its name only when complete.

    Raises:
        ValueError: a model without displacement, or a version that is no non-negative integer.
        FileExistsError: the version is there already.
        ImportError: `warmup` without tensorflow-serving-api.

    Example:
        >>> export_savedmodel(model, "saved_models/heart")
        PosixPath('saved_models/heart/1')
        >>> served = tf.saved_model.load("saved_models/heart/1")
        >>> served.signatures["register"](moving=moving, fixed=fixed)["displacement"]

    Reference:
        https://www.tensorflow.org/guide/saved_model
    """
    directory = Path(directory)
    target = directory / str(_version(directory, version))
    if target.exists():
        raise FileExistsError(f"{target} exists; versions are never overwritten, choose another or leave it out")
    if warmup := list(warmup):
        tensorflow_serving("prediction_log_pb2")  # now, not after the minute that saving takes
    served = of_size(model)
    module = tf.Module()
    module.weights = [variable.value for variable in served.variables]
    directory.mkdir(parents=True, exist_ok=True)
    # A server polls `directory` for integer names: the temporary one is none.
    unfinished = tempfile.mkdtemp(prefix=".unfinished-", dir=directory)
    try:
        tf.saved_model.save(module, unfinished, signatures=_signatures(served), options=NO_GRADIENTS)
        if warmup:
            write_warmup(unfinished, warmup)
        os.chmod(unfinished, 0o755)  # mkdtemp makes it private; a server often runs as another user
        os.rename(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _version(directory: Path, version: int | None) -> int:
    if version is None:
        taken = [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]
        return max(taken, default=0) + 1
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise ValueError(f"version must be a non-negative integer, as servers expect, got {version!r}")
    return version


def of_size(model: keras.Model, size: tuple[int, ...] | None = None) -> keras.Model:
    """The model of a spatial size, in float32; itself where its sizes are bound to an `input_model`.

    Args:
        model: a registration model.
        size: the size of its images, None for any.
    """
    references = getattr(model, "references", None)
    if getattr(references, "pos_flow", None) is None or getattr(references, "y_source", None) is None:
        raise ValueError(
            f"expected a registration model with references.pos_flow and .y_source, got {type(model).__name__}"
        )
    ndims = references.pos_flow.shape[-1]
    size = (None,) * ndims if size is None else tuple(size)
    if len(size) != ndims:
        raise ValueError(f"expected a size of {ndims} axes, as the model's images have, received {size}")
    if _has_input_model(model):
        if any(n not in (None, own) for n, own in zip(size, model.inshape, strict=True)):
            raise ValueError(f"expected the size of the model's input_model, {model.inshape}, received {size}")
        return model
    # bfloat16 pays on processors that compute with it; what serves the model may be another one.
    network = getattr(references, "model", model)
    precision = {"precision": "float32"} if network.get_config().get("precision") else {}
    return model.with_shape(size, **precision)


def input_names(model: keras.Model) -> list[str]:
    """What clients call the inputs: `moving`, `fixed`, and others by their own names, as all of an `input_model`.

    Args:
        model: a registration model.
    """
    names = [tensor.name for tensor in model.inputs]
    return names if _has_input_model(model) else ["moving", "fixed", *names[2:]]


def _has_input_model(model: keras.Model) -> bool:
    return model.get_config().get("input_model") is not None


def _signatures(model: keras.Model) -> dict[str, Callable]:
    answer, ndims = whole_answer(model), model.references.pos_flow.shape[-1]
    names = input_names(model)
    of_register = {name: x for name, x in answer.items() if name in ("displacement", "moved", "backward")}
    register = _endpoint(keras.Model(model.inputs, of_register), names)
    signatures = {
        "serving_default": register,
        "register": register,
        "warp": _warp_endpoint(ndims, "linear"),
        "warp_nearest": _warp_endpoint(ndims, "nearest"),
    }
    if hasattr(model.references, "full_model"):
        signatures["variance"] = _endpoint(keras.Model(model.inputs, answer), names)
    elif isinstance(model, VxmDense):
        outputs = dict(zip(model.output_keys, model.outputs, strict=True))
        own_names = [tensor.name for tensor in model.inputs]
        signatures["serving_default"] = _endpoint(keras.Model(model.inputs, outputs), own_names)
    return signatures


def _endpoint(model: keras.Model, names: list[str]) -> Callable:
    """A signature function of a model with a dictionary of outputs; its inputs get `names`."""
    specs = {
        name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
        for name, tensor in zip(names, model.inputs, strict=True)
    }
    images = [name for name, spec in specs.items() if spec.shape.rank == len(model.inputs[0].shape)]

    @tf.function(input_signature=[specs], autograph=False)
    def endpoint(inputs):
        _assert_same_grid({name: inputs[name] for name in images})
        return model([_finite(inputs[name], name) for name in names], training=False)

    return endpoint


def _warp_endpoint(ndims: int, method: str) -> Callable:
    grid = [None] * ndims
    specs = {
        "image": tf.TensorSpec([None, *grid, None], tf.float32, "image"),
        "displacement": tf.TensorSpec([None, *grid, ndims], tf.float32, "displacement"),
    }

    @tf.function(input_signature=[specs], autograph=False)
    def endpoint(inputs):
        image, displacement = inputs["image"], _finite(inputs["displacement"], "displacement")
        tf.debugging.assert_equal(
            tf.shape(image)[0],
            tf.shape(displacement)[0],
            message="image and displacement must have the same batch size",
        )
        return {"moved": warp(image, displacement, method)}

    return endpoint


def _finite(tensor: tf.Tensor, name: str) -> tf.Tensor:
    return tf.debugging.assert_all_finite(tensor, f"{name} has NaN or infinite values")


def _assert_same_grid(images: dict[str, tf.Tensor]) -> None:
    (name, image), *others = images.items()
    for other_name, other in others:
        tf.debugging.assert_equal(
            tf.shape(image)[:-1],
            tf.shape(other)[:-1],
            message=f"{name} and {other_name} must have the same batch size and spatial sizes [batch, *grid]",
        )
