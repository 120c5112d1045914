"""Trained models outside Python training code."""

from hetmorph.serving.export import export_savedmodel

__all__ = ["export_savedmodel"]
