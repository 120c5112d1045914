"""VoxelMorph's generators, for Keras 3.

They yield lists of inputs and of outputs in the original; Keras 3's `fit` takes tuples. Names, arguments and random
choices are the original's:

>>> model.fit(scan_to_scan(volumes, batch_size=4), steps_per_epoch=100)
"""

import functools
import os

import numpy as np

from hetmorph.networks.base import for_keras
from hetmorph.voxelmorph.original import vxm
from hetmorph.voxelmorph.py.utils import load_volfile

_original = vxm.generators


def _paths_as_strings(value):
    if isinstance(value, (list, tuple)):
        return [_paths_as_strings(v) for v in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _yielding_tuples(generator):
    @functools.wraps(generator)
    def wrapper(*args, **kwargs):
        args = [_paths_as_strings(a) for a in args]
        kwargs = {key: _paths_as_strings(value) for key, value in kwargs.items()}
        for batch in generator(*args, **kwargs):
            yield for_keras(batch)

    return wrapper


conditional_template_creation = _yielding_tuples(_original.conditional_template_creation)
scan_to_atlas = _yielding_tuples(_original.scan_to_atlas)
scan_to_scan = _yielding_tuples(_original.scan_to_scan)
surf_semisupervised = _yielding_tuples(_original.surf_semisupervised)
synthmorph = _yielding_tuples(_original.synthmorph)
template_creation = _yielding_tuples(_original.template_creation)
volgen = _yielding_tuples(_original.volgen)


def semisupervised(vol_names, seg_names, labels, atlas_file=None, downsize=2):
    """Pairs with their segmentations, for `VxmDenseSemiSupervisedSeg`; 1-D to 3-D, where the original is 3-D only.

    Args:
        vol_names: volume files or volumes.
        seg_names: segmentation files or segmentations, in the same order.
        labels: label values to use.
        atlas_file: `.npz` file with arrays `vol` and `seg` that every volume is registered to.
        downsize: factor by which segmentations are subsampled.

    Yields:
        `((source, target, source_seg), (target, zeros, target_seg))`, segmentations one channel a label.
    """
    labels = np.asarray(labels)

    def channels(seg):
        every = (slice(None), *[slice(None, None, downsize)] * (seg.ndim - 2))
        return (seg == labels).astype(np.float32)[every]

    pairs = volgen(vol_names, segs=seg_names, np_var="vol")
    atlas = None
    if atlas_file:
        atlas = [load_volfile(atlas_file, name, add_batch_axis=True, add_feat_axis=True) for name in ("vol", "seg")]
    while True:
        source, source_seg = next(pairs)
        target, target_seg = atlas or next(pairs)
        grid = source.shape[1:-1]
        zeros = np.zeros((1, *grid, len(grid)), np.float32)
        target_seg = channels(target_seg)
        yield for_keras(((source, target, channels(source_seg)), (target, zeros, target_seg)))
