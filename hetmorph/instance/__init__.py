"""A model's answer for one pair, optimised further on that pair alone.

What is minimised is D(fixed, moving∘(id + u)) + λ·2‖∇u‖², D an image loss. The factor 2 is the one of training at half
resolution, so that λ means the same. Two things can be varied: a velocity v, u = u₀∘exp(v), on top of the answer u₀ of
any predictor, from coarse to fine images; or the weights of a copy of the network.

Reference: Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538, section V-C.
"""

from hetmorph.instance.criterion import SIMILARITIES, LocalCorrelation
from hetmorph.instance.refined import Refined, Refinement, RefinementWarning
from hetmorph.ops.windows import window_of

__all__ = ["SIMILARITIES", "LocalCorrelation", "Refined", "Refinement", "RefinementWarning", "window_of"]
