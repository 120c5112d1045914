"""What the memory traffic alone costs: a copy of as many bytes as an operation must at least move."""

import itertools

import numpy as np
import problem
import worker

BUFFER = 2**28  # bytes, far more than any cache


def bytes_moved(case: dict) -> int:
    """Inputs read once and outputs written once; for the gradients the same again."""
    ndims, operation = case["ndims"], case["operation"]
    scan, fine, half = (a.nbytes for a in (problem.image(ndims), problem.field(ndims), problem.field(ndims, True)))
    if problem.augmented(case):
        return 4 * scan  # two images
    if problem.window_of(case):
        return (3 if case["backward"] else 2) * scan  # two images, and the gradient of one
    forward = {"warp": 2 * scan + fine, "integrate": 2 * half, "compose": 3 * half, "resize": half + fine}[operation]
    return 2 * forward if case["backward"] else forward


def build(case: dict):
    # A copy reads and writes: half as many bytes copied are as many moved.
    size = max(bytes_moved(case) // 2 // 4, 1)
    source = np.ones(BUFFER // 4 + size, "float32")
    target = np.ones_like(source)  # written once: a first copy would be timed with the pages' allocation
    starts = itertools.cycle(range(0, BUFFER // 4, size))

    def copy():
        # Each time another part of the buffers, which no cache holds.
        start = next(starts)
        np.copyto(target[start : start + size], source[start : start + size])

    return copy


if __name__ == "__main__":
    worker.serve(build)
