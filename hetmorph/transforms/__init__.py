"""Transforms: functions of points."""

from hetmorph.transforms.inversion import Preimages, preimages

__all__ = ["Preimages", "preimages"]
