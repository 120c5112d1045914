"""The programs one would run instead of a network, on the same pair: demons, SyN, greedy."""

import tempfile
from pathlib import Path

import numpy as np
import problem
import worker


def build(case: dict):
    if case["batch"] != 1:
        return None
    moving, fixed = (x[0, ..., 0] for x in problem.pair(case["shape"], 1))
    return {"demons": demons, "syn": syn, "greedy": greedy}[case["tool"]](case, moving, fixed)


def demons(case: dict, moving: np.ndarray, fixed: np.ndarray):
    """SimpleITK's diffeomorphic demons, 50 iterations on each of two levels."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(case["threads"])
    moving, fixed = sitk.GetImageFromArray(moving), sitk.GetImageFromArray(fixed)
    program = sitk.DiffeomorphicDemonsRegistrationFilter()
    program.SetNumberOfIterations(50)
    program.SetStandardDeviations(1.0)

    def half(image):
        return sitk.BinShrink(image, [2] * image.GetDimension())

    def register():
        coarse = program.Execute(half(fixed), half(moving))
        start = sitk.Resample(coarse, fixed, sitk.Transform(), sitk.sitkLinear, 0.0, coarse.GetPixelID())
        field = program.Execute(fixed, moving, start)
        transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
        return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform))

    return register


def syn(case: dict, moving: np.ndarray, fixed: np.ndarray):
    """ANTsPy's SyNOnly with its default metric and iterations."""
    import ants

    moving, fixed = ants.from_numpy(moving.astype("float32")), ants.from_numpy(fixed.astype("float32"))
    return lambda: ants.registration(fixed, moving, "SyNOnly")["warpedmovout"].numpy()


def greedy(case: dict, moving: np.ndarray, fixed: np.ndarray):
    """greedy's deformable mode, sum of squares, 100 and 50 iterations on two levels."""
    import SimpleITK as sitk
    from picsl_greedy import Greedy2D, Greedy3D

    folder = tempfile.mkdtemp()
    names = [str(Path(folder) / f"{role}.nii.gz") for role in ("moving", "fixed")]
    for name, image in zip(names, (moving, fixed), strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(image), name)
    program = (Greedy2D if moving.ndim == 2 else Greedy3D)()
    command = f"-i {names[1]} {names[0]} -m SSD -n 100x50 -o {folder}/warp.nii.gz -V 0 -threads {case['threads']}"
    return lambda: program.execute(command)


if __name__ == "__main__":
    worker.serve(build)
