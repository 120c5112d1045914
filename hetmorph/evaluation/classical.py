"""Classical registration programs behind the same call as the networks, for the rows of a table that need no training.

Each gets two arrays and works on the voxel grid (spacing 1 along every axis, as the networks do), and returns its
displacement in voxels on the grid of the fixed image, axes in array order: moved(x) = moving(x + u(x)). Moving image
and labels are then warped by hetmorph, as for every other model. Two images of which one is constant have nothing to
align: their displacement is zero.

The settings are constants below. Those called *tuned* had the highest mean Dice of the myocardium on 16 slices of ACDC
training patients, evenly spread over the patients, among the settings named beside them.
"""

import importlib
import os
import tempfile

import numpy as np

from hetmorph.evaluation.predictor import Predictor, RegistrationFailed
from hetmorph.io.errors import last_line
from hetmorph.ops.warp import warp

EXTRA = 'pip install ".[classical]"'


class ClassicalPredictor(Predictor):
    """A program that registers one pair of arrays of 2 or 3 axes at a time. Subclasses give `displacement`.

    Args:
        threads: number of threads of the program; 1 makes its result reproducible and its time comparable.
    """

    compiles = False

    def __init__(self, threads: int = 1):
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        super().__init__(None)
        self.threads = threads

    def displacement(self, moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        """`[*S, N]` voxels for two float32 images `[*S]`, neither of them constant; RuntimeError where it fails."""
        raise NotImplementedError

    def _run(self, moving, fixed):
        pairs = zip(moving.numpy()[..., 0], fixed.numpy()[..., 0], strict=True)
        field = np.stack([self._field(*pair) for pair in pairs]).astype(np.float32)
        return {"displacement": field, "moved": warp(moving, field)}

    def _field(self, moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        if np.ptp(moving) == 0 or np.ptp(fixed) == 0:
            return np.zeros((*moving.shape, moving.ndim), np.float32)
        try:
            return self.displacement(moving, fixed)
        except RuntimeError as error:
            raise RegistrationFailed(f"{type(self).__name__}: {last_line(error)}") from error


class Undeformed(ClassicalPredictor):
    """Leaves the moving image where it is."""

    def displacement(self, moving, fixed):
        return np.zeros((*moving.shape, moving.ndim), np.float32)


class SimpleITKPredictor(ClassicalPredictor):
    """A program of SimpleITK, whose arrays have their axes in reverse order of its vectors."""

    def __init__(self, threads: int = 1):
        super().__init__(threads)
        self.sitk = _package("SimpleITK")

    def _images(self, *arrays: np.ndarray) -> list:
        return [self.sitk.GetImageFromArray(array) for array in arrays]

    def _voxels(self, field) -> np.ndarray:
        return self.sitk.GetArrayFromImage(field)[..., ::-1]

    def _shrunk(self, image, factor: int):
        """The image smoothed and sampled at every `factor`-th voxel, its centre kept."""
        if factor == 1:
            return image
        smooth = self.sitk.SmoothingRecursiveGaussian(image, 0.5 * factor)
        return self.sitk.Shrink(smooth, [factor] * image.GetDimension())


class Demons(SimpleITKPredictor):
    """Diffeomorphic demons of SimpleITK, from coarse to fine, tuned.

    Best of smoothing 1, 1.5, 2; 200 iterations a level gain less than .001.

    Reference:
        Vercauteren et al., NeuroImage 2009, doi:10.1016/j.neuroimage.2008.10.040.
    """

    shrinking = (4, 2, 1)
    iterations = 100  # a level
    smoothing = 1.5  # standard deviation of the Gaussian over the field after each iteration, voxels of the level

    def displacement(self, moving, fixed):
        sitk, field = self.sitk, None
        moving, fixed = self._images(moving, fixed)
        for factor in _fitting(self.shrinking, fixed.GetSize()):
            target, source = self._shrunk(fixed, factor), self._shrunk(moving, factor)
            program = sitk.DiffeomorphicDemonsRegistrationFilter()
            program.SetNumberOfThreads(self.threads)
            program.SetNumberOfIterations(self.iterations)
            program.SetStandardDeviations(self.smoothing)
            field = (
                program.Execute(target, source)
                if field is None
                else program.Execute(target, source, _on_grid(sitk, field, target))
            )
        return self._voxels(field)


class BSpline(SimpleITKPredictor):
    """Free-form deformation by cubic B-splines of SimpleITK: mean squares, L-BFGS-B, from coarse to fine.

    The grid of control points is twice as fine at each level, and its spline is composed with those before. No control
    point moves by more than a part of the spacing, which keeps each spline one-to-one (Rueckert et al., MICCAI 2006).
    The metric is sampled at random voxels, the same in every iteration of a level, as elastix does; an image of
    128 x 128 is taken whole.

    Tuned: best of spacing 6, 8, 12, iterations 10, 20, 50, samples 4096, 16384; more iterations fit noise.

    Reference:
        Rueckert et al., IEEE TMI 1999, doi:10.1109/42.796284.
    """

    shrinking = (4, 2, 1)
    spacing = 6  # between control points, voxels of the level
    iterations = 10  # a level
    samples = 16384  # voxels of the metric
    reach = 0.4  # of a control point, part of the spacing

    def displacement(self, moving, fixed):
        sitk = self.sitk
        moving, fixed = self._images(moving, fixed)
        to_field = sitk.TransformToDisplacementFieldFilter()
        to_field.SetReferenceImage(fixed)
        field = to_field.Execute(sitk.Transform(fixed.GetDimension(), sitk.sitkIdentity))
        for factor in _fitting(self.shrinking, fixed.GetSize()):
            found = sitk.DisplacementFieldTransform(field)  # takes the image: `field` is empty from here on
            mesh = [max(1, round(size / (self.spacing * factor))) for size in fixed.GetSize()]
            target, source = self._shrunk(fixed, factor), self._shrunk(moving, factor)
            program = sitk.ImageRegistrationMethod()
            program.SetNumberOfThreads(self.threads)
            program.SetMetricAsMeanSquares()
            program.SetMetricSamplingStrategy(program.RANDOM)
            program.SetMetricSamplingPercentage(min(1.0, self.samples / target.GetNumberOfPixels()), 1)
            program.SetInterpolator(sitk.sitkLinear)
            bound = self.reach * min(size / n for size, n in zip(fixed.GetSize(), mesh, strict=True))
            program.SetOptimizerAsLBFGSB(1e-8, self.iterations, lowerBound=-bound, upperBound=bound)
            program.SetMovingInitialTransform(found)
            program.SetInitialTransform(sitk.BSplineTransformInitializer(fixed, mesh, 3), inPlace=True)
            spline = program.Execute(target, source)
            # Of a composite, the last transform is applied to a point first.
            field = to_field.Execute(sitk.CompositeTransform([found, spline]))
        return self._voxels(field)


class AntsSyN(ClassicalPredictor):
    """SyN of ANTsPy without affine stage (`SyNOnly`), at its default settings, with Mattes mutual information.

    ANTs reads its number of threads once a process: with its first registration.

    Reference:
        Avants et al., Medical Image Analysis 2008, doi:10.1016/j.media.2007.06.004.
    """

    options = {"syn_metric": "mattes"}

    def __init__(self, threads: int = 1):
        super().__init__(threads)
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
        self.ants = _package("ants", "ANTsPy")

    def displacement(self, moving, fixed):
        ants = self.ants
        # ANTs leaves its transforms in files.
        with tempfile.TemporaryDirectory() as folder:
            result = ants.registration(
                ants.from_numpy(fixed),
                ants.from_numpy(moving),
                "SyNOnly",
                initial_transform="identity",
                outprefix=os.path.join(folder, "ants"),
                random_seed=1,
                **self.options,
            )
            fields = [path for path in result["fwdtransforms"] if path.endswith(".nii.gz")]
            if len(fields) != 1:
                raise RuntimeError(f"expected one displacement field from ANTs, got {result['fwdtransforms']}")
            return ants.image_read(fields[0]).numpy()


class AntsSyNMeanSquares(AntsSyN):
    """SyN of ANTsPy with mean squares, otherwise as `AntsSyN`."""

    options = {"syn_metric": "meansquares"}


class AntsSyNTuned(AntsSyN):
    """SyN of ANTsPy with mean squares, tuned: many more iterations, and some at full resolution.

    Best of iterations (40, 20, 0: the default), (100, 70, 20), (100, 70, 50), (200, 140, 100), (100, 100, 100, 50);
    smoothing of the update 1, 2, 3 (default), 4; of the field 0 (default), .5, 1; gradient step .1, .2 (default), .5.
    """

    options = {"syn_metric": "meansquares", "reg_iterations": (200, 140, 100)}


PROGRAMS = {
    "undeformed": Undeformed,
    "demons": Demons,
    "bspline": BSpline,
    "ants-syn": AntsSyN,
    "ants-syn-mse": AntsSyNMeanSquares,
    "ants-syn-tuned": AntsSyNTuned,
}


def load(name: str, threads: int = 1) -> ClassicalPredictor:
    """The predictor of a classical program by its name in `PROGRAMS`.

    Raises:
        ImportError: its package is missing.
    """
    return PROGRAMS[name](threads)


def _package(module: str, name: str | None = None):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this program needs {name or module}: {EXTRA}") from error


def _fitting(factors, size) -> list[int]:
    """The shrink factors that leave at least 16 voxels along the shortest axis, and 1."""
    return [factor for factor in factors if factor == 1 or min(size) // factor >= 16]


def _on_grid(sitk, field, image):
    """A displacement field sampled on the grid of an image; beyond its own grid as on its border."""
    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(image)
    resample.UseNearestNeighborExtrapolatorOn()
    return resample.Execute(field)
