"""VoxelMorph's numpy utilities: files, labels, distance transforms, Jacobians.

All public names of `voxelmorph.py.utils`. The ones defined here are repaired; the others are the original's.
"""

import csv
import os
from pathlib import Path

import numpy as np

from hetmorph.io.nifti import place_of
from hetmorph.voxelmorph.original import vxm

_original = vxm.py.utils

affine_shift_to_matrix = _original.affine_shift_to_matrix
clean_seg = _original.clean_seg
clean_seg_batch = _original.clean_seg_batch
default_unet_features = _original.default_unet_features
dice = _original.dice
dist_trf = _original.dist_trf
edge_to_surface_pts = _original.edge_to_surface_pts
extract_largest_vol = _original.extract_largest_vol
filter_labels = _original.filter_labels
get_backend = _original.get_backend
get_surface_pts_per_label = _original.get_surface_pts_per_label
jacobian_determinant = _original.jacobian_determinant
pad = _original.pad
read_file_list = _original.read_file_list
read_pair_list = _original.read_pair_list
resize = _original.resize
sdt_to_surface_pts = _original.sdt_to_surface_pts
signed_dist_trf = _original.signed_dist_trf
vol_to_sdt = _original.vol_to_sdt
vol_to_sdt_batch = _original.vol_to_sdt_batch

_MEDICAL = (".nii", ".nii.gz", ".mgz")
_READABLE = (*_MEDICAL, ".npy", ".npz")


def load_volfile(
    filename,
    np_var: str = "vol",
    add_batch_axis: bool = False,
    add_feat_axis: bool = False,
    pad_shape=None,
    resize_factor: float = 1,
    ret_affine: bool = False,
):
    """Load a volume, or prepare one that is already in memory.

    Args:
        filename: path of a `.nii`, `.nii.gz`, `.mgz`, `.npz` or `.npy` file, or an array (with `ret_affine`, a pair
            of array and affine).
        np_var: name of the array in an `.npz` file that holds more than one.
        add_batch_axis, add_feat_axis: add a first, a last axis.
        pad_shape: pad with zeros around the centre to this shape.
        resize_factor: resample by this factor, nearest neighbour.
        ret_affine: also return the voxel-to-RAS matrix, None where the file has none.

    Returns:
        The array, in the file's own type, or the pair of it and its affine, voxel to RAS mm.

    Raises:
        ValueError: no such file, a file that cannot be read, an unknown type, or no array `np_var`.
    """
    affine = None
    if isinstance(filename, (str, os.PathLike)):
        vol, affine = _read(str(filename), np_var)
    elif ret_affine:
        vol, affine = filename
    else:
        vol = filename
    if pad_shape:
        vol, _ = pad(vol, pad_shape)
    if add_feat_axis:
        vol = vol[..., np.newaxis]
    if resize_factor != 1:
        vol = resize(vol, resize_factor)
    if add_batch_axis:
        vol = vol[np.newaxis, ...]
    return (vol, affine) if ret_affine else vol


def _read(path: str, np_var: str):
    if not os.path.isfile(path):
        raise ValueError(f"no such file: {path!r}")
    if not path.endswith(_READABLE):
        raise ValueError(f"cannot read {path!r}: expected a file that ends in {', '.join(_READABLE)}")
    try:
        volume, affine = _read_medical(path) if path.endswith(_MEDICAL) else (_read_numpy(path, np_var), None)
        # FreeSurfer's files have the byte order that TensorFlow does not take.
        return volume.astype(volume.dtype.newbyteorder("="), copy=False), affine
    except Exception as error:
        if isinstance(error, ValueError) and path in str(error):
            raise
        raise ValueError(f"cannot read {path!r}, which is damaged or of another type: {error}") from error


def _read_medical(path: str):
    import nibabel

    image = nibabel.load(path)
    mgh = isinstance(image, nibabel.MGHImage)  # FreeSurfer's volumes are in mm
    affine = image.affine if mgh else place_of(Path(path), image).affine
    return np.asanyarray(image.dataobj).squeeze(), affine


def _read_numpy(path: str, np_var: str) -> np.ndarray:
    loaded = np.load(path)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as arrays:
        names = list(arrays)
        if len(names) != 1 and np_var not in names:
            raise ValueError(f"{path} holds the arrays {names}, none of them is np_var={np_var!r}")
        return arrays[names[0] if len(names) == 1 else np_var]


def save_volfile(array, filename, affine=None) -> None:
    """Save an array as `.nii`, `.nii.gz` or `.npz` (array `vol`).

    Args:
        array: numpy array. NIfTI has no booleans, and few programs read its 64-bit integers: they are written as
            8-bit and, where the values fit, as 32-bit integers.
        filename: where to write.
        affine: voxel-to-RAS matrix; for None, VoxelMorph's LIA orientation about the centre.

    Raises:
        ValueError: unknown file type.
    """
    array = np.asarray(array)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype in (np.int64, np.uint64):
        narrow = array.astype(np.int32)
        array = narrow if np.array_equal(narrow, array) else array.astype(np.float64)
    _original.save_volfile(array, str(filename), affine)


def load_labels(arg):
    """Load label maps of one shape: `(sorted unique labels, list of integer maps)`.

    Args:
        arg: folder, glob pattern, or a list of these.
    """
    return _original.load_labels([str(a) for a in arg] if isinstance(arg, (list, tuple)) else str(arg))


def load_pheno_csv(filename, training_files=None):
    """Read attributes: one line a training file, `name,attribute,…` under a header line.

    Args:
        filename: CSV file.
        training_files: paths to look up by their base name; those without attributes are left out. None takes the
            names in the file.

    Returns:
        `(dictionary from file name, and from path, to its attributes, list of training files)`.
    """
    with open(filename, newline="") as file:
        rows = [row for row in csv.reader(file) if row][1:]
    pheno = {row[0]: np.array([float(value) for value in row[1:]]) for row in rows}
    if training_files is None:
        return pheno, list(pheno)
    found = [path for path in training_files if Path(path).name in pheno]
    pheno.update({path: pheno[Path(path).name] for path in found})
    return pheno, found
