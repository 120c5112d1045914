"""The step that trains a model: players with losses, variables and optimisers of their own; and callbacks for two."""

from hetmorph.training import fitting
from hetmorph.training.step import Play, Player, Trained, global_mean, replicas

__all__ = ["Play", "Player", "Trained", "fitting", "global_mean", "replicas"]
