"""Registration networks."""

from hetmorph.networks.het import HetVxmDense
from hetmorph.networks.unet import Unet, default_unet_features
from hetmorph.networks.vxm import Transform, VxmDense

__all__ = ["HetVxmDense", "Transform", "Unet", "VxmDense", "default_unet_features"]
