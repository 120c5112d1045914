"""Layers of implicit deformations: places as waves, sines instead of rectifiers, images as a few cells."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from hetmorph.configured import Configured
from hetmorph.ops import separable
from hetmorph.ops.grid import spatial_shape


@keras.saving.register_keras_serializable("hetmorph")
class FourierFeatures(Configured, keras.layers.Layer):
    """Places as waves of random directions and lengths: `[..., N]` to `[..., 2·waves]`, [sin 2πxB, cos 2πxB].

    B is drawn from a normal distribution when the layer is made, and stays: a weight that is not trained.

    Args:
        waves: how many.
        scale: standard deviation of B; of places from −1 to 1, waves of two over a length of 1/scale.
        seed: seed of B; None draws another one in each layer.
        kwargs: further arguments of `keras.layers.Layer`.

    Reference:
        Tancik et al., Fourier features let networks learn high frequency functions in low dimensional domains,
        NeurIPS 2020, arXiv:2006.10739.
    """

    def __init__(self, waves: int = 128, scale: float = 1.0, seed: int | None = None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if waves < 1 or not scale > 0:
            raise ValueError(f"expected waves >= 1 and scale > 0, received {waves} and {scale}")
        self.waves, self.scale, self.seed = waves, scale, seed

    def build(self, input_shape):
        self.directions = self.add_weight(
            shape=(input_shape[-1], self.waves),
            initializer=keras.initializers.RandomNormal(0.0, self.scale, self.seed),
            trainable=False,
            name="directions",
        )

    def call(self, places):
        angles = 2 * math.pi * tf.matmul(places, self.directions)
        return tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2 * self.waves)


@keras.saving.register_keras_serializable("hetmorph")
class Sines(Configured, keras.layers.Dense):
    """A dense layer with a sine, sin(ω·(x·W + b)), and initial weights that keep the values spread through many.

    Args:
        units: how many.
        frequency: ω.
        first: whether its input is no such layer's: its initial weights are then up to 1/inputs, else √(6/inputs)/ω.
        kwargs: further arguments of `keras.layers.Layer`.

    Reference:
        Sitzmann et al., Implicit neural representations with periodic activation functions, NeurIPS 2020,
        arXiv:2006.09661.
    """

    def __init__(self, units: int, frequency: float = 30.0, first: bool = False, **kwargs):
        super().__init__(units, **{**kwargs, "dtype": "float32"})
        if not frequency > 0:
            raise ValueError(f"expected a frequency > 0, received {frequency}")
        self.frequency, self.first = frequency, first

    def build(self, input_shape):
        count = input_shape[-1]
        most = 1 / count if self.first else math.sqrt(6 / count) / self.frequency
        self.kernel_initializer = keras.initializers.RandomUniform(-most, most)
        self.bias_initializer = keras.initializers.RandomUniform(-(count**-0.5), count**-0.5)
        super().build(input_shape)

    def call(self, inputs):
        return tf.sin(self.frequency * super().call(inputs))


@keras.saving.register_keras_serializable("hetmorph")
class Cells(Configured, keras.layers.Layer):
    """An image of any size on equally many voxels along each axis, the first and the last where they were; linear.

    Args:
        count: voxels along each axis.
        kwargs: further arguments of `keras.layers.Layer`.

    `[B, *S, C]` → `[B, count, …, count, C]`.
    """

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        if count < 1:
            raise ValueError(f"expected count >= 1, received {count}")
        self.count = count

    def call(self, image):
        sizes = [tf.convert_to_tensor(size) for size in spatial_shape(image)]
        places = [tf.linspace(0.0, tf.cast(size - 1, tf.float32), self.count) for size in sizes]
        result = separable.multiply(image, [separable.hats(*one) for one in zip(places, sizes, strict=True)])
        return tf.ensure_shape(result, self.compute_output_shape(image.shape))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *[self.count] * (len(input_shape) - 2), input_shape[-1])


@keras.saving.register_keras_serializable("hetmorph")
class CodeTable(Configured, keras.layers.Layer):
    """Codes of some pairs of images as weights: what an encoder predicts, free to be optimised.

    Args:
        cells: number of cells of the grid of local codes, `(*L)`.
        pairs: how many.
        shared, local: numbers of the code of a pair, and of each local one.
        kwargs: further arguments of `keras.layers.Layer`.

    Called with a tensor of as many samples as there are pairs, which says no more. Returns `[pairs, shared]` and
    `[pairs, *cells, local]`, drawn at first from normal distributions of variance 1/shared and 1/local.

    Raises:
        ValueError: no cells or pairs, or samples of other pairs than the codes'.

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322.
    """

    def __init__(self, cells: Sequence[int], pairs: int = 1, shared: int = 32, local: int = 32, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if min(*cells, pairs, shared, local) < 1:
            raise ValueError(f"expected cells, pairs and codes >= 1, received {cells}, {pairs}, {shared} and {local}")
        self.cells, self.pairs, self.shared, self.local = tuple(cells), pairs, shared, local

    def build(self, input_shape):
        for name, shape in (("of_pair", (self.shared,)), ("of_places", (*self.cells, self.local))):
            normal = keras.initializers.RandomNormal(0.0, shape[-1] ** -0.5)
            setattr(self, name, self.add_weight(shape=(self.pairs, *shape), initializer=normal, name=name))

    def call(self, images):
        if images.shape[0] not in (None, self.pairs):
            raise ValueError(f"expected the {self.pairs} pairs that these codes belong to, received {images.shape[0]}")
        with tf.control_dependencies(
            [tf.debugging.assert_equal(tf.shape(images)[0], self.pairs, "codes of other pairs")]
        ):
            return tf.identity(self.of_pair), tf.identity(self.of_places)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.shared), (input_shape[0], *self.cells, self.local)
