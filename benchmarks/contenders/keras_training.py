"""One update of a Keras registration model, as `fit` runs it."""

import numpy as np
import problem
import tensorflow as tf


def step(case: dict, model, losses):
    """Function that runs one update of a model with the paper's losses on a repeated batch."""
    options = {"jit_compile": case["jit_compile"]} if "jit_compile" in case else {}
    options |= {"steps_per_execution": case["updates"]} if "updates" in case else {}
    compile_with(model, losses, **options)
    return repeated(case, model, with_targets(problem.pair(case["shape"], case["batch"])))


def compile_with(model, losses, **options) -> None:
    """Compile a model with the paper's losses."""
    loss = [losses.MSE().loss, losses.Grad("l2", loss_mult=2).loss]
    model.compile(tf.keras.optimizers.Adam(1e-4), loss=loss, loss_weights=[1, 0.01], **options)


def with_targets(images) -> tuple:
    """A batch of a pair of images, and of what its outputs are compared with: the fixed image, no displacement."""
    batch, *sizes = images[1].shape[:-1]
    field = np.zeros((batch, *(size // 2 for size in sizes), len(sizes)), "float32")
    return images, (images[1], field)


def repeated(case: dict, model, batch):
    """Function that runs one update of a compiled model on a repeated batch."""
    if case["device"] == "gpu":
        return on_device(model, batch)
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    # Keras 2 returns the function, Keras 3 keeps it.
    update = model.make_train_function() or model.train_function
    return lambda: update(batches)


def on_device(model, batch):
    """Function that runs one update on a batch that stays in the device's memory; `trace` makes its graph before."""
    batch = tf.nest.map_structure(tf.constant, batch)
    model._maybe_symbolic_build(data_batch=(*batch, *[None] * (3 - len(batch))))  # these two as `fit` does
    model.make_train_function()

    @tf.function(autograph=False, jit_compile=model.jit_compile)
    def update(batch):
        return model.train_step(batch)

    def run():
        return update(batch)

    run.trace = lambda: update.get_concrete_function(batch)
    return run
