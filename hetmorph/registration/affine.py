"""A rigid, similarity or affine stage that brings two images near before a model sees them.

A model finds what lies a few voxels away. What the patient's place on the table, another scanner or another size makes
of the images is larger, and the same everywhere: it is found first, in the world of the headers.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np

from hetmorph.data.normalise import minmax
from hetmorph.evaluation import RegistrationFailed
from hetmorph.io import Chain, DataError, DataWarning, Grid, Image, Transform, itk, matched_grid, resample
from hetmorph.io.chain import Linear
from hetmorph.io.geometry import index_map
from hetmorph.registration.linear_search import KINDS, METRICS, NEEDS, Level, levels, search
from hetmorph.registration.linear_starts import STARTS, best_of, further, starts_of

_SCORES = {"mi": "normalised mutual information", "correlation": "squared correlation"}
_TAILS = (0.1, 99.9)  # percentiles; what is beyond would leave few bins of the histogram to all the rest
_MARGIN = 0.25  # of a volume that is sampled through a displacement, part of the extent


@dataclass(frozen=True, eq=False)
class Alignment:
    """What the affine stage found.

    Attributes:
        initial: fixed to moving, what a model shall see the moving image through; after an earlier transform, both.
        linear: the same, if the earlier transform was linear, too; else what comes before it.
        kind, metric: one each of `KINDS` and `METRICS`.
        start: "header", "centre", "turned or shifted" with a number, or "initial": from where it found this.
        before, after: how alike the fixed image is to the moving one as the headers, or the earlier transform, place
            it, and through `initial`: normalised mutual information, 1 to 2, or squared correlation, 0 to 1.
        centre: `(3,)` of the fixed image, RAS+ mm.
        ndim: axes along which things move.
        earlier: the transform that was given.
    """

    initial: Chain
    linear: Linear
    kind: str
    metric: str
    start: str
    before: float
    after: float
    centre: np.ndarray
    ndim: int
    earlier: Transform | Chain | None = None

    @property
    def rotation_degrees(self) -> float:
        """Angle of the rotation in `linear`, apart from what it stretches."""
        left, _, right = np.linalg.svd(self.linear.matrix[:3, :3])
        return float(np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))))

    @property
    def shift_mm(self) -> float:
        """How far `linear` takes the centre of the fixed image."""
        return float(np.linalg.norm(self.linear.world(self.centre[None])[0] - self.centre))

    @property
    def scale(self) -> float:
        """Length in the moving image per length in the fixed one, the geometric mean of all axes."""
        return float(abs(np.linalg.det(self.linear.matrix[:3, :3])) ** (1 / self.ndim))

    def summary(self) -> dict:
        """All of it, for the sidecar of a file."""
        return {
            "kind": self.kind,
            "start": self.start,
            "metric": _SCORES[self.metric],
            "before": self.before,
            "after": self.after,
            "rotation_degrees": self.rotation_degrees,
            "shift_mm": self.shift_mm,
            "scale": self.scale,
            "direction": "fixed to moving",
            "matrix_ras_mm": self.linear.matrix.tolist(),
        }

    def __str__(self) -> str:
        scale = "" if self.kind == "rigid" else f", scale {self.scale:.3f}"
        return (
            f"{self.kind} stage, from {self.start}: {_SCORES[self.metric]} {self.before:.3f} to {self.after:.3f}, "
            f"rotation {self.rotation_degrees:.1f}°, shift {self.shift_mm:.1f} mm{scale}"
        )


def align(
    moving: Image,
    fixed: Image,
    kind: str = "affine",
    start: str = "best",
    metric: str = "mi",
    mask: Image | None = None,
    initial: Transform | Chain | None = None,
    mask_moving: Image | None = None,
) -> Alignment:
    """Find the linear transform that makes two images most alike.

    Args:
        moving, fixed: both 2-D or both 3-D; two of a single slice are aligned in its plane.
        kind: "rigid", "similarity" (also one scale) or "affine" (also scales and shears).
        start: "header", as the headers place them; "centre", centre of mass on centre of mass, of what is in the masks
            where both are given; "best": from both and from turns and shifts of them, and what ends most alike.
        metric: "mi", mutual information (Mattes), for any modalities; or "correlation".
        mask: region of the fixed image that is looked at, not 0, on any grid.
        initial: fixed to moving; the search starts there instead, and the result is both together.
        mask_moving: region of the moving image that is looked at, likewise.

    Returns:
        An `Alignment`. Where nothing is found that is more alike than a start, it is that start, with a `DataWarning`.

    Raises:
        DataError: a constant image, an empty mask, a single slice with a volume, or headers that cannot be matched.
        RegistrationFailed: the images do not meet where the search starts.
        ImportError: no SimpleITK.

    Example:
        >>> found = align(read_image("m.nii.gz"), read_image("f.nii.gz"), "rigid")
        >>> result = register(moving, fixed, "model.keras", initial=found.initial)
    """
    for name, value, known in (("kind", kind, KINDS), ("start", start, STARTS), ("metric", metric, METRICS)):
        if value not in known:
            raise ValueError(f"the {name} of an affine stage is one of {', '.join(known)}, received {value!r}")
    itk.package(NEEDS)
    images = _prepared(moving, fixed, mask, mask_moving, initial)
    starts = starts_of(images, start) if initial is None else {"initial": np.eye(4)}
    coarse, *finer = levels(images.box())
    if start == "best" and initial is None:
        starts |= further(starts, coarse, metric)
    ends = _from_all(starts, coarse, kind, metric)
    begun = best_of(ends, coarse, metric)
    matrix = ends[begun]
    for level in finer:
        matrix = search(level, kind, matrix, metric)
    scores = {name: finer[-1].score(one, metric) for name, one in starts.items()}
    after, better = finer[-1].score(matrix, metric), max(scores, key=scores.get)
    if after < scores[better]:
        warnings.warn(
            f"the {kind} stage found nothing more alike than its start ({_SCORES[metric]} {scores[better]:.3f}, "
            f"found {after:.3f}); the start is kept",
            DataWarning,
            stacklevel=2,
        )
        begun, matrix, after = better, starts[better], scores[better]
    before = finer[-1].score(np.eye(4), metric)
    both, linear = _composed(matrix, initial, fixed.grid)
    return Alignment(both, linear, kind, metric, begun, before, after, fixed.grid.middle, images.grid.ndim, initial)


def _prepared(moving: Image, fixed: Image, mask, mask_moving, initial: Transform | Chain | None) -> Level:
    """Both images in the world of the fixed one, as ITK can take them."""
    for role, image in (("moving", moving), ("fixed", fixed)):
        if image.array.min() == image.array.max():
            raise DataError(f"{image.path}: the {role} image is constant: an affine stage has nothing to align.")
    if moving.array.ndim not in (2, 3) or moving.array.ndim != fixed.array.ndim:
        raise DataError(
            f"{moving.path}: an affine stage takes two 2-D or two 3-D images, received shapes {moving.array.shape} and "
            f"{fixed.array.shape}."
        )
    sides = {"moving": _brought(moving, fixed, initial), "fixed": (fixed.array, fixed.grid)}
    flat = {role: _single_slice(image, sides[role][1]) for role, image in (("moving", moving), ("fixed", fixed))}
    if list(flat.values()).count(None) == 1:
        one, other = (moving, fixed) if flat["fixed"] is None else (fixed, moving)
        raise DataError(f"{one.path}: is a single slice, {other.path} a volume: no transform between them is known.")
    (array, own), (target, grid) = (_upright(*_without(flat[role], *side)) for role, side in sides.items())
    index_map(own, grid)  # planes that lie apart are an error
    counts = seen = None
    if mask is not None:
        counts = _upright(*_without(flat["fixed"], _region(mask, fixed), fixed.grid))[0] > 0.5
    if mask_moving is not None:
        region = _brought(replace(moving, array=_region(mask_moving, moving)), fixed, initial)
        seen = _upright(*_without(flat["moving"], *region))[0] > 0.5
    return Level(_scaled(array), own, _scaled(target), grid, counts, seen)


def _brought(moving: Image, fixed: Image, initial: Transform | Chain | None) -> tuple[np.ndarray, Grid]:
    """The moving image where an earlier transform brings it: a linear one changes its header alone."""
    own, matrix = matched_grid(moving, fixed), _linear(initial)
    if initial is None:
        return moving.array, own
    if matrix is not None:
        return moving.array, Grid(own.shape, np.linalg.inv(matrix) @ own.affine)
    size = np.array(fixed.grid.shape)
    more = np.where(size > 1, np.ceil(_MARGIN * size), 0).astype(int)
    wide = fixed.grid.part(-more, size + more)
    return resample(moving.array, own, wide, outside=float(moving.array.min()), through=initial), wide


def _linear(transform: Transform | Chain | None) -> np.ndarray | None:
    """The matrix of transforms that are all linear; None for others."""
    if not isinstance(transform, Chain) or not all(isinstance(link, Linear) for link in transform.links):
        return None
    matrix = np.eye(4)
    for link in transform.links:
        matrix = link.matrix @ matrix
    return matrix


def _composed(matrix: np.ndarray, initial: Transform | Chain | None, grid: Grid) -> tuple[Chain, Linear]:
    """What was found, and then the earlier transform."""
    earlier = _linear(initial)
    if initial is None or earlier is not None:
        linear = Linear(matrix if initial is None else earlier @ matrix)
        return Chain([linear], grid), linear
    return Chain([Linear(matrix), initial], grid), Linear(matrix)


def _region(mask: Image, image: Image) -> np.ndarray:
    """A mask on the grid of its image."""
    mask = mask.trimmed().with_axes_of(image)
    there = resample((mask.array != 0).astype(np.uint8), matched_grid(mask, image), image.grid, "nearest")
    if not there.any():
        raise DataError(f"{mask.path}: the mask is empty.")
    return there


def _single_slice(image: Image, grid: Grid) -> int | None:
    """The axis of a volume that has a single voxel, or None."""
    single = [axis for axis, size in enumerate(grid.shape) if size == 1]
    if grid.ndim - len(single) < 2:
        raise DataError(f"{image.path}: an affine stage needs two axes of more than one voxel, received {grid.shape}.")
    return single[0] if single else None


def _without(axis: int | None, array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """A volume of a single slice as the image of its plane."""
    if axis is None:
        return array, grid
    kept, affine = [i for i in range(3) if i != axis], grid.affine.copy()
    affine[:3, :3] = affine[:3, [*kept, axis]]
    return array.squeeze(axis), Grid(tuple(grid.shape[i] for i in kept), affine)


def _upright(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """An image with its axes at right angles, as ITK's are: a sheared one is resampled onto the box round it."""
    if not grid.sheared:
        return array, grid
    axes, steps = np.linalg.qr(grid.linear)
    axes, affine = axes * np.sign(np.diag(steps)) * grid.spacing, grid.affine.copy()
    affine[:3, : grid.ndim] = axes
    corners = Grid(grid.shape, affine).index(grid.world(grid.corners()))
    low, high = corners.min(0), corners.max(0)
    affine[:3, 3] += axes @ low
    box = Grid(tuple(np.ceil(high - low).astype(int) + 1), affine)
    return resample(array, grid, box, outside=float(array.min())), box


def _scaled(array: np.ndarray) -> np.ndarray:
    """In [0, 1], without the few voxels that are far brighter or darker than all others."""
    low, high = np.percentile(array, _TAILS)
    return minmax(np.clip(array, low, high) if low < high else array)


def _from_all(starts: dict[str, np.ndarray], level: Level, kind: str, metric: str) -> dict[str, np.ndarray]:
    """Where a search at one level ends, by where it started: a rigid one first, which has few ways to go wrong."""
    ends, reason = {}, ""
    for name, matrix in starts.items():
        try:
            ends[name] = search(level, kind, search(level, "rigid", matrix, metric), metric)
        except RegistrationFailed as error:
            reason = str(error)
    if not ends:
        raise RegistrationFailed(f"the {kind} stage gets nowhere from its start ({', '.join(starts)}): {reason}")
    return ends
