"""The step that trains a model: players with losses, variables and optimisers of their own."""

from hetmorph.training.step import Play, Player, Trained, global_mean, replicas

__all__ = ["Play", "Player", "Trained", "global_mean", "replicas"]
