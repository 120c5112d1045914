"""Long axes in blocks, so that memory grows with a block of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


def in_blocks(function: Callable, rows: tf.Tensor, *others: tf.Tensor, most: int) -> tf.Tensor:
    """`function(rows, *others)` block by block, each computed again for its gradient instead of being kept.

    Args:
        function: takes `[B, n, C]` and the others and gives `[B, n, C]`, each row by itself; differentiable, also with
            respect to the variables that it reads.
        rows: `[B, length, C]`.
        others: what every row is computed of, differentiable too.
        most: rows of a block at most.

    Returns:
        `[B, length, C]`.
    """

    @tf.custom_gradient
    def apply(rows, *others):
        blocks = Blocks.of(rows, most)
        result = tf.map_fn(lambda some: function(some, *others), blocks.split(rows), parallel_iterations=1)

        def gradients(upstream, variables=()):
            parts, slopes = blocks.split(rows), blocks.split(upstream)
            shared = [*others, *(tf.convert_to_tensor(variable) for variable in variables)]

            def body(number, of_rows, *sums):
                some = parts[number]
                with tf.GradientTape() as tape:
                    tape.watch([some, *others])
                    found = function(some, *others)
                slope, *of_shared = tape.gradient(
                    found, [some, *others, *variables], slopes[number], unconnected_gradients="zero"
                )
                return of_rows.write(number, slope), *(total + one for total, one in zip(sums, of_shared, strict=True))

            empty = tf.TensorArray(rows.dtype, blocks.count, element_shape=parts.shape[1:])
            of_rows, *sums = repeated(blocks.count, body, (empty, *(tf.zeros_like(one) for one in shared)))
            return (blocks.joined(of_rows.stack()), *sums[: len(others)]), sums[len(others) :]

        return blocks.joined(result), gradients

    return apply(rows, *others)


def repeated(count: int | tf.Tensor, body: Callable, state: tuple) -> tuple:
    """The state after `body(number, *state)` for each number below a count, one after the other.

    Args:
        count: how often.
        body: what gives the next state.
        state: the first.
    """
    return tf.while_loop(
        lambda number, *_: number < count,
        lambda number, *state: (number + 1, *body(number, *state)),
        (tf.constant(0), *state),
        parallel_iterations=1,  # one block in memory
    )[1:]


class Blocks(NamedTuple):
    """An axis in blocks of equal size: Python numbers where the length is known, tensors elsewhere.

    Attributes:
        length: rows of the axis.
        count: blocks.
        size: rows of a block.
    """

    length: int | tf.Tensor
    count: int | tf.Tensor
    size: int | tf.Tensor

    @classmethod
    def of(cls, rows: tf.Tensor, most: int) -> Blocks:
        """Those of an axis, no larger than need be.

        Args:
            rows: `[B, length, C]`.
            most: rows of a block at most.
        """
        length = tf.shape(rows)[1] if rows.shape[1] is None else rows.shape[1]
        count = (length + most - 1) // most
        return cls(length, count, (length + count - 1) // count)

    @property
    def missing(self) -> int | tf.Tensor:
        """Rows that the last block lacks."""
        return self.count * self.size - self.length

    def split(self, rows: tf.Tensor, repeated: bool = False) -> tf.Tensor:
        """`[B, length, C]` as `[count, B, size, C]`, filled up with zeros or copies.

        Args:
            rows: the axis.
            repeated: fill up with copies of the last row.
        """
        # Nothing here has no rows: to ONNX, a size of 0 in a shape means another thing.
        if repeated:
            filled = tf.gather(rows, tf.minimum(tf.range(self.count * self.size), self.length - 1), axis=1)
        else:
            filled = tf.pad(rows, [[0, 0], [0, self.missing], [0, 0]])
        return tf.transpose(tf.reshape(filled, [-1, self.count, self.size, rows.shape[-1]]), [1, 0, 2, 3])

    def joined(self, blocks: tf.Tensor) -> tf.Tensor:
        """The inverse of `split`.

        Args:
            blocks: `[count, B, size, C]`.
        """
        rows = tf.reshape(tf.transpose(blocks, [1, 0, 2, 3]), [-1, self.count * self.size, blocks.shape[-1]])
        return rows[:, : self.length]
