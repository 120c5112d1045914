"""VoxelMorph's affine layers: registered, reloadable, and in float32 whatever the policy.

Matrices are `[B, N, N+1]` and act on voxel coordinates. A rotation in half precision moves the corner of a 200-voxel
image by a tenth of a voxel, and cannot be inverted at all, so that every layer computes in float32.
"""

import keras
import tensorflow as tf

from hetmorph.ops import affine
from hetmorph.voxelmorph.original import vxm


def _float32(kwargs: dict) -> dict:
    return {**kwargs, "dtype": "float32"}


def _check_matrix(shape) -> None:
    """Raises ValueError unless `shape` ends in (2, 3) or (3, 4)."""
    if tuple(shape[-2:]) not in ((2, 3), (3, 4)):
        raise ValueError(f"expected affine matrices [B, 2, 3] or [B, 3, 4], got shape {tuple(shape)}")


@keras.saving.register_keras_serializable("hetmorph")
class AddIdentity(vxm.layers.AddIdentity):
    """Add the identity to an affine matrix `[B, N, N+1]`, or to its `[B, 6]` or `[B, 12]` entries.

    A network that predicts small numbers then predicts a transform close to no transform.
    """

    def __init__(self, **kwargs):
        super().__init__(**_float32(kwargs))

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        flat = {(6,): 2, (12,): 3}
        if shape in flat:
            self.ndims = flat[shape]
        else:
            _check_matrix(input_shape)
            self.ndims = shape[0]
        self.built = True

    def call(self, transform):
        matrix = tf.reshape(transform, [-1, self.ndims, self.ndims + 1])
        return matrix + tf.eye(self.ndims, self.ndims + 1, dtype=matrix.dtype)

    def compute_output_shape(self, input_shape):
        ndims = {6: 2, 12: 3}[input_shape[1]] if len(input_shape) == 2 else input_shape[1]
        return (input_shape[0], ndims, ndims + 1)


@keras.saving.register_keras_serializable("hetmorph")
class InvertAffine(vxm.layers.InvertAffine):
    """Inverse of an affine transform, `[B, N, N+1]`."""

    def __init__(self, **kwargs):
        super().__init__(**_float32(kwargs))

    def build(self, input_shape):
        _check_matrix(input_shape)
        self.built = True

    def call(self, matrix):
        return tf.linalg.inv(affine.square(matrix))[:, :-1]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@keras.saving.register_keras_serializable("hetmorph")
class ParamsToAffineMatrix(vxm.layers.ParamsToAffineMatrix):
    """Affine matrix from translations (voxels), rotations, scalings and shears, in this order.

    Args:
        ndims: 2 or 3.
        deg: whether rotations are in degrees; radians otherwise.
        shift_scale: add 1 to the scalings, for a network whose zero output shall mean no scaling.
        last_row: return the square matrix `[B, N+1, N+1]`.

    Inputs `[B, P]` with P at most 6 (2-D) or 12 (3-D); what is missing is taken from the identity.

    Reference:
        Hoffmann et al., IEEE TMI 2022, doi:10.1109/TMI.2021.3116879.
    """

    def __init__(self, ndims=3, deg=True, shift_scale=False, last_row=False, **kwargs):
        if ndims not in (2, 3):
            raise ValueError(f"ndims must be 2 or 3, got {ndims}")
        super().__init__(ndims, deg, shift_scale, last_row, **_float32(kwargs))

    def build(self, input_shape):
        most = self.ndims * (self.ndims + 1)
        if len(input_shape) != 2 or input_shape[-1] > most:
            raise ValueError(f"expected [B, at most {most}] parameters of a {self.ndims}-D affine, got {input_shape}")
        self.built = True


@keras.saving.register_keras_serializable("hetmorph")
class AffineToDenseShift(vxm.layers.AffineToDenseShift):
    """Displacement `[B, *shape, N]` in voxels of an affine matrix on a grid: A·x − x.

    Args:
        shape: spatial size of the grid.
        shift_center: whether the affine acts about the centre of the grid instead of its first voxel.
    """

    def __init__(self, shape, shift_center=True, **kwargs):
        kwargs.pop("ndims", None)  # part of configurations that voxelmorph wrote, and refused to read
        super().__init__([int(size) for size in shape], shift_center=shift_center, **_float32(kwargs))

    def build(self, input_shape):
        _check_matrix(input_shape)
        self.built = True

    def call(self, matrix):
        return affine.to_displacement(matrix, self.shape, self.shift_center)

    def get_config(self):
        config = super().get_config()
        del config["ndims"]
        return config
