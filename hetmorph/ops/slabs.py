"""A chain of convolutions slab by slab, each computed again for its gradient: less memory for more time."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Slab(NamedTuple):
    """Rows of an image along its first spatial axis: computed from `low` to `high`, kept from `first` to `last`."""

    low: int
    first: int
    last: int
    high: int


def slabs(size: int, count: int, halo: int, multiple: int = 1) -> list[Slab]:
    """At most `count` slabs of about the same size, cut at multiples of `multiple`.

    Args:
        size: rows of the image.
        count: wanted number; fewer where a slab would be thinner than the halos of its neighbours.
        halo: rows that a kept row depends on, to either side.
        multiple: size of a voxel of the coarsest image, in rows.
    """
    halo = -(-halo // multiple) * multiple
    count = max(1, min(count, size // max(2 * halo + multiple, 1)))
    cuts = [multiple * (size // multiple * k // count) for k in range(count)] + [size]
    return [Slab(max(a - halo, 0), a, b, min(b + halo, size)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def in_slabs(function: Callable, coarse: tf.Tensor, fine: tf.Tensor, count: int, halo: int) -> tf.Tensor:
    """`function(coarse, fine)`, one slab of the first spatial axis after the other.

    Nothing inside `function` is kept for the gradient, which calls it again for each slab. Values and gradients are
    those of the whole up to rounding.

    Args:
        function: local, of `[B, *S, C]` and `[B, *(factor·S), D]` to `[B, *(factor·S), F]`; differentiable, also with
            respect to the variables it reads.
        coarse: image of which one voxel covers `factor` voxels of `fine` along each axis.
        fine: image; the size of its first spatial axis must be known.
        count: number of slabs.
        halo: rows of `fine` to either side that a row of the result depends on.
    """
    factor = fine.shape[1] // coarse.shape[1]
    parts = slabs(fine.shape[1], count, halo, factor)

    def cut(coarse, fine, slab, after):
        # One slab after the other, or all would be in memory at once. Only the cuts wait: control dependencies on what
        # reads variables would let TensorFlow's graph optimiser update them before they are read.
        with tf.control_dependencies(after):
            return coarse[:, slab.low // factor : slab.high // factor], fine[:, slab.low : slab.high]

    def kept(pair, slab):
        return function(*pair)[:, slab.first - slab.low : slab.last - slab.low]

    @tf.custom_gradient
    def apply(coarse, fine):
        results = []
        for slab in parts:
            results.append(kept(cut(coarse, fine, slab, results[-1:]), slab))

        def gradients(upstream, variables=()):
            of_coarse, of_fine, of_variables = [], [], [0.0] * len(variables)
            done = [upstream]
            for slab in parts:
                pair = cut(coarse, fine, slab, done)
                with tf.GradientTape() as tape:
                    tape.watch(pair)
                    result = kept(pair, slab)
                of_result, zero = upstream[:, slab.first : slab.last], tf.UnconnectedGradients.ZERO
                done = tape.gradient(result, [*pair, *variables], of_result, unconnected_gradients=zero)
                of_coarse.append(done[0])
                of_fine.append(done[1])
                of_variables = [total + part for total, part in zip(of_variables, done[2:], strict=True)]
            coarse_parts = [Slab(*(row // factor for row in slab)) for slab in parts]
            return (_joined(of_coarse, coarse_parts), _joined(of_fine, parts)), of_variables

        return tf.concat(results, axis=1), gradients

    return apply(coarse, fine)


def _joined(pieces: list[tf.Tensor], parts: list[Slab]) -> tf.Tensor:
    """Sum of pieces that overlap with the next one only, each put where its slab lies."""
    joined, done = [], 0
    for k, (piece, slab) in enumerate(zip(pieces, parts, strict=True)):
        following = parts[k + 1].low if k + 1 < len(parts) else slab.high
        joined.append(piece[:, done - slab.low : following - slab.low])
        if k + 1 < len(parts):
            overlap = slab.high - following
            joined.append(piece[:, following - slab.low :] + pieces[k + 1][:, :overlap])
        done = slab.high
    return tf.concat(joined, axis=1)
