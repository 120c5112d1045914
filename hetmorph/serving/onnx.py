"""Registration models as ONNX files, for onnxruntime and other runtimes that know nothing of TensorFlow."""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from hetmorph.evaluation.predictor import whole_answer
from hetmorph.io.atomic import write_bytes
from hetmorph.serving import protos
from hetmorph.serving.export import input_names, of_size

TOLERANCE = 1e-3  # voxels of a displacement, and as much of every other output


def export_onnx(
    model: keras.Model, path: str | os.PathLike, size: tuple[int, ...] | None = None
) -> dict[str, float] | None:
    """Write a model as one ONNX file, and compare its answers with the model's where onnxruntime is installed.

    Inputs are `moving` and `fixed` `[B, *S, C]`, float32 in [0, 1]; outputs `displacement` `[B, *S, N]`, in voxels on
    the grid of the fixed image, direction moved(x) = moving(x + u(x)), and `moved`; of a model that registers both
    ways `backward`, of one with a variance network `log_variance` and `weight`. The batch is free. Further inputs, and
    those of a model with `input_model`, keep their own names. ONNX has no assertions: NaN and images of different
    grids are not refused, as they are by a SavedModel.

    Args:
        model: as for `export_savedmodel`.
        path: file to write, `.onnx`; its folder is made if missing.
        size: spatial size of the images; None leaves it free.

    Returns:
        By output, the largest difference from the model on random smooth images, displacements in voxels; None where
        onnxruntime is not installed, and nothing was compared.

    Raises:
        FileExistsError: the file is there already.
        ImportError: without tf2onnx.
        ValueError: a path of another kind of file, a size that the model does not take, a model without displacement
            or with operations that ONNX does not have, or answers that differ. Nothing is written then.

    Example:
        >>> export_onnx(model, "heart.onnx")
        >>> session = onnxruntime.InferenceSession("heart.onnx")
        >>> [displacement] = session.run(["displacement"], {"moving": moving, "fixed": fixed})

    Reference:
        https://onnx.ai
    """
    path, served, converter = Path(path), check_target(model, path, size), protos.tf2onnx()
    function, specs = _graph(served)
    content = _converted(converter, function, specs).SerializeToString()
    differences = _differences(function, specs, content) if importlib.util.find_spec("onnxruntime") else None
    write_bytes(path, content)
    return differences


def check_target(model: keras.Model, path: str | os.PathLike, size: tuple[int, ...] | None) -> keras.Model:
    """The model of the size to be written; an error where `export_onnx` would refuse before it converts.

    Args:
        model, path, size: as for `export_onnx`.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"expected a file that ends in .onnx, received {path}")
    if path.exists():
        raise FileExistsError(f"{path} exists; exports are never overwritten, choose another name")
    return of_size(model, size)


def _graph(model: keras.Model) -> tuple[Callable, list[tf.TensorSpec]]:
    """Everything a model answers, as a graph function of its named inputs, and their specifications."""
    specs = [
        tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    ]
    whole = keras.Model(model.inputs, whole_answer(model))
    return tf.function(lambda *images: whole([*images], training=False), input_signature=specs, autograph=False), specs


def _erfc(graph, node, name, args) -> None:
    """The complementary error function, of which Keras' exact GELU is made and which tf2onnx does not know."""
    shapes, types, outputs = node.output_shapes, node.output_dtypes, node.output
    source = node.input[0]
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}_one", np.ones([], np.float32)).output[0]
    error = graph.make_node("Erf", [source], shapes=shapes, dtypes=types).output[0]
    graph.make_node("Sub", [one, error], name=name, outputs=outputs, shapes=shapes, dtypes=types)


_CONVERTERS = {"Erfc": (_erfc, [])}  # of operations that tf2onnx does not know


def _converted(converter, function: Callable, specs: list[tf.TensorSpec], converters: dict = _CONVERTERS):
    """The ONNX model of a graph function; ValueError if it needs what ONNX does not have."""
    import onnx

    with _silenced("tf2onnx"):
        model, _ = converter.convert.from_function(function, specs, custom_op_handlers=dict(converters))
    _without_defaults(model.graph)
    absent = {node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)}
    if absent:
        raise ValueError(
            f"expected operations that ONNX has, received a model with {', '.join(sorted(absent))}"
            + ("; a given size may do without" if None in specs[0].shape[1:] else "")
        )
    known = function.get_concrete_function().structured_outputs
    for value in (*model.graph.input, *model.graph.output):
        _name_sizes(value, known.get(value.name))
    return model


def _without_defaults(graph) -> None:
    """Inputs that have a value of their own become constants: they are no images, and onnxruntime warns of each."""
    given = {constant.name for constant in graph.initializer}
    images = [value for value in graph.input if value.name not in given]
    del graph.input[:]
    graph.input.extend(images)


def _name_sizes(value, known: tf.Tensor | None) -> None:
    """Sizes of an input or output as TensorFlow knows them, the free ones by name."""
    sizes = value.type.tensor_type.shape.dim
    for axis, size in enumerate(sizes):
        if known is not None and known.shape[axis]:
            size.dim_value = known.shape[axis]
        elif not size.dim_value:
            size.dim_param = f"size_{axis}" if axis else "batch"


def _differences(function: Callable, specs: list[tf.TensorSpec], content: bytes) -> dict[str, float]:
    """Largest difference of each output between onnxruntime and TensorFlow; ValueError above the tolerance."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = _random_inputs(specs)
    found = dict(zip(names, session.run(names, {s.name: x for s, x in zip(specs, inputs, strict=True)}), strict=True))
    expected = {name: value.numpy() for name, value in function(*inputs).items()}
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise ValueError(f"expected {name} of shape {value.shape} from onnxruntime, received {found[name].shape}")
    differences = {name: float(np.abs(found[name] - value).max()) for name, value in expected.items()}
    for name, difference in differences.items():
        if not difference <= TOLERANCE:  # NaN is above it
            raise ValueError(
                f"expected the model's {name} from onnxruntime to {TOLERANCE:g}, received one that differs by "
                f"{difference:.2g}; nothing was written"
            )
    return differences


def _random_inputs(specs: list[tf.TensorSpec]) -> list[np.ndarray]:
    """Smooth images in [0, 1], of an odd size where it is free; further inputs uniform in [0, 1]."""
    rng, rank = np.random.default_rng(0), specs[0].shape.rank
    batch = 2 if rank == 4 else 1  # volumes may be as large as memory
    made = []
    for spec in specs:
        free = (33, 38, 35) if spec.shape.rank == rank else (1, 1, 1)
        shape = [batch, *(n or free[axis % 3] for axis, n in enumerate(spec.shape[1:]))]
        values = rng.random(shape)
        if spec.shape.rank == rank:
            values = ndimage.gaussian_filter(values, [0, *[2] * (rank - 2), 0])
            values = (values - values.min()) / (np.ptp(values) or 1)
        made.append(values.astype(spec.dtype.as_numpy_dtype))
    return made


@contextlib.contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Leave out what a logger says: what matters of it is found again, and told in one line."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
