"""Registration by one Gaussian likelihood of displacement and variance: the baselines "nll" and "beta-nll"."""

import keras

from hetmorph.networks.base import store_config_args
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.two_networks import TwoNetworks
from hetmorph.networks.vxm import VxmDense
from hetmorph.objectives import JointLikelihood


class _Nll(TwoNetworks):
    """What the joint likelihood models share, ahead of the registration model in the MRO."""

    @store_config_args
    def __init__(
        self,
        inshape,
        *args,
        beta=0.0,
        variance_features=None,
        log_variance_bounds=(-12.0, 2.0),
        variance_resolution=1,
        **kwargs,
    ):
        super().__init__(inshape, *args, **kwargs)
        # Without a warm start: both networks are trained from the first step.
        self._add_variance_network(
            JointLikelihood(beta), variance_features, log_variance_bounds, variance_resolution, 0, "reuse"
        )


@keras.saving.register_keras_serializable("hetmorph")
class NllVxmDense(_Nll, VxmDense):
    """`VxmDense` and a variance network, both trained on the β-NLL `E[sg(σ²)^β (½ r²/σ² + ½ log σ²)] + λ‖∇v‖²`.

    Nothing is detached but the factor sg(σ²)^β: the residual's gradient reaches the variance network, and through its
    input the displacement network. A baseline; `HetVxmDense` is the method that keeps them apart.

    Args:
        inshape: spatial size, as in `VxmDense`.
        beta: exponent β; 0 is the plain likelihood.
        variance_features: U-Net features of the variance network; None takes VoxelMorph's default.
        log_variance_bounds: smooth bounds of log σ².
        variance_resolution: voxel size of the grid of log σ², in image voxels, a power of two.
        kwargs: arguments of `VxmDense`.

    Reference:
        Seitzer et al., ICLR 2022, arXiv:2203.09168; as a baseline in Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """


@keras.saving.register_keras_serializable("hetmorph")
class NllTransMorph(_Nll, TransMorph):
    """`TransMorph` with the variance network and the training of `NllVxmDense`; arguments as there."""
