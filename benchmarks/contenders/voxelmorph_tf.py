"""voxelmorph 0.2 on TensorFlow: under Keras 2, or, with `compat`, under Keras 3 through hetmorph."""

import sys
from pathlib import Path

import worker


def build(case: dict):
    if case.get("compat"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from hetmorph.voxelmorph.original import vxm
    else:
        import voxelmorph as vxm

    if case["benchmark"] == "kernels":
        import keras_kernels

        return keras_kernels.traced(case, vxm.layers, vxm.losses)
    if case["benchmark"] == "inference":
        import problem
        import tensorflow as tf

        moving, fixed = map(tf.constant, problem.pair(case["shape"], case["batch"]))
        model = vxm.networks.VxmDense(case["shape"])
        function = tf.function(lambda a, b: model([a, b], training=False))
        return lambda: function(moving, fixed)[0].numpy()
    import keras_training

    return keras_training.step(case, vxm.networks.VxmDense(case["shape"]), vxm.losses)


if __name__ == "__main__":
    worker.serve(build, "tensorflow")
