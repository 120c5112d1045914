"""Registration with a learned noise variance that weights the likelihood."""

import keras

from hetmorph.networks.base import store_config_args
from hetmorph.networks.registration import Registration
from hetmorph.networks.transmorph import TransMorph
from hetmorph.networks.two_networks import TwoNetworks
from hetmorph.networks.vxm import VxmDense
from hetmorph.objectives import Heteroscedastic

VARIANCE_PASSES = ("recompute", "reuse")


def check_variance_pass(name: str) -> None:
    """Refuse what is none of `VARIANCE_PASSES`."""
    if name not in VARIANCE_PASSES:
        raise ValueError(f"variance_pass must be one of {VARIANCE_PASSES}, got {name!r}")


class _Het(TwoNetworks):
    """What the heteroscedastic models share, ahead of the registration model in the MRO."""

    @store_config_args
    def __init__(
        self,
        inshape,
        *args,
        gamma=0.5,
        beta=0.5,
        snr="paper",
        relative="sample",
        foreground=False,
        warm_start=None,
        variance_features=None,
        log_variance_bounds=(-12.0, 2.0),
        variance_pass="reuse",
        variance_resolution=1,
        **kwargs,
    ):
        objective = Heteroscedastic(gamma, beta, snr, relative, foreground)
        check_variance_pass(variance_pass)
        super().__init__(inshape, *args, **kwargs)
        self._add_variance_network(
            objective, variance_features, log_variance_bounds, variance_resolution, warm_start, variance_pass
        )


@keras.saving.register_keras_serializable("hetmorph")
class HetVxmDense(_Het, VxmDense):
    """`VxmDense` with a second network that estimates the noise variance σ² of every voxel.

    Inputs and outputs are those of `VxmDense`, so existing `compile` and `fit` code goes on working. Each step
    first updates the displacement network on `E[w (I_f − Î_f)²] + λ‖∇v‖²`, w the relative signal-to-noise ratio
    from the current variance; then the variance network on the β-NLL of the residual. Neither loss reaches the
    other's network. `fit` warm-starts: N epochs displacement only, N epochs variance only, then both.

    Args:
        inshape: spatial size, as in `VxmDense`.
        gamma, beta, snr, relative, foreground: see `hetmorph.objectives.Heteroscedastic`.
        warm_start: N; None takes a fifteenth of the epochs given to `fit`, as in the paper.
        variance_features: U-Net features of the variance network; None takes VoxelMorph's default.
        log_variance_bounds: smooth bounds of log σ².
        variance_pass: "reuse" updates the variance network on the images that weighted the displacement loss;
            "recompute" warps anew with the updated displacement network before, as published, which takes a third
            longer and measured the same (docs/benchmarks.md).
        variance_resolution: voxel size of the grid of log σ², in image voxels, a power of two.
        kwargs: arguments of `VxmDense`.

    Example:
        >>> model = HetVxmDense((128, 128))
        >>> model.compile(keras.optimizers.Adam(1e-3))   # the paper's losses; or loss=[MSE().loss, Grad("l2").loss]
        >>> model.fit([moving, fixed], epochs=300)
        >>> model.variance(moving, fixed)                # log σ², [B, *S, 1]

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """


@keras.saving.register_keras_serializable("hetmorph")
class HetTransMorph(_Het, TransMorph):
    """`TransMorph` with the variance network and the training of `HetVxmDense`.

    Args:
        inshape: spatial size, as in `TransMorph`.
        gamma, beta, snr, relative, foreground, warm_start, variance_features, log_variance_bounds, variance_pass,
            variance_resolution: as in `HetVxmDense`; the variance network is a U-Net here too, as published.
        kwargs: arguments of `TransMorph`.

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """


@keras.saving.register_keras_serializable("hetmorph")
class HetRegistration(TwoNetworks, Registration):
    """`Registration`, of any step, with the variance network and the training of `HetVxmDense`.

    Args:
        step: from the two images to a transform, see `hetmorph.steps`.
        inshape: spatial size of the images; None entries take any.
        direction: as in `Registration`.
        gamma, beta, snr, relative, foreground: see `hetmorph.objectives.Heteroscedastic`.
        warm_start, variance_features, log_variance_bounds: as in `HetVxmDense`.
        variance_pass, variance_resolution: as in `HetVxmDense`.
        kwargs: arguments of `Registration`.

    Example:
        >>> step = FieldStep(tall_unet((None, None)))
        >>> model = HetRegistration(step, (None, None), "exchange")
        >>> model.compile("adam", [MSE().loss, MSE().loss, None], terms=[GradientInverseConsistency(0.05)])

    Reference:
        Zhang et al., MICCAI 2024, arXiv:2312.00836.
    """

    @store_config_args
    def __init__(
        self,
        step,
        inshape,
        direction=None,
        gamma=0.5,
        beta=0.5,
        snr="paper",
        relative="sample",
        foreground=False,
        warm_start=None,
        variance_features=None,
        log_variance_bounds=(-12.0, 2.0),
        variance_pass="reuse",
        variance_resolution=1,
        **kwargs,
    ):
        objective = Heteroscedastic(gamma, beta, snr, relative, foreground)
        check_variance_pass(variance_pass)
        super().__init__(step, inshape, direction, **kwargs)
        self._add_variance_network(
            objective, variance_features, log_variance_bounds, variance_resolution, warm_start, variance_pass
        )
