"""The exponential of matrices; what affine matrices do on grids is tested with the layers."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from hetmorph.ops import affine


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0])
def test_the_exponential_is_scipys(rng, scale):
    matrices = rng.normal(scale=scale, size=(4, 4, 4))
    expected = np.stack([scipy.linalg.expm(matrix) for matrix in matrices])
    found = affine.exponential(tf.constant(matrices, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())
