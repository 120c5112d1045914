"""A SavedModel that hetmorph exported, run by TensorFlow alone."""

import problem
import tensorflow as tf
import worker


def build(case: dict):
    register = tf.saved_model.load(case["saved_model"]).signatures["register"]
    moving, fixed = map(tf.constant, problem.pair(case["shape"], case["batch"]))
    return lambda: register(moving=moving, fixed=fixed)["moved"].numpy()


if __name__ == "__main__":
    worker.serve(build, "tensorflow")
