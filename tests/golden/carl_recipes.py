"""Sizes and weights of the encoders of CARL, the same for the script that runs the originals and for the tests."""

import numpy as np

FEATURES = 8  # of 128, and of uniCARL's 384
SIZE = (38, 33)  # of the whole network
VOLUME = (9, 8, 10)  # of the attention alone
SQUARE = (24, 24)  # of the turned one
LAYOUT = (62, 70)  # of uniCARL's
SIGMAS = (3, 2)


def encoder_weights(ndims, seed, dilations=3, first=((3, 1, FEATURES),)):
    """Arrays in Keras' layout, layer by layer: kernel and bias of a convolution, the four of a normalisation.

    `first`: width, inputs and outputs of the convolutions before the three blocks, which have `dilations` each.
    """
    rng = np.random.RandomState(seed)

    def convolution(width, inputs, outputs):
        kernel = rng.standard_normal((*[width] * ndims, inputs, outputs)) * np.sqrt(2 / (inputs * width**ndims))
        return [kernel.astype("float32"), (0.1 * rng.standard_normal(outputs)).astype("float32")]

    arrays = [part for shape in first for part in convolution(*shape)]
    for _ in range(3):
        normal, uniform = 0.1 * rng.standard_normal((3, FEATURES)), rng.uniform(0.5, 1.5, FEATURES)
        arrays += [x.astype("float32") for x in (1 + normal[0], normal[1], 0.3 + normal[2], uniform)]
        for _ in range(dilations):
            arrays += convolution(3, FEATURES, FEATURES)
    return arrays


HALVED = (2, 1, FEATURES // 4), (2, FEATURES // 4, FEATURES)  # the first convolutions of uniCARL


def turns():
    """Two matrices [A | t] about the middle of a square, in units of its side: rotations and a little shear."""
    rng, result = np.random.RandomState(4), []
    for angle in (0.7, -2.1):
        matrix = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]
        result.append(matrix + 0.03 * rng.standard_normal((2, 3)))
    return np.array(result, "float32")
