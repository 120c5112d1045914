"""Filters that are matrices along each axis."""

import numpy as np

from hetmorph.ops import separable


def test_shrinking_keeps_voxels_where_they_are():
    ramp = np.broadcast_to(np.arange(17.0, dtype=np.float32)[:, None], (17, 9))[None, ..., None]
    small = separable.shrink(ramp, (4, 1)).numpy()
    assert small.shape == (1, 5, 9, 1)
    np.testing.assert_allclose(small[0, 1:-1, 0, 0], [4, 8, 12], atol=0.15)
    np.testing.assert_allclose(separable.hats([-1, 0.25, 9], 3).numpy() @ [0, 4, 8], [0, 1, 8])
