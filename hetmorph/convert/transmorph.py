"""Weights of the authors' TransMorph checkpoints (PyTorch) for `TransMorph`."""

from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np

from hetmorph.layers.attention import relative_positions
from hetmorph.networks.transmorph import TransMorph

# In which order the authors gather the voxels of a block; ours are in the order of the array.
MERGED = {
    2: [(0, 0), (1, 0), (0, 1), (1, 1)],
    3: [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)],
}
POSITION_INDEX = ".attn.relative_position_index"
SAMPLING_GRID = "spatial_trans.grid"

Target = tuple[keras.Variable, Callable[[np.ndarray], np.ndarray]]


def convert_transmorph(state_dict: Mapping, model: TransMorph) -> TransMorph:
    """Give a model the weights of a checkpoint of the authors' PyTorch network.

    Both then predict the same displacement. The moved images differ outside the source, which is 0 to the authors:
    `fill_value=0.0` does the same here.

    Args:
        state_dict: names to arrays or CPU tensors, or a checkpoint that holds it under "state_dict".
        model: a `TransMorph` of the checkpoint's configuration, with patch_size 4.

    Returns:
        The model.

    Raises:
        ValueError: weights that are missing, that the model has no place for, or of another shape. The model keeps its
            weights then.

    Example:
        >>> checkpoint = torch.load("TransMorph_Validation_dsc0.744.pth.tar", map_location="cpu")
        >>> model = convert_transmorph(checkpoint, TransMorph((160, 192, 224), fill_value=0.0))
        >>> model.save("transmorph.keras")

    Reference:
        https://github.com/junyuchen245/TransMorph_Transformer_for_Medical_Image_Registration
    """
    arrays = {key: np.asarray(value) for key, value in state_dict.get("state_dict", state_dict).items()}
    if model.config.params["patch_size"] != 4:
        raise ValueError(f"the authors' network has patches of 4, got patch_size={model.config.params['patch_size']}")
    _check_constants(arrays, model)
    arrays = {key: value for key, value in arrays.items() if not _is_constant(key)}
    targets = dict(_targets(model))
    missing, unexpected = sorted(targets.keys() - arrays.keys()), sorted(arrays.keys() - targets.keys())
    if missing or unexpected:
        raise ValueError(f"the checkpoint lacks {missing} and has {unexpected}, which the model has no place for")
    converted = {key: convert(arrays[key]) for key, (_, convert) in targets.items()}
    for key, (variable, _) in targets.items():
        if converted[key].shape != tuple(variable.shape):
            raise ValueError(
                f"{key} has shape {arrays[key].shape}, here {converted[key].shape}; the model expects {variable.shape}"
            )
    for key, (variable, _) in targets.items():
        variable.assign(converted[key])
    return model


def _is_constant(key: str) -> bool:
    return key.endswith(POSITION_INDEX) or key == SAMPLING_GRID


def _check_constants(arrays: dict[str, np.ndarray], model: TransMorph) -> None:
    """The checkpoint's indices of relative positions are those that the model computes."""
    window = model.get_layer(f"{model.name}_stage0_block0").window_size
    expected = np.asarray(relative_positions(window))
    for key, value in arrays.items():
        if key.endswith(POSITION_INDEX) and not np.array_equal(value, expected):
            raise ValueError(f"{key} belongs to another window than the model's, {window}")


def _targets(model: TransMorph) -> Iterator[tuple[str, Target]]:
    """For each parameter of the authors: the variable it goes to, and how it becomes that variable's array."""
    ndims, stages = len(model.inshape), len(model.config.params["depths"])

    def layer(part: str) -> keras.layers.Layer:
        return model.get_layer(f"{model.name}_{part}")

    embed = layer("patch_embed")
    yield "transformer.patch_embed.proj.weight", (embed.projection.kernel, _patches)
    yield "transformer.patch_embed.proj.bias", (embed.projection.bias, _same)
    yield from _norm("transformer.patch_embed.norm", embed.norm)
    for stage, depth in enumerate(model.config.params["depths"]):
        for block in range(depth):
            yield from _block(f"transformer.layers.{stage}.blocks.{block}", layer(f"stage{stage}_block{block}"))
        yield from _norm(f"transformer.norm{stage}", layer(f"norm{stage}"))
        if stage < stages - 1:
            merge, key = layer(f"merge{stage}"), f"transformer.layers.{stage}.downsample"
            yield f"{key}.norm.weight", (merge.norm.gamma, _reordered(ndims))
            yield f"{key}.norm.bias", (merge.norm.beta, _reordered(ndims))
            yield f"{key}.reduction.weight", (merge.reduction.kernel, _reordered(ndims))
    for number in range(2):
        yield f"c{number + 1}.0.weight", (layer(f"image_conv{number}").kernel, _channels_last)
    for number in range(stages + 1):
        for k in range(2):
            yield f"up{number}.conv{k + 1}.0.weight", (layer(f"up{number}_conv{k}").kernel, _channels_last)
    yield "reg_head.0.weight", (layer("flow").kernel, _channels_last)
    yield "reg_head.0.bias", (layer("flow").bias, _same)


def _block(key: str, block: keras.layers.Layer) -> Iterator[tuple[str, Target]]:
    yield from _norm(f"{key}.norm1", block.norm1)
    yield f"{key}.attn.relative_position_bias_table", (block.attention.position_bias, _same)
    yield from _dense(f"{key}.attn.qkv", block.attention.qkv)
    yield from _dense(f"{key}.attn.proj", block.attention.projection)
    yield from _norm(f"{key}.norm2", block.norm2)
    yield from _dense(f"{key}.mlp.fc1", block.hidden)
    yield from _dense(f"{key}.mlp.fc2", block.output_dense)


def _norm(key: str, norm: keras.layers.Layer) -> Iterator[tuple[str, Target]]:
    yield f"{key}.weight", (norm.gamma, _same)
    yield f"{key}.bias", (norm.beta, _same)


def _dense(key: str, dense: keras.layers.Layer) -> Iterator[tuple[str, Target]]:
    yield f"{key}.weight", (dense.kernel, np.transpose)
    if dense.use_bias:
        yield f"{key}.bias", (dense.bias, _same)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _channels_last(kernel: np.ndarray) -> np.ndarray:
    """`[out, in, *widths]` to `[*widths, in, out]`."""
    return np.moveaxis(kernel, (1, 0), (-2, -1))


def _patches(kernel: np.ndarray) -> np.ndarray:
    """A convolution as wide as its stride, as the matrix of a patch's voxels."""
    return _channels_last(kernel).reshape(-1, kernel.shape[0])


def _reordered(ndims: int) -> Callable[[np.ndarray], np.ndarray]:
    """Function that puts the voxels of a block, in the last axis of a parameter, first in ours, into our order."""
    order = [MERGED[ndims].index(offset) for offset in np.ndindex((2,) * ndims)]

    def reordered(array: np.ndarray) -> np.ndarray:
        rows = np.transpose(array)
        return rows.reshape(2**ndims, -1, *rows.shape[1:])[order].reshape(rows.shape)

    return reordered
