"""The numbers every contender gets: the same in all environments. numpy only."""

import numpy as np

KERNEL_SHAPES = {2: (8, 128, 128), 3: (1, 96, 96, 96)}
STEPS = 7


def image(ndims: int, coarse: bool = False) -> np.ndarray:
    """`[B, *S, 1]`, smooth structure with noise, in [0, 1]; the coarse one has half the voxels along each axis."""
    batch, *sizes = _shape(ndims, coarse)
    waves = sum(np.sin(x / 7 + k) for k, x in enumerate(np.meshgrid(*map(np.arange, sizes), indexing="ij")))
    noise = np.random.default_rng(0).normal(size=(batch, *sizes), scale=0.1)
    return (0.5 + 0.1 * (waves + noise))[..., None].astype("float32")


def images(ndims: int) -> tuple[np.ndarray, np.ndarray]:
    """Two of them `[B, *S, 1]`, the second a little brighter and moved by two voxels."""
    first = image(ndims)
    return first, 1.1 * np.roll(first, 2, axis=1)


def augmented(case: dict) -> bool:
    """Whether the operation is that of a stream of training pairs, not of a network."""
    return case["operation"] == "random affine"


def affine_draws(ndims: int) -> tuple[np.ndarray, np.ndarray]:
    """Random numbers of a batch: `[B, N]` from 0 to 1, by which axes change places, `[B, 2, N, N + 1]` normal ones."""
    rng, batch = np.random.default_rng(0), _shape(ndims, False)[0]
    numbers = rng.random((batch, ndims)), rng.normal(size=(batch, 2, ndims, ndims + 1))
    return tuple(one.astype("float32") for one in numbers)


def window_of(case: dict) -> int | None:
    """Side of the window of the operation "local correlation, SIDE"; None of any other."""
    name, _, side = case["operation"].partition(", ")
    return int(side) if name == "local correlation" else None


def field(ndims: int, coarse: bool = False) -> np.ndarray:
    """`[B, *S, N]`, a smooth field with vectors of up to 4 voxels."""
    batch, *sizes = _shape(ndims, coarse)
    grid = np.meshgrid(*map(np.arange, sizes), indexing="ij")
    components = [4 * np.prod([np.sin(x / 11 + d + k) for k, x in enumerate(grid)], axis=0) for d in range(ndims)]
    return np.repeat(np.stack(components, -1)[None], batch, 0).astype("float32")


def _shape(ndims: int, coarse: bool) -> tuple[int, ...]:
    batch, *sizes = KERNEL_SHAPES[ndims]
    return (batch, *(size // 2 if coarse else size for size in sizes))


def pair(shape: list[int], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Moving and fixed image `[B, *shape, 1]`: a blurred ball, and a smaller one beside it."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), -1)

    def ball(centre, radius):
        distance = np.linalg.norm(grid - centre, axis=-1)
        return 1 / (1 + np.exp((distance - radius) * 12))

    images = [ball(0.0, 0.5), ball(0.08, 0.4)]
    noise = np.random.default_rng(1)
    return tuple(
        np.repeat((x + noise.normal(size=shape, scale=0.02))[None, ..., None], batch, 0).astype("float32")
        for x in images
    )
