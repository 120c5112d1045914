"""Transforms by networks of coordinates, and their inverses. Of tensors alone: TensorFlow is imported here."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hetmorph.ops.blocks import in_blocks
from hetmorph.transforms.arrays import as_points, is_tensor, sample
from hetmorph.transforms.base import Transform

BLOCK = 2**15  # points of which a network is asked at once: of each it keeps some two thousand numbers on the way
_SEARCHED = 2**13  # points whose preimages are searched for at once
_ITERATIONS = 40
_TOLERANCE = 1e-4  # voxels, about what float32 can tell of a large volume's


class Codes(NamedTuple):
    """What a network of coordinates knows of a pair of images.

    Attributes:
        shared: `[B, G]`, of the pair as a whole.
        local: `[B, *L, C]` on a coarse grid that divides the image into equal cells, each code in the middle of one.
    """

    shared: tf.Tensor
    local: tf.Tensor

    def at(self, places: tf.Tensor) -> tf.Tensor:
        """The codes at places of the cube, those of the grid linear between their middles.

        Args:
            places: `[B, P, N]`, from −1 to 1 along each axis.

        Returns:
            `[B, P, G + C]`.
        """
        sizes = tf.cast(tf.shape(self.local)[1:-1], tf.float32)
        local = sample(self.local, ((places + 1) * sizes - 1) / 2)
        batch, count = tf.unstack(tf.shape(places)[:2])
        return tf.concat([tf.broadcast_to(self.shared[:, None], [batch, count, self.shared.shape[-1]]), local], -1)


class Implicit(Transform):
    """φ(x) = x + u(x; z(x)), u a network of coordinates and z the codes of a pair of images.

    No grid is stored: the transform is evaluated at any points, and is as smooth as its network. Places are told to the
    network in the cube from −1, the first voxel, to 1, the last, and so is what it gives.

    Many points are taken in blocks, of which a gradient computes everything once more instead of keeping it: with the
    points grows the memory for their coordinates alone. It is made of tensors, also where points are arrays.

    Args:
        network: Keras model that takes `[places, codes]`, `[B, P, N]` and `[B, P, G + C]`, and gives u, `[B, P, N]`.
        codes: codes of the pairs.
        shape: sizes of the voxel grid that points are told in.

    Raises:
        ValueError: codes on another number of axes than the grid's, or of different numbers of pairs.

    Reference:
        Tian et al., NePhi: neural deformation fields for approximately diffeomorphic medical image registration,
        ECCV 2024, arXiv:2309.07322.
    """

    def __init__(self, network: Callable, codes: Codes, shape):
        self.network, self.codes, self.shape, self.ndims = network, codes, tuple(shape), len(shape)
        self.arrays = tuple(codes)
        shared, local = codes.shared.shape, codes.local.shape
        if shared.rank != 2 or local.rank != self.ndims + 2 or not shared[:1].is_compatible_with(local[:1]):
            raise ValueError(
                f"expected codes [B, G] and [B, *L, C] of equally many pairs, L of {self.ndims} axes, received shapes "
                f"{shared} and {local}"
            )

    def __call__(self, points):
        points = self._of_each_pair(points)
        flat, count = self._flat(points), points.shape[1:-1].num_elements()
        few = count is not None and count <= BLOCK
        moved = self._moved(flat, *self.codes) if few else in_blocks(self._moved, flat, *self.codes, most=BLOCK)
        return tf.reshape(moved, tf.shape(points))

    def jacobian(self, points, step: float = 1e-3):
        """∂φ_i/∂x_j at points, `[B, *T, N, N]`, exact; gradients pass, through what the points depend on too.

        Args:
            points: `[B, *T, N]`.
            step: as of other transforms; not needed here.
        """
        return differentiated(self, self._of_each_pair(points))

    def inverse(self) -> "InverseImplicit":
        """Searched point by point; exact up to rounding where nothing folds. Without gradients."""
        return InverseImplicit(self)

    def _moved(self, points: tf.Tensor, *codes: tf.Tensor) -> tf.Tensor:
        """φ of `[B, P, N]`, all at once."""
        half = (tf.cast(tf.stack(self.shape), tf.float32) - 1) / 2
        places = points / tf.maximum(half, 0.5) - 1
        return points + half * tf.cast(self.network([places, Codes(*codes).at(places)]), tf.float32)

    def _of_each_pair(self, points) -> tf.Tensor:
        """Points `[B, *T, N]` for each of the codes; a batch of one meets any."""
        points = self._checked(points, *self.arrays)
        given = tf.shape(points)[0]
        return tf.repeat(points, tf.maximum(tf.shape(self.codes.shared)[0], given) // given, axis=0)

    def _flat(self, points: tf.Tensor) -> tf.Tensor:
        return tf.reshape(points, [tf.shape(points)[0], -1, self.ndims])


def differentiated(transform: Transform, points: tf.Tensor) -> tf.Tensor:
    """∂φ_i/∂x_j of a transform made of tensors, by differentiation.

    Each point is asked for once for each component, so that one gradient gives them all.

    Args:
        transform: φ.
        points: `[B, *T, N]`, of as many samples as the transform.

    Returns:
        `[B, *T, N, N]`; gradients pass, through what the points depend on too.
    """
    points = tf.cast(points, tf.float32)
    ndims = points.shape[-1]
    copies = tf.stack([points] * ndims, axis=1)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        moved = transform(copies)
        each = tf.add_n([moved[:, component, ..., component] for component in range(ndims)])
    return tf.stack(tf.unstack(tape.gradient(each, copies), axis=1), axis=-2)


class InverseImplicit(Transform):
    """The inverse of an `Implicit`: each point is searched for by Newton steps, halved where they lead away.

    Args:
        forward: the transform whose inverse it is.

    Attributes:
        residual: what the last call left, `[B, *T]`: how far from each point the forward transform takes what was
            found, voxels. Not next to 0 only where the forward transform folds.
    """

    def __init__(self, forward: Implicit):
        self.forward, self.ndims, self.residual = forward, forward.ndims, None

    def __call__(self, points):
        asked, points = points, self.forward._of_each_pair(points)
        flat = self.forward._flat(points).numpy()
        parts = [self._searched(flat[:, i : i + _SEARCHED]) for i in range(0, flat.shape[1], _SEARCHED)]
        found, residual = (np.concatenate(one, axis=1) for one in zip(*parts, strict=True))
        self.residual = residual.reshape(points.shape[:-1])
        found = found.reshape(points.shape)
        return as_points(found, asked) if is_tensor(asked) else found.astype(np.float64)

    def inverse(self) -> Implicit:
        """The forward transform."""
        return self.forward

    def _searched(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Solves φ(x) = y for `[B, P, N]`: x, and the residuals `[B, P]`."""
        found = 2 * targets - self.forward(targets).numpy()
        error = self.forward(found).numpy() - targets
        residual, share = np.linalg.norm(error, axis=-1), np.ones(targets.shape[:-1])
        for _ in range(_ITERATIONS):
            if residual.max(initial=0) <= _TOLERANCE:
                break
            slope = self.forward.jacobian(found).numpy().astype(np.float64)
            step = np.linalg.pinv(slope) @ error[..., None].astype(np.float64)
            tried = found - (share[..., None] * step[..., 0]).astype(np.float32)
            missed = self.forward(tried).numpy() - targets
            distance = np.linalg.norm(missed, axis=-1)
            better = distance < residual
            found, error = (np.where(better[..., None], *ways) for ways in ((tried, found), (missed, error)))
            residual, share = np.where(better, distance, residual), np.where(better, 1.0, share / 2)
        return found, residual
