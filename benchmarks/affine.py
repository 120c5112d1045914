"""The affine stage against SimpleITK's and ANTs' on known motions of real images: error in mm, and time.

Each image is turned about a random axis and shifted (`rigid`), also scaled and sheared (`affine`), its contrast changed
and noise added; then it is brought back. A stack of thick slices is turned in its plane. The error is the distance from
the true place, over the voxels of the image that are not dark: mean and largest. Every program runs on one thread, and
its time is that of the processor.

- hetmorph: `registration.align`, as it is.
- SimpleITK: as its notebooks have it, centres of the images first, three levels, Mattes' mutual information, gradient
  descent of 100 iterations with a step of 1; of a tenth of the voxels instead of a hundredth.
- ANTs: `ants.registration` of ANTsPy, type Rigid or Affine, as it is.

Example:
    python benchmarks/affine.py --images brain.nii.gz heart.nii.gz --spacing 2
"""

import argparse
import importlib.util
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from common import report
from common.report import table

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ |= dict.fromkeys(("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS"), "1")
MOTIONS = {"rigid": ((5, 5), (15, 15), (30, 30)), "affine": ((5, 5), (15, 15))}  # degrees, mm
STRETCH, NOISE, GAMMA = 0.1, 0.02, 1.5
THICK = 2.0  # of the spacing across slices to that within, from which on they are not turned out of their plane


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="3-D images that state their orientation")
    parser.add_argument("--spacing", type=float, help="voxels of so many mm for all with smaller ones (default: own)")
    args = parser.parse_args()
    sys.path.insert(0, str(report.ROOT))
    from hetmorph.evaluation import RegistrationFailed

    warnings.simplefilter("ignore")
    rows = []
    for number, path in enumerate(args.images):
        fixed = image_of(path, args.spacing)
        for kind, amounts in MOTIONS.items():
            for degrees, shift in amounts:
                moving, truth = moved(fixed, kind, degrees, shift, np.random.default_rng(number))
                row = [path.name.split(".")[0], kind, f"{degrees}°, {shift} mm", told(errors(np.eye(4), truth, fixed))]
                seconds = []
                for program in programs().values():
                    start = time.process_time()
                    try:
                        row.append(told(errors(program(moving, fixed, kind), truth, fixed)))
                    except (RegistrationFailed, RuntimeError):
                        row.append("failed")
                    seconds.append(time.process_time() - start)
                rows.append([*row, f"{seconds[0]:.1f}", *(f"{one / seconds[0]:.1f}" for one in seconds[1:])])
                print(rows[-1], file=sys.stderr)
    names = list(programs())
    head = ["image", "kind", "motion", "before", *names, f"{names[0]}, s", *(f"{name}, times" for name in names[1:])]
    print(f"{report.processor()}; mm: mean, largest\n\n{table(head, rows)}")


def programs() -> dict:
    """Functions of a moving and a fixed image and the kind, that return `(4, 4)`, RAS mm, fixed to moving."""
    ants = {"ANTs": by_ants} if importlib.util.find_spec("ants") else {}
    return {"hetmorph": by_hetmorph, "SimpleITK": by_simpleitk} | ants


def by_hetmorph(moving, fixed, kind: str) -> np.ndarray:
    from hetmorph.registration import align

    return align(moving, fixed, kind).linear.matrix


def by_simpleitk(moving, fixed, kind: str) -> np.ndarray:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    target, source = itk_image(sitk, fixed), itk_image(sitk, moving)
    start = sitk.AffineTransform(3) if kind == "affine" else sitk.Euler3DTransform()
    start = sitk.CenteredTransformInitializer(target, source, start, sitk.CenteredTransformInitializerFilter.GEOMETRY)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsGradientDescent(1.0, 100, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([1, 1, 1] if thick(fixed) else [4, 2, 1])  # few slices cannot be fewer
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    return matrix_of(method.Execute(target, source).TransformPoint)


def thick(image) -> bool:
    """Whether it is a stack of thick slices."""
    return image.spacing[2] > THICK * image.spacing[0]


def by_ants(moving, fixed, kind: str) -> np.ndarray:
    import ants

    from hetmorph.io.itk import read_linear

    pair = [ants_image(ants, image) for image in (fixed, moving)]
    found = ants.registration(*pair, type_of_transform=kind.capitalize(), random_seed=1)
    return read_linear(Path(found["fwdtransforms"][0]))


def matrix_of(function) -> np.ndarray:
    """A linear function of points in LPS as a matrix in RAS."""
    start = np.array(function([0.0] * 3))
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([*(np.array(function(row)) - start for row in np.eye(3).tolist()), start])
    lps = np.diag([-1.0, -1, 1, 1])
    return lps @ matrix @ lps


def itk_image(sitk, image):
    from hetmorph.io.itk import _to_itk

    return _to_itk(sitk, image.array.astype(np.float32), image.grid)


def ants_image(ants, image):
    from hetmorph.io.itk import _itk_geometry

    direction, spacing, origin = _itk_geometry(image.grid)
    return ants.from_numpy(image.array.astype(np.float32), origin.tolist(), spacing.tolist(), direction)


def image_of(path: Path, spacing: float | None):
    """An image, its smaller voxels made as large as asked for."""
    from hetmorph.io import Image, model_grid, read_image, resample

    image = read_image(path, ndim=3)
    if spacing is None or min(image.spacing) >= spacing:
        return image
    grid = model_grid(image.grid, [max(spacing, own) for own in image.spacing])
    return Image(resample(image.array, image.grid, grid), grid.spacing, grid.affine, True, path)


def moved(fixed, kind: str, degrees: float, shift: float, rng):
    """The image after a motion, and the matrix that takes its points there."""
    from dataclasses import replace

    from scipy.spatial.transform import Rotation

    from hetmorph.io import resample
    from hetmorph.io.chain import Linear

    flat = thick(fixed)
    plane = fixed.affine[:3, :2] / fixed.spacing[:2]
    axis = np.cross(*plane.T) if flat else rng.normal(size=3)
    way = plane @ rng.normal(size=2) if flat else rng.normal(size=3)
    linear = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    if kind == "affine":
        change = rng.uniform(-STRETCH, STRETCH, (3, 3))
        linear = linear @ (np.eye(3) + (plane @ plane.T @ change @ plane @ plane.T if flat else change))
    matrix, centre = np.eye(4), fixed.grid.world((np.array(fixed.grid.shape) - 1) / 2)
    matrix[:3, :3], matrix[:3, 3] = linear, centre + shift * way / np.linalg.norm(way) - linear @ centre
    dark, bright = float(fixed.array.min()), float(np.percentile(fixed.array, 99.9))
    there = resample(
        fixed.array.astype(np.float32), fixed.grid, fixed.grid, outside=dark, through=Linear(np.linalg.inv(matrix))
    )
    contrast = np.clip((there - dark) / (bright - dark), 0, 1) ** GAMMA + rng.normal(0, NOISE, there.shape)
    return replace(fixed, array=contrast.astype(np.float32)), matrix


def errors(found: np.ndarray, truth: np.ndarray, fixed) -> np.ndarray:
    """Distance from the true place of each voxel that is not dark, mm."""
    bright = fixed.array > fixed.array.min() + 0.1 * (np.percentile(fixed.array, 99.9) - fixed.array.min())
    places = fixed.grid.world(np.argwhere(bright))
    apart = places @ (found - truth)[:3, :3].T + (found - truth)[:3, 3]
    return np.linalg.norm(apart, axis=-1)


def told(distances: np.ndarray) -> str:
    return f"{distances.mean():.2f}, {distances.max():.2f}"


if __name__ == "__main__":
    main()
