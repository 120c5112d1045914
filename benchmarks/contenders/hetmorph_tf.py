"""hetmorph, from the clone this file lies in, or from that of HETMORPH_CLONE."""

import os
import sys
from pathlib import Path

import problem
import worker

sys.path.insert(0, os.environ.get("HETMORPH_CLONE") or str(Path(__file__).resolve().parents[2]))


def build(case: dict):
    return {"kernels": kernel, "train_step": train_step, "inference": inference}[case["benchmark"]](case)


def kernel(case: dict):
    import keras_kernels

    from hetmorph import layers, losses
    from hetmorph.ops.xla import compiled_kernels

    with compiled_kernels(case.get("xla", True)):
        if problem.augmented(case):
            return random_affine(case["ndims"])
        return keras_kernels.traced(case, layers, losses)


def random_affine(ndims: int):
    import tensorflow as tf

    from hetmorph.data.random_affine import SIDES, move_arrays, random_maps

    pairs = tf.concat([tf.constant(image) for image in problem.images(ndims)], -1)

    @tf.function(autograph=False)
    def function(pairs, *draws):
        return move_arrays(pairs, SIDES, random_maps(*draws, tuple(pairs.shape[1:-1]), 0.05))

    draws = [tf.constant(one) for one in problem.affine_draws(ndims)]
    function(pairs, *draws)
    return lambda: function(pairs, *draws)


def train_step(case: dict):
    import keras_training

    import hetmorph
    from hetmorph.networks import HetVxmDense, VxmDense

    if "config" in case:
        return keras_training.repeated(case, _configured(case), (problem.pair(case["shape"], case["batch"]),))
    if case["objective"] == "mse":
        model = VxmDense(case["shape"], **_arguments(case))
    else:
        model = HetVxmDense(case["shape"], variance_pass=case["objective"], **_arguments(case))
    return keras_training.step(case, model, hetmorph.losses)


def _configured(case: dict):
    """The compiled model of a training's configuration."""
    from hetmorph import config
    from hetmorph.networks.build import build as compiled

    return compiled(config.from_dict(case["config"]), case["shape"])


def inference(case: dict):
    import tensorflow as tf

    from hetmorph.networks import VxmDense
    from hetmorph.ops.xla import compiled_kernels

    moving, fixed = map(tf.constant, problem.pair(case["shape"], case["batch"]))
    model = VxmDense(case["shape"], **_arguments(case))
    if case["form"] == "predict":
        return lambda: model.predict_on_batch([moving, fixed])
    compiled = case["form"] == "compiled"

    @tf.function(autograph=False, jit_compile=compiled or None)
    def function(a, b):
        with compiled_kernels(compiled):
            return model([a, b], training=False)

    return lambda: function(moving, fixed)[0].numpy()


def _arguments(case: dict) -> dict:
    return {"precision": case.get("precision", "float32"), "slabs": case.get("slabs", 1)}


if __name__ == "__main__":
    worker.serve(build, "tensorflow")
