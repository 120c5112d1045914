"""Requests that TensorFlow Serving replays when it loads a model, so that the first real one is not slow."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from hetmorph.io import replacing
from hetmorph.serving.protos import tensorflow_serving

FILE = Path("assets.extra", "tf_serving_warmup_requests")
LIMIT = 1000  # of records; a server refuses to load a version with more


def write_warmup(folder: str | os.PathLike, sizes: Iterable[tuple[int, ...]]) -> Path:
    """Write one request for every signature and size into a SavedModel.

    A server reads the file when it loads the version; `export_savedmodel(warmup=…)` therefore writes it before the
    version appears under its name.

    Args:
        folder: where one version lies, holding `saved_model.pb`.
        sizes: spatial sizes that clients will send, such as `[(128, 128)]`, voxels. Requests hold one image of each.

    Returns:
        The file `assets.extra/tf_serving_warmup_requests`: TFRecord of PredictionLog.

    Raises:
        ImportError: tensorflow-serving-api is missing.
        ValueError: a size that the model does not take, no size, or too many records.

    Reference:
        https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    predict_pb2, log_pb2 = tensorflow_serving("predict_pb2", "prediction_log_pb2")
    records = []
    for size in sizes:
        for name, signature in signature_defs(folder).items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = name
            for key, image in _inputs(signature, tuple(size)).items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(image))
            log = log_pb2.PredictionLog(predict_log=log_pb2.PredictLog(request=request))
            records.append(log.SerializeToString())
    if not 0 < len(records) <= LIMIT:
        raise ValueError(f"expected 1 to {LIMIT} warm-up requests, received sizes for {len(records)}")
    path = Path(folder, FILE)
    with replacing(path) as part, tf.io.TFRecordWriter(str(part)) as writer:
        for record in records:
            writer.write(record)
    return path


def read_warmup(folder: str | os.PathLike) -> list:
    """The PredictRequests of a SavedModel's warm-up file; none without a file.

    Args:
        folder: where one version lies.
    """
    (log_pb2,) = tensorflow_serving("prediction_log_pb2")
    path = Path(folder, FILE)
    if not path.exists():
        return []
    logs = (log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path)))
    return [log.predict_log.request for log in logs]


def meta_graph(folder: str | os.PathLike):
    """The MetaGraphDef of a SavedModel, without loading it."""
    return saved_model_pb2.SavedModel.FromString(Path(folder, "saved_model.pb").read_bytes()).meta_graphs[0]


def signature_defs(folder: str | os.PathLike) -> dict:
    """{name: SignatureDef} of a SavedModel, without loading it."""
    signatures = meta_graph(folder).signature_def
    return {name: signatures[name] for name in sorted(signatures) if name != "__saved_model_init_op"}


def _inputs(signature, size: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A random value for every input: images and displacements of this size, whatever else with sizes of 1."""
    rng = np.random.default_rng(0)
    values = {}
    for name, info in signature.inputs.items():
        known = [dim.size for dim in info.tensor_shape.dim]
        wanted = [1, *size, known[-1]] if len(known) == len(size) + 2 else known
        shape = [max(dim, 1) for dim in wanted]
        if any(k not in (-1, n) for k, n in zip(known, shape, strict=True)) or (len(known) > 2 and wanted is known):
            raise ValueError(f"input {name} of the model is {known} (-1: any), which images of size {size} do not fit")
        values[name] = rng.random(shape).astype(tf.as_dtype(info.dtype).as_numpy_dtype)
    return values
