"""TransMorph in PyTorch, written for the tests: an independent form whose parameters have the authors' names.

Run by itself, with PyTorch, it writes the golden files: `python -m tests.networks.transmorph_torch tests/golden`.
"""

import itertools
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
# Voxels of a block in the order in which the published weights expect them.
ORDER = {
    2: ["00", "10", "01", "11"],
    3: ["000", "100", "010", "001", "110", "011", "101", "111"],
}
CONFIGS = {
    2: {"embed_dim": 8, "depths": (2, 2, 1), "num_heads": (2, 2, 4), "window_size": (4, 3), "reg_head_features": 4},
    3: {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": (2, 3, 4), "reg_head_features": 4},
}
SIZES = {2: (48, 32), 3: (16, 24, 16)}


class Attention(nn.Module):
    def __init__(self, dim, heads, window, qkv_bias):
        super().__init__()
        self.heads, self.window = heads, window
        offsets = list(itertools.product(*[range(1 - w, w) for w in window]))
        number = {offset: i for i, offset in enumerate(offsets)}
        voxels = list(itertools.product(*[range(w) for w in window]))
        index = [[number[tuple(np.subtract(a, b))] for b in voxels] for a in voxels]
        self.relative_position_bias_table = nn.Parameter(torch.zeros(len(offsets), heads))
        self.register_buffer("relative_position_index", torch.tensor(index))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, voxels, allowed):
        """One window of one sample after another: `[n, C]` voxels, `[n, n]` whether they may see each other."""
        count, dim = voxels.shape
        parts = self.qkv(voxels).view(count, 3, self.heads, dim // self.heads)
        result = torch.empty(count, self.heads, dim // self.heads)
        for head in range(self.heads):
            query, key, value = parts[:, 0, head], parts[:, 1, head], parts[:, 2, head]
            score = query @ key.T / query.shape[-1] ** 0.5
            score = score + self.relative_position_bias_table[self.relative_position_index, head]
            score = torch.where(allowed, score, score - 100)
            result[:, head] = torch.softmax(score, -1) @ value
        return self.proj(result.view(count, dim))


class Block(nn.Module):
    def __init__(self, dim, heads, window, shifted, mlp_ratio, qkv_bias):
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, window, qkv_bias)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp_ratio * dim), "fc2": nn.Linear(mlp_ratio * dim, dim)})

    def forward(self, x):
        x = x + torch.stack([self.attend(sample) for sample in self.norm1(x)])
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))

    def attend(self, sample):
        """Attention among the voxels `[*S, C]` of every window, found by their coordinates."""
        sizes = sample.shape[:-1]
        full = [-(-s // w) * w for s, w in zip(sizes, self.window, strict=True)]
        padded = torch.zeros(*full, sample.shape[-1])
        padded[tuple(slice(s) for s in sizes)] = sample
        result = torch.zeros_like(padded)
        shift = [w // 2 if self.shifted else 0 for w in self.window]
        for corner in itertools.product(*[range(0, f, w) for f, w in zip(full, self.window, strict=True)]):
            places, around = [], []
            for place in itertools.product(*[range(c, c + w) for c, w in zip(corner, self.window, strict=True)]):
                moved = [p + s for p, s in zip(place, shift, strict=True)]
                places.append([m % f for m, f in zip(moved, full, strict=True)])
                around.append([m >= f for m, f in zip(moved, full, strict=True)])
            picked = tuple(torch.tensor(places).T)
            around = torch.tensor(around)
            allowed = (around[:, None] == around[None]).all(-1)
            result[picked] = self.attn(padded[picked], allowed)
        return result[tuple(slice(s) for s in sizes)]


class Merging(nn.Module):
    def __init__(self, dim, ndims):
        super().__init__()
        self.order = [tuple(int(digit) for digit in word) for word in ORDER[ndims]]
        self.norm = nn.LayerNorm(2**ndims * dim)
        self.reduction = nn.Linear(2**ndims * dim, 2 * dim, bias=False)

    def forward(self, x):
        parts = [x[(slice(None), *[slice(o, None, 2) for o in offset])] for offset in self.order]
        return self.reduction(self.norm(torch.cat(parts, -1)))


def conv_block(ndims, inputs, outputs):
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[ndims]
    return nn.Sequential(CONV[ndims](inputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.LeakyReLU())


class Up(nn.Module):
    def __init__(self, ndims, inputs, skip, outputs):
        super().__init__()
        self.mode = {2: "bilinear", 3: "trilinear"}[ndims]
        self.conv1 = conv_block(ndims, inputs + skip, outputs)
        self.conv2 = conv_block(ndims, outputs, outputs)

    def forward(self, x, skip):
        x = F.interpolate(x, scale_factor=2, mode=self.mode, align_corners=False)
        return self.conv2(self.conv1(torch.cat([x, skip], 1)))


class Transformer(nn.Module):
    def __init__(self, ndims, embed_dim, depths, num_heads, window_size, mlp_ratio, qkv_bias):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": CONV[ndims](2, embed_dim, 4, 4), "norm": nn.LayerNorm(embed_dim)})
        self.layers = nn.ModuleList()
        for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            dim = embed_dim * 2**i
            blocks = [Block(dim, heads, window_size, j % 2 == 1, mlp_ratio, qkv_bias) for j in range(depth)]
            stage = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
            if i < len(depths) - 1:
                stage["downsample"] = Merging(dim, ndims)
            self.layers.append(stage)
            self.add_module(f"norm{i}", nn.LayerNorm(dim))

    def forward(self, images):
        x = self.patch_embed["norm"](self.patch_embed["proj"](images).movedim(1, -1))
        results = []
        for i, stage in enumerate(self.layers):
            for block in stage["blocks"]:
                x = block(x)
            results.append(getattr(self, f"norm{i}")(x).movedim(-1, 1))
            x = stage["downsample"](x) if "downsample" in stage else x
        return results


class TorchTransMorph(nn.Module):
    """`[B, 2, *S]`, moving and fixed image, to the displacement `[B, N, *S]`; sizes that every stage can halve."""

    def __init__(
        self, ndims, embed_dim, depths, num_heads, window_size, reg_head_features=16, mlp_ratio=4, qkv_bias=False
    ):
        super().__init__()
        self.transformer = Transformer(ndims, embed_dim, depths, num_heads, window_size, mlp_ratio, qkv_bias)
        self.pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[ndims](3, 2, 1)
        self.c1 = conv_block(ndims, 2, embed_dim // 2)
        self.c2 = conv_block(ndims, 2, reg_head_features)
        inputs = embed_dim * 2 ** (len(depths) - 1)
        skips = [*[embed_dim * 2**i for i in range(len(depths) - 1)][::-1], embed_dim // 2, reg_head_features]
        for i, features in enumerate(skips):
            self.add_module(f"up{i}", Up(ndims, inputs, features, features))
            inputs = features
        self.reg_head = nn.Sequential(CONV[ndims](inputs, ndims, 3, padding=1))

    def forward(self, images):
        *encoded, x = self.transformer(images)
        skips = [*reversed(encoded), self.c1(self.pool(images)), self.c2(images)]
        for i, skip in enumerate(skips):
            x = getattr(self, f"up{i}")(x, skip)
        return self.reg_head(x)


def lively(network, seed=0):
    """Random values for every parameter, so that each of them shows in the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            one_for_norms = 1.0 if ".norm" in name and name.endswith("weight") else 0.0
            fan = parameter[0].numel() if parameter.ndim > 1 and "table" not in name else 4
            parameter.copy_(one_for_norms + noise / fan**0.5)
    return network.eval()


def golden(ndims):
    """Images, displacement and weights of a small random network."""
    network = lively(TorchTransMorph(ndims, **CONFIGS[ndims]))
    images = np.random.default_rng(ndims).uniform(size=(1, 2, *SIZES[ndims])).astype("float32")
    with torch.no_grad():
        displacement = network(torch.from_numpy(images)).numpy()
    weights = {f"weight:{name}": value.numpy() for name, value in network.state_dict().items()}
    return {"images": images, "displacement": displacement, **weights}


if __name__ == "__main__":
    for ndims in CONFIGS:
        np.savez_compressed(f"{sys.argv[1]}/transmorph_{ndims}d.npz", **golden(ndims))
