"""One update of a Keras registration model, as `fit` runs it."""

import numpy as np
import problem
import tensorflow as tf


def step(case: dict, model, losses):
    """Function that runs one update of a model with the paper's losses on a repeated batch."""
    field = np.zeros((case["batch"], *(size // 2 for size in case["shape"]), len(case["shape"])), "float32")
    loss = [losses.MSE().loss, losses.Grad("l2", loss_mult=2).loss]
    options = {"jit_compile": case["jit_compile"]} if "jit_compile" in case else {}
    options |= {"steps_per_execution": case["updates"]} if "updates" in case else {}
    model.compile(tf.keras.optimizers.Adam(1e-4), loss=loss, loss_weights=[1, 0.01], **options)
    return repeated(case, model, field)


def repeated(case: dict, model, field=None):
    """Function that runs one update of a compiled model on a repeated batch; without a field, without targets."""
    moving, fixed = problem.pair(case["shape"], case["batch"])
    targets = () if field is None else ((fixed, field),)
    if case["device"] == "gpu":
        return on_device(model, ((moving, fixed), *targets))
    batches = iter(tf.data.Dataset.from_tensors(((moving, fixed), *targets)).repeat())
    # Keras 2 returns the function, Keras 3 keeps it.
    update = model.make_train_function() or model.train_function
    return lambda: update(batches)


def on_device(model, batch):
    """Function that runs one update on a batch that stays in the device's memory, as the batches of others do."""
    batch = tf.nest.map_structure(tf.constant, batch)

    @tf.function(autograph=False, jit_compile=model.jit_compile)
    def update(batch):
        return model.train_step(batch)

    return lambda: update(batch)
