"""The noise-variance estimator."""

import keras

from hetmorph import layers
from hetmorph.networks.unet import Ends, Unet, unet_features


def variance_network(
    inshape,
    features=None,
    nb_feats: int = 1,
    bounds: tuple[float, float] = (-12.0, 2.0),
    name: str = "variance",
    slabs: int = 1,
    resolution: int = 1,
) -> keras.Model:
    """U-Net from `concat(moved, fixed)` to log σ² of the residual, a 3-wide convolution as its head.

    Args:
        inshape: spatial size; None entries take any. Any size: padded and cropped inside.
        features: [encoder, decoder] features of the U-Net; None takes VoxelMorph's default.
        nb_feats: channels of each image.
        bounds: smooth bounds of log σ² for images in [0, 1]. The default allows σ from 0.0025 to e and starts at
            σ = 0.08.
        name: name and prefix of all layer names.
        slabs: as in `VxmDense`.
        resolution: voxel size of the grid of log σ², in image voxels, a power of two; linearly interpolated. At 1 the
            network, which sees both images, can repeat each voxel's residual; a coarser grid has to average over them.

    Returns:
        Model `[B, *S, 2·nb_feats] → [B, *S, nb_feats]`, float32.
    """
    check_resolution(resolution)
    encoder, _ = unet_features(features, None, 1, 1)
    multiple = max(2 ** len(encoder), resolution)
    image = keras.Input((*inshape, 2 * nb_feats), name=f"{name}_input")
    fits = None not in inshape and all(d % multiple == 0 for d in inshape)
    padded = image if fits else layers.PadToMultiple(multiple, name=f"{name}_pad")(image)
    conv = getattr(layers, f"Conv{len(inshape)}D")
    head = conv(nb_feats, 3, padding="same", name=f"{name}_head", dtype="float32")
    unet = Unet(input_model=Ends([image], [padded]), nb_features=features, name=f"{name}_unet", slabs=slabs, head=head)
    log_variance = _coarse(unet.output, resolution, name)
    log_variance = layers.SoftBound(*bounds, dtype="float32", name=f"{name}_bound")(log_variance)
    if not fits:
        log_variance = layers.CropToReference(name=f"{name}_crop", dtype="float32")([log_variance, image])
    return keras.Model(image, log_variance, name=name)


def check_resolution(resolution: int) -> None:
    """Refuse what is no power of two."""
    if resolution < 1 or resolution & (resolution - 1):
        raise ValueError(f"the resolution of the variance must be a power of two, got {resolution}")


def _coarse(x, resolution: int, name: str):
    """Averages over blocks of `resolution` voxels along each axis, interpolated linearly."""
    if resolution == 1:
        return x
    pool = getattr(keras.layers, f"AveragePooling{len(x.shape) - 2}D")
    x = pool(resolution, data_format="channels_last", dtype="float32", name=f"{name}_average")(x)
    for k in range(resolution.bit_length() - 1):
        x = layers.LinearUpsampling(dtype="float32", name=f"{name}_upsample_{k}")(x)
    return x
