"""Images, noise and weights by numpy alone, the same for the script that runs the originals and for the tests."""

import numpy as np

NARROW = [4, 6, 8]
NARROW_UP = [8, 6, 4]
SIZE = (22, 19)


def images(shape, seed, count=2):
    """Smooth ones in [0, 1], `[count, *shape]`: sums of waves."""
    rng = np.random.RandomState(seed)
    grid = np.indices(shape).astype(float)
    result = []
    for _ in range(count):
        numbers, phases = rng.uniform(-0.5, 0.5, (8, len(shape))), rng.uniform(0, 2 * np.pi, 8)
        waves = [np.cos(np.tensordot(k, grid, 1) + phase) for k, phase in zip(numbers, phases, strict=True)]
        result.append((np.mean(waves, 0) + 1) / 2)
    return np.array(result, "float32")


def jitter(shape, seed=99):
    """Standard normal noise, `[N, *shape]`: the components come first, as in the originals."""
    return np.random.RandomState(seed).standard_normal((len(shape), *shape)).astype("float32")


def unet_weights(ndims, seed, encoder=(16, 32, 64, 256, 512), decoder=(256, 128, 64, 32, 16), last=0.1):
    """Arrays in Keras' layout: kernel and bias of each convolution down; up also the four of its normalisation."""
    rng = np.random.RandomState(seed)

    def convolution(width, inputs, outputs, scale=1.0, transposed=False):
        channels = (outputs, inputs) if transposed else (inputs, outputs)
        fan = inputs * width**ndims / (2**ndims if transposed else 1)
        kernel = rng.standard_normal((*[width] * ndims, *channels)) * (scale / np.sqrt(fan))
        return [kernel.astype("float32"), (0.1 * scale * rng.standard_normal(outputs)).astype("float32")]

    arrays, skips, inputs = [], [], 2
    for outputs in encoder:
        arrays += convolution(3, inputs, outputs)
        skips.append(inputs)
        inputs = outputs
    for outputs, skip in zip(decoder, reversed(skips), strict=True):
        arrays += convolution(4, inputs, outputs, transposed=True)
        normal, uniform = 0.1 * rng.standard_normal((3, outputs)), rng.uniform(0.5, 1.5, outputs)
        arrays += [x.astype("float32") for x in (1 + normal[0], normal[1], normal[2], uniform)]
        inputs = outputs + skip
    return arrays + convolution(3, inputs, ndims, last)


def matrix_weights(ndims, seed, features=(16, 32, 64, 128, 256, 512), units=300, last=0.3):
    """Arrays in Keras' layout: kernel and bias of each convolution and of the two dense layers."""
    rng, arrays = np.random.RandomState(seed), []
    shapes = [(*[3] * ndims, a, b) for a, b in zip((2, *features[:-1]), features, strict=True)]
    shapes += [(features[-1], units), (units, ndims * (ndims + 1))]
    for shape in shapes:
        scale = last if shape is shapes[-1] else 1.4
        arrays.append((rng.standard_normal(shape) * (scale / np.sqrt(np.prod(shape[:-1])))).astype("float32"))
        arrays.append((0.1 * scale * rng.standard_normal(shape[-1])).astype("float32"))
    return arrays


def shapes_drawn(seed, count):
    """What the originals draw for each image: centre, radius, angle, whether it is a triangle; all `[count]`."""
    rng = np.random.RandomState(seed)
    x, y, radius, angle, kind = (rng.random_sample((count, 1, 1)).ravel() for _ in range(5))
    return np.stack([x * 0.3 + 0.4, y * 0.3 + 0.4], 1), radius * 0.2 + 0.2, angle * 2 * np.pi, kind > 0.5
