"""Data sets as pairs of images, splits of patients, and the stream of training batches."""

from hetmorph.data.crop import CROPS
from hetmorph.data.pair import LoadedSet, Pair
from hetmorph.data.pipeline import pipeline
from hetmorph.data.registry import datasets, load
from hetmorph.data.splits import load_splits, make_splits, save_splits
from hetmorph.io import DataError

__all__ = [
    "CROPS",
    "DataError",
    "LoadedSet",
    "Pair",
    "datasets",
    "load",
    "load_splits",
    "make_splits",
    "pipeline",
    "save_splits",
]
