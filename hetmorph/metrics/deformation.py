"""How plausible a displacement field is, and how far it is from the true one.

The Jacobian determinant comes from `ops.fields.jacobian_determinant`: central differences, one-sided at the
borders. Central differences overlook folds of the finest, checkerboard kind.
"""

import numpy as np

from hetmorph.ops.fields import cell_determinant, jacobian_determinant
from hetmorph.ops.points import displace

MINIMUM_DETERMINANT = 1e-9


def folds_percent(displacement) -> float:
    """Percentage of voxels at which the map x + u(x) folds, that is det(I + ∇u) ≤ 0.

    Args:
        displacement: `[*S, N]` in voxels, N = number of spatial axes, at least 2 voxels per axis.

    Returns:
        Between 0 and 100.

    Raises:
        ValueError: shape does not fit, or values that are not finite.

    Example:
        >>> folds_percent(np.zeros([8, 8, 2]))
        0.0
    """
    return deformation_scores(displacement)["folds_percent"]


def deformation_scores(displacement) -> dict[str, float]:
    """`folds_percent` and `sdlogj` of a displacement whose determinants are computed once.

    Arguments and errors as `folds_percent`.
    """
    return scores_of_determinant(_determinant(displacement))


def scores_of_determinant(determinant: np.ndarray) -> dict[str, float]:
    """The same of Jacobian determinants.

    Args:
        determinant: `[*S]`.
    """
    logarithm = np.log(np.maximum(determinant, MINIMUM_DETERMINANT))
    return {"folds_percent": 100.0 * float(np.mean(determinant <= 0)), "sdlogj": float(logarithm.std())}


def fold_mask(displacement) -> np.ndarray:
    """Where the map x + u(x) folds: `[*S]` booleans, det(I + ∇u) ≤ 0. Arguments and errors as
    `folds_percent`."""
    return _determinant(displacement) <= 0


def flips(displacement) -> int:
    """Number of cells of the grid that the map x + u(x) turns over, see `ops.fields.cell_determinant`.

    There are ∏(S − 1) cells. Arguments and errors as `folds_percent`.

    Reference:
        Greer et al., ICON: learning regular maps through inverse consistency, ICCV 2021, arXiv:2105.04459.
    """
    field = _checked_field(displacement).astype(np.float64)
    return int(np.count_nonzero(cell_determinant(field[None]) < 0))


def sdlogj(displacement) -> float:
    """Standard deviation over all voxels of log det(I + ∇u): how unevenly volume changes.

    Determinants are raised to 1e-9 before the logarithm, so that a fold counts as a very strong, finite,
    compression (the convention of Learn2Reg).

    Arguments and errors as `folds_percent`.

    Reference:
        Hering et al., Learn2Reg, IEEE TMI 2023, doi:10.1109/TMI.2022.3213983.
    """
    return deformation_scores(displacement)["sdlogj"]


def endpoint_error(displacement, truth, mask=None) -> float:
    """Mean Euclidean distance between a displacement and the true one, in voxels.

    Args:
        displacement: `[*S, N]` in voxels.
        truth: same shape.
        mask: `[*S]` booleans, voxels to average over. None takes all; an empty mask gives NaN.
    """
    displacement, truth = _checked_field(displacement), _checked_field(truth)
    if displacement.shape != truth.shape:
        raise ValueError(f"displacements must have the same shape, got {displacement.shape} and {truth.shape}")
    error = np.linalg.norm(displacement - truth, axis=-1)
    error = error if mask is None else error[np.asarray(mask, dtype=bool)]
    return float(error.mean()) if error.size else float("nan")


def target_error(displacement, points_fixed, points_moving, spacing=None) -> float:
    """Mean distance of landmarks after registration: of x + u(x) from where the same point lies in the moving image.

    Args:
        displacement, points_fixed, points_moving: as of `target_offsets`; errors likewise.
        spacing: length of a voxel along each axis, in the unit of the distance; None measures in voxels.
    """
    offsets = target_offsets(displacement, points_fixed, points_moving)
    return mean_length(offsets if spacing is None else offsets * np.asarray(spacing))


def target_offsets(displacement, points_fixed, points_moving) -> np.ndarray:
    """How far landmarks are off after registration, `[P, N]` voxels.

    Args:
        displacement: `[*S, N]` in voxels.
        points_fixed: `[P, N]` voxels, in the fixed image.
        points_moving: the same points in the moving image.

    Raises:
        ValueError: points that do not belong together, or to another dimension.
    """
    field = _checked_field(displacement)
    fixed, moving = (np.asarray(points, np.float32) for points in (points_fixed, points_moving))
    if fixed.shape != moving.shape or fixed.ndim != 2 or fixed.shape[1] != field.shape[-1] or not fixed.size:
        raise ValueError(
            f"expected as many points [P, {field.shape[-1]}] of either image, received {fixed.shape} and {moving.shape}"
        )
    return displace(fixed[None], field[None])[0].numpy() - moving


def mean_length(vectors) -> float:
    """Mean Euclidean length of vectors.

    Args:
        vectors: `[…, N]`.
    """
    return float(np.linalg.norm(vectors, axis=-1).mean())


def _determinant(displacement) -> np.ndarray:
    return jacobian_determinant(_checked_field(displacement)[None])[0].numpy().astype(np.float64)


def _checked_field(displacement) -> np.ndarray:
    field = np.asarray(displacement, dtype=np.float32)
    ndims = field.ndim - 1
    if not 1 <= ndims <= 3 or field.shape[-1] != ndims or min(field.shape[:-1]) < 2:
        raise ValueError(
            "expected a displacement [*grid, N] with N = 1, 2 or 3 grid axes of at least 2 voxels, "
            f"got shape {field.shape}"
        )
    if not np.isfinite(field).all():
        raise ValueError(f"displacement holds {np.count_nonzero(~np.isfinite(field))} values that are not finite")
    return field
