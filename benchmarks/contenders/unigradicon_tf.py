"""hetmorph's UniGradICON with the weights that the original has written: a registration, and one step on the pair."""

import sys
from pathlib import Path

import numpy as np
import problem
import worker

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def build(case: dict):
    import tensorflow as tf

    from hetmorph.convert import convert_unigradicon, read_checkpoint

    model = convert_unigradicon(read_checkpoint(Path(case["folder"]) / "checkpoint.trch"), case["shape"])
    images = [tf.constant(x) for x in problem.pair(case["shape"], 1)]
    return {"inference": inference, "step": step}[case["benchmark"]](case, model, images)


def inference(case: dict, model, images):
    from hetmorph.evaluation import wrap

    predictor = wrap(model)
    arrays = [image.numpy()[0, ..., 0] for image in images]

    path = Path(case["folder"]) / "ours.npy"

    def run():
        u = predictor.displacements([arrays[0]], [arrays[1]])[0]
        if not path.exists():
            np.save(path, u)
        return u

    return run


def step(case: dict, model, images):
    import keras
    import tensorflow as tf

    from hetmorph.losses import LNCC
    from hetmorph.objectives.terms import GradientInverseConsistency, Similarity
    from hetmorph.ops.xla import compiled_kernels

    terms = [Similarity(LNCC(5)), GradientInverseConsistency(1.5)]
    model.compile(keras.optimizers.Adam(2e-5), terms=terms)
    variables = model.trainable_variables
    model.optimizer.build(variables)

    @tf.function(autograph=False)
    def update(moving, fixed):
        with tf.GradientTape() as tape:
            play = model.play([moving, fixed], None, None, training=False)
            loss = tf.add_n([term.weight * tf.reduce_mean(term(play.registered)) for term in terms])
        model.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    def run():
        with compiled_kernels():
            return float(update(*images))

    return run


if __name__ == "__main__":
    worker.serve(build, "tensorflow")
