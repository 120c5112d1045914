"""Does a registration agree with the one the other way round, and its parts with each other? No draws are needed."""

import time

import numpy as np

from hetmorph.evaluation import wrap
from hetmorph.io.geometry import grid_points
from hetmorph.transforms import Displacement
from hetmorph.uncertainty.draws import finite
from hetmorph.uncertainty.intensity import correlation, from_one
from hetmorph.uncertainty.result import NO_UNIT, VOXELS, UncertaintyMap

_STILL = 0.25  # voxels added to |u|: what hardly moves is not called incoherent for a few hundredths
_LEAST_VOTE = 1e-3  # of a voxel that matches nothing: some motion always fits


def inverse_uncertainty(model, moving, fixed) -> UncertaintyMap:
    """|φ_BA(φ_AB(x)) − x|: how far the registration the other way round is from undoing this one.

    Both are asked of the model, with the images exchanged. What a model gives as its own inverse (`Predictor.backward`)
    undoes its answer by construction, and says nothing. An error that both make alike is invisible.

    Args:
        model: anything `evaluation.wrap` takes.
        moving, fixed: `[*S]`, intensities in [0, 1].

    Returns:
        A map of two registrations, in voxels, on the fixed grid; where φ_AB leaves the moving image, the displacement
        at its border stands for what is outside.

    Raises:
        ValueError: images that do not fit, or a model that answers with NaN.

    Reference:
        Christensen, Johnson, IEEE Transactions on Medical Imaging 2001, doi:10.1109/42.932742.
    """
    start = time.perf_counter()
    predictor = wrap(model)
    moving, fixed = predictor.checked(moving, fixed)
    there, back = (
        Displacement(finite(predictor.displacements([a], [b])).astype(float))
        for a, b in ((moving, fixed), (fixed, moving))
    )
    shape = there.field.shape[1:-1]
    missed = np.asarray((back @ there).displacement(shape))[0].astype(np.float32)
    return UncertaintyMap(
        name="inverse",
        std=np.linalg.norm(missed, axis=-1),
        valid=np.ones(shape, bool),
        unit=VOXELS,
        count=None,
        n=1,
        passes=2,
        seconds=time.perf_counter() - start,
        variances=missed**2,
        covariance=missed[..., :, None] * missed[..., None, :],
    )


def incoherence_uncertainty(model, moving, fixed) -> UncertaintyMap:
    """|u − a| / (|u| + ¼), a the affine motion of the whole image that its well matched voxels agree on.

    Large where a part stays behind when everything round it moves. Voxels vote for a by how alike the moved and the
    fixed image are round them. One registration and one least squares fit; blind to what a single organ does in an
    image that is at rest, where u itself is small.

    Args:
        model: anything `evaluation.wrap` takes.
        moving, fixed: `[*S]`, intensities in [0, 1].

    Raises:
        ValueError: images that do not fit, or a model that answers with NaN.
    """

    def values(prediction, fixed):
        displacement = prediction.displacement.astype(np.float64)
        alike = np.maximum(correlation(prediction.moved, fixed), 0) ** 2 + _LEAST_VOTE
        off = np.linalg.norm(displacement - _affine_fit(displacement, alike), axis=-1)
        return off / (np.linalg.norm(displacement, axis=-1) + _STILL)

    return from_one("incoherence", model, moving, fixed, values, NO_UNIT)


def _affine_fit(displacement: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The displacement of the affine map that is nearest by weighted least squares, `[*S, N]`."""
    points = grid_points(weight.shape)
    terms = np.concatenate([np.ones((*weight.shape, 1)), points - points.mean(tuple(range(weight.ndim)))], -1)
    terms, values = (values.reshape(weight.size, -1) for values in (terms, displacement))
    weighted = terms * weight.reshape(-1, 1)
    return (terms @ np.linalg.solve(weighted.T @ terms, weighted.T @ values)).reshape(displacement.shape)
