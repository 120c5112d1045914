"""Axes in blocks: nothing is lost or added, whatever the length."""

import numpy as np
import pytest
import tensorflow as tf

from hetmorph.ops.blocks import Blocks


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("length", [1, 8, 9, 16])
def test_what_is_cut_is_joined(length, known):
    rows = np.random.default_rng(0).normal(size=(2, length, 3)).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec([2, length if known else None, 3])], autograph=False)
    def there_and_back(rows):
        blocks = Blocks.of(rows, 8)
        zeros, copies = blocks.split(rows), blocks.split(rows, repeated=True)
        return blocks.joined(zeros), blocks.joined(copies), zeros, copies

    back, again, zeros, copies = there_and_back(rows)
    np.testing.assert_array_equal(back, rows)
    np.testing.assert_array_equal(again, rows)
    count = -(-length // 8)
    assert zeros.shape == copies.shape == (count, 2, -(-length // count), 3)
    np.testing.assert_allclose(np.sum(zeros), np.sum(rows), rtol=1e-5)
    np.testing.assert_array_equal(copies[-1, :, -1], rows[:, -1])
