"""A scan warped by a transform, as a model."""

import keras

from hetmorph import layers
from hetmorph.networks.base import LoadableModel, store_config_args


@keras.saving.register_keras_serializable("hetmorph")
class Transform(LoadableModel):
    """Model `[scan, transform] → warped scan` for a dense (voxels) or affine transform.

    Args:
        inshape: spatial size of the scan.
        affine: whether the transform is a matrix `[B, N, N+1]`.
        interp_method: "linear" or "nearest".
        rescale: factor by which the transform is upsampled first (it is given at size / rescale).
        fill_value: value outside the scan; None repeats the edge.
        nb_feats: channels of the scan.
    """

    @store_config_args
    def __init__(self, inshape, affine=False, interp_method="linear", rescale=None, fill_value=None, nb_feats=1):
        ndims = len(inshape)
        scan = keras.Input((*inshape, nb_feats), name="scan_input")
        if affine:
            shape = (ndims, ndims + 1)
        else:
            shape = (*(d if rescale is None or d is None else int(d / rescale) for d in inshape), ndims)
        transform = keras.Input(shape, name="trf_input")
        scaled = transform if rescale is None else layers.RescaleTransform(rescale, dtype="float32")(transform)
        warp = layers.SpatialTransformer(interp_method, name="transformer", fill_value=fill_value, dtype="float32")
        super().__init__(inputs=[scan, transform], outputs=warp([scan, scaled]))
