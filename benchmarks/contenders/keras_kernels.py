"""The operations as Keras layers, for whichever library has them under VoxelMorph's names."""

import problem
import tensorflow as tf


def traced(case: dict, layers, losses):
    """The case as a tf.function that has run once; None of an operation that there is no layer of."""
    if problem.augmented(case):
        return None
    if problem.window_of(case):
        return _local_correlation(case, losses)
    ndims = case["ndims"]
    half = problem.field(ndims, coarse=True)
    layer, inputs = {
        "warp": lambda: (layers.SpatialTransformer(), [problem.image(ndims), problem.field(ndims)]),
        "integrate": lambda: (layers.VecInt(int_steps=problem.STEPS), [half]),
        "compose": lambda: (layers.ComposeTransform(), [half, half]),
        "resize": lambda: (layers.RescaleTransform(2), [half]),
    }[case["operation"]]()
    inputs = [tf.constant(x) for x in inputs]
    layer(inputs if len(inputs) > 1 else inputs[0])

    def forward(*tensors):
        return layer(list(tensors) if len(tensors) > 1 else tensors[0])

    def backward(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = tf.reduce_sum(
                tf.square(forward(*tensors))
            )  # not ** 2: the gradient of a power takes as long as a warp
        return tape.gradient(loss, tensors)

    function = tf.function(backward if case["backward"] else forward)
    function(*inputs)
    return lambda: function(*inputs)


def _local_correlation(case: dict, losses):
    """The mean over the images, and its gradient with respect to the moved one."""
    fixed, moved = map(tf.constant, problem.images(case["ndims"]))
    loss = losses.NCC(problem.window_of(case)).loss

    def forward(fixed, moved):
        return tf.reduce_mean(loss(fixed, moved))

    def backward(fixed, moved):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            value = forward(fixed, moved)
        return tape.gradient(value, moved)

    function = tf.function(backward if case["backward"] else forward)
    function(fixed, moved)
    return lambda: function(fixed, moved)
