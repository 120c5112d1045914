"""Attention whose memory grows with a block of it, not with queries × keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from hetmorph.ops.blocks import Blocks, repeated


def attend(queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, block: int) -> tf.Tensor:
    """softmax(Q Kᵀ)·V, block by block: the matrix of all weights never exists.

    For each block of queries the keys pass by in blocks, with the largest logit and the sums so far (online softmax).
    For the gradient the blocks are computed again, from the logarithm of the whole sum that each query has kept. Values
    have no gradient.

    Args:
        queries: `[B, n, C]`.
        keys: `[B, m, C]`.
        values: `[m, D]`, the same for the whole batch.
        block: most queries, and most keys, at a time.

    Returns:
        `[B, n, D]`; exact up to rounding whatever the block.

    References:
        Milakov and Gimelshein, arXiv:1805.02867 (online softmax). Dao et al., NeurIPS 2022, arXiv:2205.14135 (blocks,
        and their recomputation).
    """
    values = tf.cast(values, queries.dtype)

    @tf.custom_gradient
    def apply(queries, keys):
        rows, columns = Blocks.of(queries, block), _Columns.of(keys, values, block)
        result, log_sum = tf.map_fn(
            lambda some: _attended(some, columns),
            rows.split(queries),
            fn_output_signature=(queries.dtype, queries.dtype),
            parallel_iterations=1,
        )

        def gradient(upstream):
            return _gradients(queries, keys, rows.joined(result), rows.joined(log_sum), upstream, rows, columns)

        return rows.joined(result), gradient

    result = apply(queries, keys)
    result.set_shape([queries.shape[0], queries.shape[1], values.shape[-1]])
    return result


class _Columns(NamedTuple):
    """Keys and values in blocks; what only fills up the last block counts 0."""

    blocks: Blocks
    keys: tf.Tensor  # [count, B, size, C]
    values: tf.Tensor  # [count, size, D + 1], the last entry 1 where a key counts, so that it sums up the weights

    @classmethod
    def of(cls, keys: tf.Tensor, values: tf.Tensor, most: int) -> _Columns:
        blocks = Blocks.of(keys, most)
        counted = tf.concat([values, tf.ones_like(values[:, :1])], 1)[None]
        # Copies of a key, not zeros, among which the largest logit might be one of none.
        return cls(blocks, blocks.split(keys, repeated=True), blocks.split(counted)[:, 0])

    def each(self, body: Callable, state: tuple) -> tuple:
        """The state after `body(number, keys, values, *state)` of one block after the other."""
        return repeated(
            self.blocks.count,
            lambda number, *state: body(number, self.keys[number], self.values[number], *state),
            state,
        )


def _attended(queries: tf.Tensor, columns: _Columns) -> tuple[tf.Tensor, tf.Tensor]:
    """Of a block of queries the result, `[B, q, D]`, and the logarithm of the sum of exp(logits), `[B, q, 1]`."""

    def body(_, keys, values, top, total):
        logits = tf.matmul(queries, keys, transpose_b=True)
        higher = tf.maximum(top, tf.reduce_max(logits, -1, keepdims=True))
        return higher, total * tf.exp(top - higher) + tf.matmul(tf.exp(logits - higher), values)

    nothing = tf.zeros_like(queries[..., :1])
    state = nothing - float("inf"), nothing + tf.zeros([columns.values.shape[-1]], queries.dtype)
    top, total = columns.each(body, state)
    return total[..., :-1] / total[..., -1:], top + tf.math.log(total[..., -1:])


def _gradients(queries, keys, result, log_sum, upstream, rows: Blocks, columns: _Columns) -> tuple:
    """Gradients of queries and keys: of logit s_ij with weight p_ij it is p_ij·(u_i·v_j − u_i·r_i)."""
    slopes = tf.concat([upstream, -tf.reduce_sum(upstream * result, -1, keepdims=True)], -1)
    parts = [rows.split(part) for part in (queries, slopes, log_sum)]

    def of_a_block(queries, slopes, log_sum):
        def body(number, keys, values, of_queries, of_keys):
            weights = tf.exp(tf.matmul(queries, keys, transpose_b=True) - log_sum)
            of_logits = weights * tf.matmul(slopes, values, transpose_b=True)  # 0 where a row only fills up
            of_queries += tf.matmul(of_logits, keys)
            return of_queries, of_keys.write(number, tf.matmul(of_logits, queries, transpose_a=True))

        state = tf.zeros_like(queries), _array(columns.keys)
        return columns.each(body, state)

    def body(number, of_queries, of_keys):
        of_block, more = of_a_block(*(part[number] for part in parts))
        return of_queries.write(number, of_block), of_keys + more.stack()

    of_queries, of_keys = repeated(rows.count, body, (_array(parts[0]), tf.zeros_like(columns.keys)))
    return rows.joined(of_queries.stack()), columns.blocks.joined(of_keys)


def _array(like: tf.Tensor) -> tf.TensorArray:
    """An array of tensors of the shape of those in `like`, as many."""
    count = tf.shape(like)[0] if like.shape[0] is None else like.shape[0]
    return tf.TensorArray(like.dtype, count, element_shape=like.shape[1:])
