"""Steps made of networks: what a network's numbers mean as a transform."""

import keras
import tensorflow as tf

from hetmorph.ops.affine import exponential
from hetmorph.ops.grid import spatial_shape
from hetmorph.steps.base import Step
from hetmorph.transforms import Affine, ContinuedDisplacement, Displacement, Transform, Velocity
from hetmorph.transforms.velocity import check_integration

BEYOND = {"edge": Displacement, "odd": ContinuedDisplacement}


class NetworkStep(Step):
    """What the steps of one network share.

    Args:
        network: Keras model of `[moving, fixed]`, or of one image; what it gives is said by the step.
        kwargs: further arguments of `keras.layers.Layer`.

    Attributes:
        asked: how many images its network takes.
        given: how many outputs its network has.
        recomputed: whether the network is run once more for its gradient, instead of keeping all that it computes on
            the way: less memory for more time.
    """

    asked = 2
    given = 1
    recomputed = False

    def __init__(self, network: keras.Model, **kwargs):
        super().__init__(**kwargs)
        if len(network.inputs) != self.asked or len(network.outputs) != self.given:
            words = (("one image", "two images")[self.asked - 1], ("one output", "two outputs")[self.given - 1])
            raise ValueError(
                f"expected a network of {' with '.join(words)}, received {len(network.inputs)} inputs and "
                f"{len(network.outputs)} outputs"
            )
        self.network = network

    def answer(self, *images, training=None) -> tf.Tensor | list[tf.Tensor]:
        """What the network gives, float32."""

        def run(*images):
            outputs = self.network(images[0] if self.asked == 1 else [*images], training=training)
            return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), outputs)

        return (tf.recompute_grad(run) if self.recomputed else run)(*images)


def check_beyond(beyond: str) -> str:
    """Refuse what is none of `BEYOND`.

    Args:
        beyond: how a displacement goes on outside its grid.
    """
    if beyond not in BEYOND:
        raise ValueError(f"expected beyond to be one of {', '.join(BEYOND)}, received {beyond!r}")
    return beyond


@keras.saving.register_keras_serializable("hetmorph")
class FieldStep(NetworkStep):
    """A network whose output is the displacement, `[B, *S, N]` voxels on the grid of the fixed image.

    Args:
        network: Keras model that takes `[moving, fixed]`.
        beyond: how the displacement goes on outside the image: "edge", as at the nearest voxel, or "odd", see
            `transforms.ContinuedDisplacement`.
    """

    invertible = False  # its inverse is searched point by point

    def __init__(self, network: keras.Model, beyond: str = "edge", **kwargs):
        super().__init__(network, **kwargs)
        self.beyond = check_beyond(beyond)

    def transform(self, moving, fixed, training=None) -> Displacement:
        return BEYOND[self.beyond](self.answer(moving, fixed, training=training))


class _Generated(NetworkStep):
    """A step whose transform is the exponential of what its network gives, so that negating that inverts it."""

    def generator(self, moving, fixed, training=None) -> tf.Tensor:
        """What is exponentiated."""
        return self.answer(moving, fixed, training=training)

    def exponential(self, generator, fixed) -> Transform:
        """The transform of a generator, for images like `fixed`."""
        raise NotImplementedError

    def transform(self, moving, fixed, training=None) -> Transform:
        return self.exponential(self.generator(moving, fixed, training), fixed)


@keras.saving.register_keras_serializable("hetmorph")
class VelocityStep(_Generated):
    """A network whose output is a stationary velocity, `[B, *S / spacing, N]`, voxels of its own grid.

    Args:
        network: Keras model that takes `[moving, fixed]`.
        int_steps: steps of the integration.
        spacing: voxels of the image for one voxel of the velocity.
        int_method: "squaring", or "midpoint" where both directions must be inverse to a thousandth of a voxel, see
            `transforms.Velocity`.
    """

    def __init__(
        self,
        network: keras.Model,
        int_steps: int = 7,
        spacing: float = 1.0,
        int_method: str = "squaring",
        **kwargs,
    ):
        super().__init__(network, **kwargs)
        if int_steps < 1 or not spacing > 0:
            raise ValueError(f"expected int_steps >= 1 and spacing > 0, received {int_steps} and {spacing}")
        check_integration(int_method, int_steps)
        self.int_steps, self.spacing, self.int_method = int_steps, spacing, int_method

    def exponential(self, generator, fixed) -> Velocity:
        return Velocity(generator, self.int_steps, self.spacing, self.int_method)


@keras.saving.register_keras_serializable("hetmorph")
class AffineStep(_Generated):
    """A network whose output, `[B, N·(N+1)]`, is the logarithm of an affine transform about the middle of the image.

    φ = exp(L), L = [A t; 0 0] in units of the longest side of the image: the identity at 0, and always with an inverse.

    Args:
        network: Keras model that takes `[moving, fixed]`.
        rigid: keep the part of A that rotates alone, A − Aᵀ.
    """

    def __init__(self, network: keras.Model, rigid: bool = False, **kwargs):
        super().__init__(network, **kwargs)
        self.rigid = rigid

    def exponential(self, generator, fixed) -> Affine:
        sizes = tf.cast(tf.stack(spatial_shape(fixed)), tf.float32)
        ndims = fixed.shape.rank - 2
        entries = tf.reshape(generator, [-1, ndims, ndims + 1])
        linear, shift = entries[..., :ndims], entries[..., ndims:]
        if self.rigid:
            linear = (linear - tf.linalg.matrix_transpose(linear)) / 2
        logarithm = tf.concat([tf.concat([linear, shift], -1), tf.zeros_like(entries[:, :1])], axis=1)
        matrix = exponential(logarithm)
        return Affine.about((sizes - 1) / 2, matrix[:, :ndims, :ndims], matrix[:, :ndims, ndims] * tf.reduce_max(sizes))
