import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from hetmorph import layers
from hetmorph.layers.attention import relative_positions, shift_regions, window_partition, window_reverse
from tests.contract import check_layer

WINDOW = {2: (4, 3), 3: (2, 3, 4)}


def features(ndims, batch, rng):
    return rng.normal(size=(batch, *range(5, 5 + ndims), 4))


def attention(**options):
    return lambda ndims: {"num_heads": 2, "window_size": list(WINDOW[ndims]), **options}


CONTRACTS = [
    (layers.WindowAttention, attention(), features),
    (layers.WindowAttention, attention(shifted=True, qkv_bias=True), features),
    (layers.SwinBlock, attention(), features),
    (layers.SwinBlock, attention(shifted=True, mlp_ratio=2, drop_path=0.4, qkv_bias=True), features),
    (layers.PatchEmbed, {"embed_dim": 6, "patch_size": 4}, features),
    (layers.PatchMerging, {}, features),
    (layers.DropPath, {"rate": 0.5, "seed": 1}, features),
]


@pytest.mark.quick("3", "4", "6")
@pytest.mark.parametrize("case", range(len(CONTRACTS)))
def test_contract(case):
    check_layer(*CONTRACTS[case])


@pytest.mark.parametrize("ndims", [2, 3])
def test_partition_keeps_windows_together_and_is_undone(ndims):
    window, counts = WINDOW[ndims], (3, 2, 2)[:ndims]
    sizes = [w * n for w, n in zip(window, counts, strict=True)]
    image = np.arange(2 * np.prod(sizes) * 2).reshape(2, *sizes, 2)
    windows = window_partition(tf.constant(image), window)
    for number, corner in enumerate(np.ndindex(*counts)):
        cut = tuple(slice(c * w, c * w + w) for c, w in zip(corner, window, strict=True))
        np.testing.assert_array_equal(windows[number], image[0][cut].reshape(-1, 2))
    np.testing.assert_array_equal(window_reverse(windows, window, sizes), image)


@pytest.mark.parametrize("ndims", [2, 3])
def test_positions_are_numbered_by_offset(ndims):
    window = WINDOW[ndims]
    index = relative_positions(window).numpy()
    offsets = list(itertools.product(*[range(1 - w, w) for w in window]))
    voxels = list(np.ndindex(*window))
    for (i, a), (j, b) in itertools.product(enumerate(voxels), repeat=2):
        assert offsets[index[i, j]] == tuple(np.subtract(a, b))


def attend_by_hand(layer, image):
    """Attention of one sample in float64: each voxel finds the voxels of its window by their coordinates."""
    channels, heads, window = image.shape[-1], layer.num_heads, layer.window_size
    full = [-(-s // w) * w for s, w in zip(image.shape, window, strict=False)]
    padded = np.pad(image, [*[(0, f - s) for f, s in zip(full, image.shape, strict=False)], (0, 0)])
    shift = np.array([w // 2 if layer.shifted else 0 for w in window])
    kernel, bias = layer.qkv.kernel.numpy().astype(float), 0
    if layer.qkv_bias:
        bias = layer.qkv.bias.numpy()
    queries, keys, values = np.split(padded @ kernel + bias, 3, axis=-1)
    table = layer.position_bias.numpy().reshape(*[2 * w - 1 for w in window], heads)
    # Windows begin at `shift`; what lies before is cut off at the image's start, not joined with its end.
    cell = {place: tuple((np.subtract(place, shift)) // window) for place in np.ndindex(*full)}
    depth, result = channels // heads, np.zeros_like(padded)
    for place, own in cell.items():
        others = [other for other in cell if cell[other] == own]
        for head in range(heads):
            part = slice(head * depth, (head + 1) * depth)
            score = [
                queries[place][part] @ keys[other][part] / np.sqrt(depth)
                + table[(*(np.subtract(place, other) + window - 1), head)]
                for other in others
            ]
            result[(*place, part)] = softmax(score) @ [values[other][part] for other in others]
    projected = result @ layer.projection.kernel.numpy() + layer.projection.bias.numpy()
    return projected[tuple(slice(s) for s in image.shape[:-1])]


@pytest.mark.quick("False-False-2", "False-False-3", "False-True-2", "True-False-2", "True-True-2", "True-True-3")
@pytest.mark.parametrize("ndims", [2, 3])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_attention_equals_its_definition(rng, ndims, shifted, qkv_bias):
    layer = layers.WindowAttention(2, WINDOW[ndims], shifted, qkv_bias)
    image = rng.normal(size=(2, *(6, 5, 5)[:ndims], 4)).astype("float32")
    layer.build(image.shape)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    for sample, result in zip(image, layer(image), strict=True):
        np.testing.assert_allclose(result, attend_by_hand(layer, sample), atol=1e-4)


def influence(layer, shape, place):
    """Where the output changes with one voxel of the input: `[*S]` of booleans."""
    image = tf.Variable(np.random.default_rng(0).normal(size=(1, *shape, 4)).astype("float32"))
    before = layer(image).numpy()
    image[(0, *place)].assign(image[(0, *place)] + 1)
    return np.abs(layer(image).numpy() - before).max(-1)[0] > 1e-6


def test_windows_do_not_see_each_other():
    layer = layers.WindowAttention(2, (4, 4))
    seen = influence(layer, (8, 8), (3, 3))
    assert seen[:4, :4].all() and not seen[4:].any() and not seen[:, 4:].any()


def test_shifted_windows_join_neighbours_but_not_the_images_ends():
    layer = layers.WindowAttention(2, (4, 4), shifted=True)
    seen = influence(layer, (8, 8), (3, 3))
    assert seen[2:6, 2:6].all() and seen.sum() == 16
    corner = influence(layer, (8, 8), (0, 0))
    assert corner[:2, :2].all() and corner.sum() == 4
    other_end = influence(layer, (8, 8), (7, 4))
    assert other_end[6:, 2:6].all() and other_end.sum() == 8


def test_an_image_smaller_than_its_window_is_kept_apart_too():
    layer = layers.WindowAttention(2, (4, 4), shifted=True)
    seen = influence(layer, (3, 4), (0, 1))
    assert seen[:2, :2].all() and seen.sum() == 4


def test_regions_of_a_window_without_shift_partner():
    regions = shift_regions([8, 8], (4, 4)).numpy()
    assert regions.shape == (4, 16)
    assert [len(np.unique(r)) for r in regions] == [1, 2, 2, 4]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_under_any_policy(policy):
    """1e4 and 1e4 + 1 are one number in half precision."""
    layer = layers.WindowAttention(1, (2, 2), dtype=policy)
    image = np.eye(4, dtype="float32").reshape(1, 2, 2, 4)  # the output is then the weights themselves
    layer.build(image.shape)
    table = np.full((9, 1), 1e4)
    table[0] += 1  # from the first voxel to the last
    layer.position_bias.assign(table)
    layer.qkv.kernel.assign(np.eye(4, 12, k=8))
    layer.projection.kernel.assign(np.eye(4))
    np.testing.assert_allclose(layer(image)[0, 0, 0], softmax([0, 0, 0, 1]), atol=2e-3)


def test_drop_path_leaves_out_whole_samples(rng):
    image = rng.normal(size=(400, 3, 3, 2)).astype("float32")
    layer = layers.DropPath(0.25, seed=2)
    np.testing.assert_array_equal(layer(image), image)
    result = layer(image, training=True).numpy()
    kept = np.any(result != 0, axis=(1, 2, 3))
    np.testing.assert_allclose(result[kept], image[kept] / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.08
    assert (layer(image, training=True).numpy() != result).any()
    np.testing.assert_array_equal(layers.DropPath(0.25, seed=2)(image, training=True), result)
    np.testing.assert_array_equal(layers.DropPath(0.0)(image, training=True), image)


def test_a_block_without_its_branches_is_the_identity(rng):
    block = layers.SwinBlock(2, (4, 4), drop_path=0.999)
    image = rng.normal(size=(4, 8, 8, 4)).astype("float32")
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(block(image, training=True), image)
    assert np.abs(block(image) - image).max() > 0.01


@pytest.mark.parametrize("ndims", [2, 3])
def test_patch_embedding_is_a_convolution(rng, ndims):
    image = rng.normal(size=(2, *(8, 12, 8)[:ndims], 3)).astype("float32")
    layer = layers.PatchEmbed(5)
    result = layer(image)
    kernel = tf.reshape(layer.projection.kernel, [*[4] * ndims, 3, 5])
    projected = tf.nn.convolution(image, kernel, strides=4, padding="VALID")
    np.testing.assert_allclose(result, layer.norm(projected), atol=1e-5)


def test_merging_gathers_blocks(rng):
    image = rng.normal(size=(1, 5, 4, 3)).astype("float32")
    layer = layers.PatchMerging()
    result = layer(image)
    assert result.shape == (1, 3, 2, 6)
    padded = np.pad(image, [(0, 0), (0, 1), (0, 0), (0, 0)])
    block = padded[0, 4:6, 2:4].reshape(1, -1)
    np.testing.assert_allclose(result[0, 2, 1], layer.reduction(layer.norm(block))[0], atol=1e-5)


def test_bad_arguments_are_named():
    image = np.zeros((1, 4, 4, 6), "float32")
    with pytest.raises(ValueError, match="at least 2 voxels"):
        layers.WindowAttention(2, (1, 4))
    with pytest.raises(ValueError, match="does not fit an image"):
        layers.WindowAttention(2, (2, 2, 2))(image)
    with pytest.raises(ValueError, match="num_heads must divide the 6 channels"):
        layers.WindowAttention(4, (2, 2))(image)
    with pytest.raises(ValueError, match="rate must be"):
        layers.DropPath(1.0)
