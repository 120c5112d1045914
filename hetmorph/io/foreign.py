"""Transforms of other programs that are told apart from damaged ones, and how they become one that can be read."""

import re
from pathlib import Path

from hetmorph.io.atomic import suffix_of
from hetmorph.io.errors import DataError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ELASTIX = (
    "a parameter file of elastix; transformix -def all -tp FILE -out DIR writes the deformationField that can be read"
)
_MATRIX = (
    "a bare matrix, as FSL's flirt and NiftyReg's reg_aladin write it, whose frame the file does not say; of flirt, "
    "c3d_affine_tool -ref FIXED -src MOVING FILE -fsl2ras -oitk affine.txt makes a transform that can be read"
)
_XFM = "a transform of MINC; FreeSurfer's lta_convert --inmni FILE --outitk affine.txt makes one that can be read"
_AFNI = "a dataset of AFNI; 3dAFNItoNIFTI makes NIfTI of it, whose vectors are lps where the image is not oblique"
_LTA = "a transform of FreeSurfer; lta_convert --inlta FILE --outitk affine.txt makes one that can be read"
# what the text of a file begins with or holds
_TEXTS = {
    re.compile(r"^\s*(//[^\n]*\n\s*)*\((Transform|NumberOfParameters|InitialTransform\w*) "): _ELASTIX,
    re.compile(rf"^\s*({_NUMBER}\s+){{15}}{_NUMBER}\s*$"): _MATRIX,
    re.compile(rf"^\s*({_NUMBER}\s+){{11}}{_NUMBER}\s*$"): "a bare matrix of 12 numbers, as AFNI writes it; "
    "nitransforms makes an ITK transform of it",
    re.compile(r"^(#[^\n]*\n\s*)*type\s*=\s*\d"): _LTA,
    re.compile(r"^MNI Transform File"): _XFM,
    re.compile(r"^\x00?MATLAB 5\.0"): "a Matlab 5 file, such as SPM's _sn.mat; SPM's Deformations utility writes a "
    "y_ field of it that can be read",
}
_ENDINGS = {
    ".lta": _LTA,
    ".m3z": "a warp of FreeSurfer; mri_warp_convert --inm3z FILE --outitk warp.nii.gz makes one that can be read",
    ".xfm": _XFM,
    ".1d": "a transform of AFNI; nitransforms makes an ITK transform of it",
    ".x5": "a transform in the X5 format; nitransforms makes an ITK transform of it",
    ".toml": _ELASTIX,
    **dict.fromkeys((".head", ".brik", ".brik.gz"), _AFNI),
}
_FSL = {
    **dict.fromkeys((2006, 2018), "a field of FSL (fnirt, topup), in its scaled voxels"),
    **dict.fromkeys((2007, 2008, 2009, 2016, 2017), "spline or cosine coefficients of FSL (fnirt, topup)"),
}


def check_not_foreign(path: Path) -> None:
    """Refuse, by its name, what is a transform of another program though its ending is one of ITK's.

    Args:
        path: an existing file.

    Raises:
        DataError: it is one of elastix, FSL, FreeSurfer, AFNI, MINC or SPM.
    """
    with open(path, "rb") as file:
        text = file.read(2**16).decode("latin-1")
    for pattern, what in _TEXTS.items():
        if pattern.search(text):
            raise _refused(path, what)


def check_ending(path: Path) -> None:
    """Refuse, by its name, a file whose ending says that it is of another program; DataError."""
    if what := _ENDINGS.get(suffix_of(path)):
        raise _refused(path, what)


def check_intent(path: Path, intent: int) -> None:
    """Refuse, by its name, a field of FSL, which the intent of a NIfTI header gives away; DataError."""
    if what := _FSL.get(intent):
        raise DataError(
            f"{path}: expected intent 1006 or 1007, received {intent} (intent {intent} is {what}); Workbench's "
            "wb_command -convert-warpfield -from-fnirt FILE MOVING -to-itk warp.nii.gz makes one that can be read."
        )


def _refused(path: Path, what: str) -> DataError:
    return DataError(f"{path}: this is {what}.")
