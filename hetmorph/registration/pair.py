"""One pair of images as their headers place them, through a model, and back onto the grid of the fixed image."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hetmorph import io
from hetmorph.data.normalise import minmax
from hetmorph.evaluation import Guide, Prediction, Predictor, RegistrationFailed, wrap
from hetmorph.evaluation.predictor import VOXELS_TOGETHER, pairs_together
from hetmorph.io.field_of_view import fitted_grid, onto, resized
from hetmorph.registration.affine import Alignment, align
from hetmorph.registration.guidance import Guidance
from hetmorph.registration.intensities import Intensities


@dataclass(frozen=True, eq=False)
class Registration:
    """One pair, registered.

    Attributes:
        transform: on the grid of the fixed image, to the moving one.
        moved: `[*S]` the moving image on the grid of the fixed one, interpolated once, in its own intensities.
        moving: grid of the moving image in the world of the fixed one.
        grid: what the model saw; of a 2-D model on a stack, its slices are the last axis.
        seen: `[2, *G]` moving and fixed as the model saw them, intensities in [0, 1].
        prediction: the model's answer on `grid`; its `moved` is of `seen`.
        variance: `[*S]` σ_I² of the noise, in squared intensities of `seen`; None for a model without variance.
        uncertainty_mm: `[*S]` standard deviation of the displacement, millimetres, NaN where not known; None if not
            asked for.
        map: the same as `uncertainty.UncertaintyMap` on `grid`, voxels; of a stack without covariance.
        by_slice: whether the model saw slices along the last axis of `grid`, one by one.
        refinements: `instance.Refinement` of the pair, or of each slice, if the model optimises; else empty.
        initial: what the moving image went through before the model saw it, a part of `transform`; None for nothing.
        affine: what the affine stage found, which made `initial`; None without one.
        start: then, the transform of the model's own answer; else None.
        backward: function that gives the other direction, `[*G, N]` voxels of `grid`, or None where the model has none.
        fitted: whether `initial` is what brings one field of view onto the other, for a model that resizes its images.
    """

    transform: io.Transform
    moved: np.ndarray
    moving: io.Grid
    grid: io.Grid
    seen: np.ndarray
    prediction: Prediction
    variance: np.ndarray | None = None
    uncertainty_mm: np.ndarray | None = None
    map: object | None = None
    by_slice: bool = False
    refinements: tuple = ()
    initial: io.Transform | io.Chain | None = None
    affine: Alignment | None = None
    start: io.Transform | None = None
    backward: Callable[[], np.ndarray | None] = lambda: None
    fitted: bool = False

    @property
    def undeformed(self) -> io.Transform | io.Chain | None:
        """What the moving image went through by what the headers and the user say, before anything was found."""
        return None if self.fitted else self.initial

    def inverse(self) -> io.Inverse:
        """From the moving image to the fixed one, on the grid of the moving image.

        That of the model itself, where it registers in both directions and the two undo each other to 0.1 voxel; else
        searched for, see `io.inverse`.

        After an initial transform, that of both: each is inverted as it is, which `transform` holds only at the voxels
        of the fixed image.
        """
        if self.initial is None:
            own = None if self.refinements else self.backward()
            said = (
                None if own is None else io.check_inverse(self.transform, io.Transform(own, self.grid).on(self.moving))
            )
            return said if said and said.worst <= io.SMALL else io.inverse(self.transform, self.moving)
        fixed = self.transform.grid
        own = io.Transform(self.prediction.displacement, self.grid).on(fixed)
        return io.inverse(io.Chain([own, self.initial], fixed), self.moving)

    def labels(self, labels: io.Image, fixed: io.Image, method: str = "linear", start: bool = False) -> np.ndarray:
        """Labels of the moving image on the grid of the fixed one; their grid may be another than the image's.

        Args:
            labels: label image of the moving image.
            fixed: the fixed image.
            method: see `io.warp_labels`.
            start: through the model's own answer, where it was optimised.
        """
        labels = labels.trimmed().with_axes_of(fixed)
        return io.warp_labels(
            self.start if start else self.transform, labels.array, io.matched_grid(labels, fixed), method
        )


def register(
    moving: io.Image,
    fixed: io.Image,
    model,
    spacing: float | None = None,
    mask: io.Image | None = None,
    estimate: Callable | None = None,
    initial: io.Transform | io.Chain | None = None,
    affine: str | Alignment | None = None,
    guidance: Guidance | None = None,
    intensities: Intensities | None = None,
) -> Registration:
    """Register two images.

    Both are brought onto one grid in the world of the fixed image, scaled to [0, 1] each (each slice by itself for a
    2-D model on a stack), and registered; the displacement comes back onto the fixed grid, and the moving image is
    interpolated once, from its own voxels. A model of one size, such as `UniGradICON`, sees each image resized from its
    own field of view instead, unless an initial transform or an affine stage says how they lie.

    Args:
        moving, fixed: 2-D or 3-D, both alike; where one states no orientation, voxel lies on voxel.
        model: anything `evaluation.wrap` takes. One for 2-D images takes volumes slice by slice, across the axis of
            the largest spacing; nothing then moves across the slices.
        spacing: voxel size that the model sees, millimetres, in the plane of the slices for a 2-D model; None keeps
            that of the fixed image.
        mask: region of interest in the fixed image, not 0: the model sees only the box round it. Outside the box the
            displacement is that of its nearest voxel.
        estimate: `(predictor, moving, fixed) → uncertainty.UncertaintyMap` of a displacement.
        initial: fixed to moving; the moving image is taken through it first, and the result is both together.
        affine: "rigid", "similarity" or "affine": a linear transform of that kind is found first, from `initial` on,
            and the result is all together, by the masks of `guidance`, of the fixed image else by `mask`; or what
            `align` has found, with `initial` in it.
        guidance: where the images count, and points that correspond; for a model that optimises the pair, such as
            `instance.Refined`.
        intensities: what the model is shown of them; a model with `modalities` has to be told both.

    Returns:
        A `Registration`.

    Raises:
        DataError: a number of axes that the model does not take, or headers that cannot be matched.
        ValueError: images that do not overlap, a model that answers with NaN, or one that follows no guidance.

    Example:
        >>> result = register(read_image("m.nii.gz"), read_image("f.nii.gz"), "model.keras", spacing=1.0)
        >>> write_image("moved.nii.gz", result.moved, like=fixed)
    """
    predictor, fixed = wrap(model), fixed.trimmed()
    moving = moving.trimmed().with_axes_of(fixed)
    mask = None if mask is None else mask.trimmed().with_axes_of(fixed)
    slices = by_slice(moving, fixed, predictor.ndims)
    if isinstance(affine, str):
        masks = (None, None) if guidance is None else (guidance.mask_fixed, guidance.mask_moving)
        affine = align(moving, fixed, affine, mask=masks[0] or mask, initial=initial, mask_moving=masks[1])
    if affine is not None:
        initial = affine.initial
    _check_shown(predictor, spacing, mask, slices)
    intensities, shape = Intensities.for_model(predictor.modalities, intensities), predictor.resizes_to
    fitted = shape is not None and initial is None
    initial = brought_near(moving, fixed, predictor, initial)
    own, grid, seen = model_pair(moving, fixed, spacing, mask, slices, initial, intensities, shape)
    guide = _guide(guidance, predictor, grid, moving, fixed, initial, slices)
    predictions = _slices(predictor, *seen, guide) if slices else _whole(predictor, *seen, guide)
    prediction = _joined(predictions) if slices else predictions[0]
    displacement, log_variance = prediction.displacement, prediction.log_variance
    if not np.isfinite(displacement).all():
        raise RegistrationFailed("the model answers with NaN or infinity")
    transform = io.Transform(displacement, grid).on(fixed.grid)
    if initial is not None:
        transform = io.Chain([transform, initial], fixed.grid).transform
    refinements = tuple(one.refinement for one in predictions if one.refinement is not None)
    return Registration(
        transform=transform,
        moved=io.warp_image(transform, moving.array, own),
        moving=own,
        grid=grid,
        seen=seen,
        prediction=prediction,
        initial=initial,
        affine=affine,
        variance=None if log_variance is None else _on_fixed(np.exp(log_variance), grid, fixed.grid),
        by_slice=slices,
        refinements=refinements,
        start=_start(refinements, grid, fixed.grid, slices) if refinements else None,
        backward=lambda: _backward(predictor, seen, slices),
        fitted=fitted,
        **({} if estimate is None else _uncertainty(estimate, predictor, seen, grid, fixed, slices)),
    )


def model_pair(
    moving: io.Image,
    fixed: io.Image,
    spacing: float | None = None,
    mask: io.Image | None = None,
    slices: bool = False,
    initial: io.Transform | io.Chain | None = None,
    intensities: Intensities | None = None,
    shape: tuple[int, ...] | None = None,
) -> tuple[io.Grid, io.Grid, np.ndarray]:
    """What a model is shown of two images, as `register` does it; `slices` as `by_slice` says.

    Args:
        moving, fixed: images with their headers.
        spacing: voxel size that the model sees, mm; None takes that of the fixed image.
        mask: region of interest in the fixed image; the model sees the box round it.
        slices: whether a 2-D model takes the volume slice by slice.
        initial: what the moving image is taken through first, fixed to moving.
        intensities: what it is shown of them; None stretches each from its smallest to its largest intensity.
        shape: voxels that a model of one size resizes both to.

    Returns:
        The grid of the moving image in the world of the fixed one; the grid of what the model sees; moving and fixed on
        it, `[2, *G]` float32 in [0, 1].
    """
    own = io.matched_grid(moving, fixed)
    if shape is not None:
        grid = fitted_grid(fixed.grid, shape)
    elif slices:
        grid = io.model_grid(fixed.grid, spacing=(spacing, spacing, None), slice_axis=slice_axis(fixed.grid))
    else:
        grid = io.model_grid(fixed.grid, spacing=spacing)
    if mask is not None:
        grid = _box(mask, fixed, grid, keep_last=slices)
    for role, image in (("moving", moving), ("fixed", fixed)):
        _tell_constant(role, image)
    if intensities is None and shape is None:
        dark = float(moving.array.min())
        arrays = (
            io.resample(moving.array, own, grid, outside=dark, through=initial),
            io.resample(fixed.array, fixed.grid, grid),
        )
        return own, grid, np.stack([_scaled(array, slices) for array in arrays])
    shown, to_grid = (intensities or Intensities()).of(moving, fixed), io.resample if shape is None else resized
    return own, grid, np.stack([to_grid(shown[0], own, grid, through=initial), to_grid(shown[1], fixed.grid, grid)])


def brought_near(
    moving: io.Image, fixed: io.Image, model, initial: io.Transform | io.Chain | None
) -> io.Transform | io.Chain | None:
    """What the moving image is taken through before a model sees it, fixed to moving.

    Args:
        moving, fixed: images with their headers.
        model: anything `evaluation.wrap` takes; one of one size sees field of view on field of view.
        initial: what is known of how they lie, which comes first.
    """
    shape = wrap(model).resizes_to
    if initial is not None or shape is None:
        return initial
    through = onto(io.matched_grid(moving, fixed), fixed.grid, shape)
    return None if through is None else io.Chain([through], fixed.grid)


def _check_shown(predictor: Predictor, spacing: float | None, mask: io.Image | None, slices: bool) -> None:
    """Raise ValueError for what does not go with a model that resizes its images."""
    if predictor.resizes_to is None:
        return
    size = " × ".join(map(str, predictor.resizes_to))
    if slices:
        raise ValueError(f"this model takes 2-D images, resized to {size} voxels, and no volumes slice by slice")
    if spacing is not None or mask is not None:
        raise ValueError(
            f"this model sees every image whole, resized to {size} voxels: neither a voxel size nor a region of "
            "interest goes with it"
        )


def _tell_constant(role: str, image: io.Image) -> None:
    """Warn of an image in which nothing can be found again."""
    if image.array.min() == image.array.max():
        what = "holds a single voxel" if image.array.size == 1 else "is constant"
        warnings.warn(f"{image.path}: the {role} image {what}: there is nothing to align", io.DataWarning, stacklevel=4)


def jacobian(transform: io.Transform) -> np.ndarray:
    """det(∂φ/∂x) at each voxel, `[*S]` float32: volume in the moving image per volume in the fixed one; ≤ 0 is a fold.

    A transform without extent along an axis, such as a single slice, has the determinant of the others.

    Args:
        transform: on the grid of the fixed image.
    """
    return transform.jacobian()


def slice_axis(grid: io.Grid) -> int:
    """The axis across the slices of a stack: the only one of one voxel, else that of the largest spacing."""
    single = [axis for axis, size in enumerate(grid.shape) if size == 1]
    return single[0] if len(single) == 1 else io.through_plane(grid)


def by_slice(moving: io.Image, fixed: io.Image, ndims: int | None) -> bool:
    """Whether a model for `ndims` axes takes these two slice by slice; DataError where it does not take them at all."""
    n = fixed.array.ndim
    for image in (moving, fixed):
        if image.array.ndim not in (2, 3):
            raise io.DataError(
                f"{image.path}: expected a 2-D or 3-D image, received shape {image.array.shape}; "
                "a sequence is registered with its reference frame: hetmorph register --reference."
            )
    if moving.array.ndim != n:
        raise io.DataError(
            f"{moving.path}: is {moving.array.ndim}-D, {fixed.path} is {n}-D; both images must have the same axes."
        )
    if ndims == 3 and n == 2:
        raise io.DataError(f"{fixed.path}: this model registers 3-D images, received shape {fixed.array.shape}.")
    return ndims == 2 and n == 3


def _box(mask: io.Image, fixed: io.Image, grid: io.Grid, keep_last: bool) -> io.Grid:
    """The part of a grid round a mask; of a stack all slices."""
    there = io.resample((mask.array != 0).astype(np.uint8), io.matched_grid(mask, fixed), grid, "nearest")
    if not there.any():
        raise io.DataError(f"{mask.path}: the mask is empty.")
    found = np.argwhere(there)
    low, high = found.min(0), found.max(0) + 1
    if keep_last:
        low[-1], high[-1] = 0, grid.shape[-1]
    return grid.part(low, high)


def _scaled(array: np.ndarray, slices: bool) -> np.ndarray:
    if slices:
        return np.stack([minmax(array[..., z]) for z in range(array.shape[-1])], -1)
    return minmax(array)


def _guide(
    guidance, predictor: Predictor, grid: io.Grid, moving: io.Image, fixed: io.Image, initial, slices
) -> Guide | None:
    """What steers the predictor, None for nothing."""
    if guidance is None or not guidance.steers:
        return None
    if not predictor.guided:
        raise ValueError(
            "masks and points steer the optimisation of a pair, as instance.Refined does; "
            f"{type(predictor).__name__} does none"
        )
    return guidance.on(grid, moving, fixed, initial, slices)


def _whole(predictor: Predictor, moving: np.ndarray, fixed: np.ndarray, guide: Guide | None) -> list:
    """The prediction of one pair."""
    if guide is None:
        return [predictor(moving, fixed)]
    return predictor.predict_batch(moving[None], fixed[None], guides=[guide])


def _slices(predictor: Predictor, moving: np.ndarray, fixed: np.ndarray, guide: Guide | None) -> list:
    """The predictions of one slice after another along the last axis."""
    # In few runs: each costs much besides the network, as long as no graph is made, and to make one costs more.
    together = pairs_together(moving.shape[:2], 4 * VOXELS_TOGETHER)
    moving, fixed = np.moveaxis(moving, -1, 0), np.moveaxis(fixed, -1, 0)
    guides = None if guide is None else guide.slices(len(moving))
    parts = [slice(i, i + together) for i in range(0, len(moving), together)]
    steered = [{} if guides is None else {"guides": guides[at]} for at in parts]
    runs = (predictor.predict_batch(moving[at], fixed[at], **how) for at, how in zip(parts, steered, strict=True))
    return [prediction for run in runs for prediction in run]


def _backward(predictor: Predictor, seen: np.ndarray, slices: bool) -> np.ndarray | None:
    if not slices:
        return predictor.backward(*seen)
    fields = [predictor.backward(*(image[..., z] for image in seen)) for z in range(seen.shape[-1])]
    return None if fields[0] is None else io.from_slices(fields)


def _joined(slices: list[Prediction]) -> Prediction:
    """The predictions of the slices as that of the stack."""

    def stacked(name: str) -> np.ndarray | None:
        parts = [getattr(prediction, name) for prediction in slices]
        return None if parts[0] is None else np.stack(parts, -1)

    others = {name: stacked(name) for name in ("moved", "log_variance", "weight")}
    displacement = io.from_slices([prediction.displacement for prediction in slices])
    return Prediction(displacement, **others, across=displacement.ndim - 2)


def _start(refinements: tuple, grid: io.Grid, fixed: io.Grid, slices: bool) -> io.Transform:
    """The transform before the optimisation, on the fixed grid."""
    displacements = [one.start.displacement for one in refinements]
    return io.Transform(io.from_slices(displacements) if slices else displacements[0], grid).on(fixed)


def _uncertainty(estimate: Callable, predictor: Predictor, seen, grid: io.Grid, fixed: io.Image, slices: bool) -> dict:
    """`map` and `uncertainty_mm` of a registration."""
    if slices:
        parts = [estimate(predictor, *pair) for pair in zip(*np.moveaxis(seen, -1, 1), strict=True)]
        whole = parts[0].stacked(parts)
    else:
        whole = estimate(predictor, *seen)
    oblique = grid.ndim == 3 and grid.sheared and not slices
    in_mm = whole.std_mm(grid.affine if oblique else grid.spacing)
    return {"map": whole, "uncertainty_mm": _on_fixed(in_mm, grid, fixed.grid)}


def _on_fixed(values: np.ndarray, grid: io.Grid, fixed: io.Grid) -> np.ndarray:
    """A map on the grid of the fixed image, NaN where the model saw nothing."""
    return io.resample(values, grid, fixed, outside=np.nan).astype(np.float32)
