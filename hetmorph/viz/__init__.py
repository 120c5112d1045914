"""Pictures of a registration. Matplotlib is imported only when one is drawn, and its global state is not
touched."""

from hetmorph.viz.figures import summary_figure

__all__ = ["summary_figure"]
