"""hetmorph: unsupervised deformable registration that also says how sure it is."""

from hetmorph.version import __version__

__all__ = ["__version__"]
