"""The velocity of a displacement."""

import numpy as np
import tensorflow as tf
from scipy import optimize

from hetmorph.ops import fields


def logarithm(displacement: np.ndarray, steps: int = 7, iterations: int = 100) -> np.ndarray:
    """The stationary velocity whose integral comes nearest to a displacement: argmin_v ‖exp(v) − u‖².

    The usual iterations v ← v + (exp(−v)∘φ − id) amplify what varies from voxel to voxel; a descent does not. What is
    no integral of a velocity, such as a field that folds, gets one that comes near.

    Args:
        displacement: u, `[B, *S, N]`, voxels.
        steps: squarings of the integration, as of `ops.fields.integrate`.
        iterations: at most so many steps of L-BFGS.

    Returns:
        v, `[B, *S, N]` float32, voxels per unit time.
    """
    target = tf.constant(displacement, tf.float32)

    @tf.function(autograph=False)
    def value_and_gradient(velocity):
        with tf.GradientTape() as tape:
            tape.watch(velocity)
            value = 0.5 * tf.reduce_sum(tf.square(fields.integrate(velocity, steps) - target))
        return value, tape.gradient(value, velocity)

    def evaluate(flat: np.ndarray):
        value, gradient = value_and_gradient(tf.constant(flat.reshape(target.shape), tf.float32))
        return float(value), gradient.numpy().ravel().astype(np.float64)

    start = np.asarray(displacement, np.float64).ravel()
    found = optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return found.x.reshape(target.shape).astype(np.float32)
