"""Data sets as pairs of images, splits of patients, and the stream of training batches."""

from hetmorph.data.artefacts import NOISE_KINDS, add_artefact, add_noise
from hetmorph.data.dataset import Dataset
from hetmorph.data.known_warp import warp_by, warp_known
from hetmorph.data.lazy import LazyPairs, subset
from hetmorph.data.noise import add_rician
from hetmorph.data.pair import Case, LoadedSet, Pair
from hetmorph.data.pipeline import common_shape, pipeline
from hetmorph.data.registry import CROPS, dataset, datasets, is_table, load, members, register
from hetmorph.data.splits import is_member, load_splits, make_splits, save_splits, splits_name, splits_of
from hetmorph.io import DataError

__all__ = [
    "CROPS",
    "NOISE_KINDS",
    "Case",
    "DataError",
    "Dataset",
    "LazyPairs",
    "LoadedSet",
    "Pair",
    "add_artefact",
    "add_noise",
    "add_rician",
    "common_shape",
    "dataset",
    "datasets",
    "is_member",
    "is_table",
    "load",
    "load_splits",
    "make_splits",
    "members",
    "pipeline",
    "register",
    "save_splits",
    "splits_name",
    "splits_of",
    "subset",
    "warp_by",
    "warp_known",
]
