"""Images, transforms and points on disk: reading and writing with errors that name the file; from grid to grid."""

from hetmorph.io.apply import warp_image, warp_labels
from hetmorph.io.atomic import replacing
from hetmorph.io.bids import bids_names, describe_dataset
from hetmorph.io.chain import SMALL, Chain, Inverse, check_inverse, inverse, read_chain
from hetmorph.io.errors import DataError, DataWarning
from hetmorph.io.geometry import (
    Grid,
    convert_displacement,
    from_slices,
    model_grid,
    resample,
    through_plane,
)
from hetmorph.io.images import Image, matched_grid, read_image, write_image
from hetmorph.io.known import check_mask, read_landmarks
from hetmorph.io.points import Points, read_points, transform_points, world_points, write_points
from hetmorph.io.sidecar import provenance, sidecar_of, write_sidecar
from hetmorph.io.transforms import FORMATS, Transform, convert, read_transform, write_transform
from hetmorph.io.vectors import CONVENTIONS

__all__ = [
    "CONVENTIONS",
    "FORMATS",
    "SMALL",
    "Chain",
    "DataError",
    "DataWarning",
    "Grid",
    "Image",
    "Inverse",
    "Points",
    "Transform",
    "bids_names",
    "check_inverse",
    "check_mask",
    "convert",
    "convert_displacement",
    "describe_dataset",
    "from_slices",
    "inverse",
    "matched_grid",
    "model_grid",
    "provenance",
    "read_chain",
    "read_image",
    "read_landmarks",
    "read_points",
    "read_transform",
    "replacing",
    "resample",
    "sidecar_of",
    "through_plane",
    "transform_points",
    "warp_image",
    "warp_labels",
    "world_points",
    "write_image",
    "write_points",
    "write_sidecar",
    "write_transform",
]
