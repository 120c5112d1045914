"""The step that trains a model: players with losses, variables and optimisers of their own; on one device or more."""

from hetmorph.training import distribution, fitting, hosts
from hetmorph.training.distribution import Distribution, distribute, replicas
from hetmorph.training.step import Play, Player, Trained, global_mean

__all__ = [
    "Distribution",
    "Play",
    "Player",
    "Trained",
    "distribute",
    "distribution",
    "fitting",
    "global_mean",
    "hosts",
    "replicas",
]
