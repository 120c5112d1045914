"""What every estimate of uncertainty returns: a map of standard deviations, and what else it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hetmorph.io import Grid, from_slices, write_image

VOXELS, INTENSITY, NO_UNIT = "voxels", "intensity", "no unit"


@dataclass(frozen=True, eq=False)
class UncertaintyMap:
    """Uncertainty of one registration at every voxel of the fixed grid.

    Attributes:
        name: the estimate.
        std: `[*S]` float32. Of a displacement: √(trace of the covariance), voxels; of an image's noise: intensity; of
            others a number that is larger where more is uncertain. NaN where not valid.
        valid: `[*S]` booleans.
        unit: "voxels", "intensity" or "no unit".
        count: `[*S]` draws in which a voxel took part; None where nothing is drawn.
        n: number of draws.
        passes: registrations it took.
        seconds: and the time.
        mean: `[*S, N]` voxels, mean displacement of the draws; NaN where not valid. None for others.
        variances: `[*S, N]` voxels², the diagonal of the covariance; likewise.
        covariance: `[*S, N, N]` voxels², or None where it was not asked for.
        intrinsic, jitter: `[*S]` voxels², the two terms whose sum `std` is the root of (`equivariance_uncertainty` with
            several samples): spread of the network for a given perturbation, and spread of its mean answer over
            perturbations.
    """

    name: str
    std: np.ndarray
    valid: np.ndarray
    unit: str
    count: np.ndarray | None
    n: int
    passes: int
    seconds: float
    mean: np.ndarray | None = None
    variances: np.ndarray | None = None
    covariance: np.ndarray | None = None
    intrinsic: np.ndarray | None = None
    jitter: np.ndarray | None = None

    @classmethod
    def stacked(cls, slices: Sequence[UncertaintyMap]) -> UncertaintyMap:
        """The maps of slices as that of the stack, whose last axis goes through them; without what is of the draws.

        Args:
            slices: maps of one kind and size.
        """
        std, valid = (np.stack([getattr(one, name) for one in slices], -1) for name in ("std", "valid"))
        variances = None if slices[0].variances is None else from_slices([one.variances for one in slices])
        alone = dict.fromkeys(("count", "mean", "covariance", "intrinsic", "jitter"))
        return replace(slices[0], std=std, valid=valid, variances=variances, **alone)

    @property
    def valid_share(self) -> float:
        """Share of the voxels that are valid."""
        return float(self.valid.mean())

    def std_mm(self, spacing) -> np.ndarray:
        """The standard deviation of a displacement in millimetres, `[*S]`.

        Args:
            spacing: millimetres per array axis, or an affine `(N + 1, N + 1)` from voxels to millimetres.

        Raises:
            ValueError: no displacement, a spacing that does not fit, or an affine with shears without the covariance.
        """
        if self.unit != VOXELS:
            raise ValueError(f"{self.name} is of {self.unit}, not of voxels, and has no millimetres")
        linear = _grid(self.std.shape, spacing).linear
        metric = linear.T @ linear
        if self.covariance is not None:
            return np.sqrt(np.einsum("...ij,ij->...", self.covariance, metric))
        if not np.allclose(metric, np.diag(np.diag(metric)), atol=1e-6 * metric.max()):
            raise ValueError("an affine with shears needs the whole covariance (covariance=True)")
        return np.sqrt(self.variances @ np.diag(metric))

    def save(self, path, spacing) -> None:
        """Write the map as NIfTI: millimetres of a displacement, else in its unit; the header says which.

        Args:
            path: as `hetmorph.io.write_image`, .nii.gz as a rule.
            spacing: millimetres per array axis, or the affine of the image.
        """
        in_mm = self.unit == VOXELS
        values = self.std_mm(spacing) if in_mm else self.std
        description = f"{self.name} std, {'mm' if in_mm else self.unit}"
        write_image(path, values, _grid(values.shape, spacing), np.float32, description)


def _grid(shape: tuple[int, ...], spacing) -> Grid:
    """The grid of an image of which millimetres per axis are known, or the affine."""
    affine, spacing, n = np.eye(4), np.asarray(spacing, float), len(shape)
    if spacing.shape == (n,):
        affine[:n, :n] = np.diag(spacing)
    elif spacing.shape == (n + 1, n + 1):
        affine[:n, :n], affine[:n, 3] = spacing[:-1, :-1], spacing[:-1, -1]
    else:
        raise ValueError(f"expected {n} spacings or an affine {(n + 1, n + 1)}, got shape {spacing.shape}")
    return Grid(shape, affine)


def from_moments(moments, name: str, passes: int, seconds: float, valid: np.ndarray, n: int, **terms) -> UncertaintyMap:
    """The map of a displacement's draws.

    Args:
        moments: `streaming.Moments` of the draws.
        valid: `[*S]` booleans.
        terms: `entries` in place of those of the moments; `intrinsic`, `jitter`.

    Raises:
        ValueError: no voxel is valid.
    """
    if not valid.any():
        raise ValueError(f"{name}: every voxel is masked, no point stays inside the image; choose smaller transforms")
    entries = terms.pop("entries", None)
    entries = moments.entries if entries is None else entries
    ndims, full = valid.ndim, len(moments.pairs) > valid.ndim
    matrix = np.full((*valid.shape, ndims, ndims) if full else (*valid.shape, ndims), np.nan, np.float32)
    for (i, j), entry in zip(moments.pairs, entries, strict=True):
        for place in {(i, j), (j, i)} if full else {(i,)}:
            matrix[(..., *place)] = np.where(valid, entry, np.nan)
    variances = np.ascontiguousarray(np.einsum("...ii->...i", matrix)) if full else matrix
    return UncertaintyMap(
        name=name,
        std=np.sqrt(variances.sum(-1)),
        valid=valid,
        unit=VOXELS,
        count=moments.count,
        n=n,
        passes=passes,
        seconds=seconds,
        mean=np.where(valid[..., None], moments.mean, np.nan).astype(np.float32),
        variances=variances,
        covariance=matrix if full else None,
        **{term: np.where(valid, values, np.nan).astype(np.float32) for term, values in terms.items()},
    )
