"""Write `carl.npz` beside this script, with the originals of CARL and uniCARL: icon-registration 1.1.9 under PyTorch.

Run by hand, `python -m tests.golden.make_carl` in the root of the repository, in an environment of its own as for
`make_icon.py`, whose functions it uses. Weights and images follow from the recipes; only what the originals make of
them is stored. tests/networks/test_carl.py compares hetmorph with it.
"""

import contextlib
import sys
from types import ModuleType

import numpy as np
import torch

from tests.golden import carl_recipes as recipes
from tests.golden.icon_recipes import images
from tests.golden.make_icon import HERE, batch, field, icon, narrow, tensor, to_torch

for name in ("torchvision.utils", "matplotlib", "matplotlib.pyplot"):
    sys.modules[name] = ModuleType(name)  # imported by the originals, and not used by what runs here

torch.backends.cuda.sdp_kernel = lambda **_: contextlib.nullcontext()  # they refuse the one kernel a CPU has for them

from icon_registration import carl, networks  # noqa: E402
from icon_registration.unicarl import fixed_point_carl as unicarl  # noqa: E402


def encoder(network, arrays, convolutions):
    """An encoder of the originals with the arrays of `encoder_weights`, its `convolutions` in their order."""
    left, norms = iter(arrays), iter(network.batchnorms)
    with torch.no_grad():
        for layer in convolutions:
            if layer == "norm":
                norm = next(norms)
                for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    part.copy_(tensor(next(left)))
            else:
                layer.weight.copy_(to_torch(next(left)))
                layer.bias.copy_(tensor(next(left)))
    assert not list(left)
    return network.eval()


def in_order(first, later):
    """Convolutions and normalisations of three blocks; the originals list all first convolutions, then all second."""
    return [*first, *(layer for block in range(3) for layer in ("norm", *later[block::3]))]


def plain(ndims, kind=carl.NoDownsampleNet, seed=1, dilations=3):
    network = kind(ndims, recipes.FEATURES)
    arrays = recipes.encoder_weights(ndims, seed, dilations)
    return encoder(network, arrays, in_order(network.convs[:1], network.convs[1:]))


def attention(network, ndims):
    module = carl.AttentionRegistration(network, ndims)
    module.dim = recipes.FEATURES
    return module


def displacement(module, shape, seed):
    module.assign_identity_map((1, 1, *shape))
    return np.moveaxis(module(*[batch(image) for image in images(shape, seed)])[0].numpy(), 0, -1)


def transform(module, shape, seed):
    module.assign_identity_map((1, 1, *shape))
    return module(*[batch(image) for image in images(shape, seed)])


def step(module, shape, seed):
    return field(transform(module, shape, seed), module)


def whole():
    """`make_network_final_final` of the originals, narrow."""
    two, down, function = icon.TwoStepRegistration, icon.DownsampleRegistration, icon.FunctionFromVectorField
    first = down(function(attention(plain(2), 2)), 2)
    return two(down(two(first, function(narrow(11))), 2), function(narrow(12)))


def turned():
    """`augmentify` of the originals, with two given matrices."""
    centred = []
    for matrix in recipes.turns():
        middle, there = np.eye(3), np.eye(3)
        middle[:2, 2], there[:2] = -0.5, matrix
        centred.append(tensor((np.linalg.inv(middle) @ there @ middle)[None].astype("float32")))
    inner = icon.FunctionFromVectorField(attention(plain(2), 2))
    turn, back = (lambda *_, matrix=matrix: matrix for matrix in centred)
    module = icon.TwoStepRegistration(Wrapped(turn), carl.PostStep(Both(back), inner))
    return step(module, recipes.SQUARE, 7)


class Wrapped(icon.FunctionFromMatrix):
    """With a function in the place of a network."""

    def __init__(self, function):
        icon.RegistrationModule.__init__(self)
        self.net = function


class Both(carl.FunctionsFromMatrix):
    """The same."""

    def __init__(self, function):
        icon.RegistrationModule.__init__(self)
        self.net = function


def layout():
    """uniCARL's, of fewer steps: attention at a sixteenth, U-Nets at a quarter and the whole, each smoothed before."""
    unicarl.MODEL_DIM = recipes.FEATURES
    core = unicarl.SomeDownsampleNoDilationNet(2, recipes.FEATURES)
    arrays = recipes.encoder_weights(2, 3, first=recipes.HALVED)
    encoder(core, arrays, in_order([core.convs0, core.convs[0]], core.convs[1:]))
    two, down, continued = icon.TwoStepRegistration, icon.DownsampleRegistration, carl.RotationFunctionFromVectorField
    module = down(unicarl.AttentionFeaturizer(unicarl.Equivariantize(core), 2), 2)
    module = two(unicarl.Blur(module, recipes.SIGMAS[0]), down(continued(narrow(11)), 2))
    module = two(unicarl.Blur(down(module, 2), recipes.SIGMAS[1]), continued(narrow(12)))
    return step(module, recipes.LAYOUT, 9)


def main():
    averaged = attention(carl.Equivariantize(plain(3, carl.NoDownsampleNetBroad, 2, 4)), 3)
    continued = transform(carl.RotationFunctionFromVectorField(averaged), recipes.VOLUME, 6)
    averaged.assign_identity_map((1, 1, *recipes.VOLUME))
    beyond = 1.5 * averaged.identity_map - 0.3
    found = {
        "attention_2d": displacement(attention(plain(2), 2), recipes.SIZE, 5),
        "attention_3d": displacement(attention(plain(3), 3), recipes.VOLUME, 6),
        "averaged_3d": displacement(averaged, recipes.VOLUME, 6),
        "beyond_3d": np.moveaxis((continued(beyond) - beyond)[0].numpy(), 0, -1),
        "whole": step(whole(), recipes.SIZE, 5),
        "turned": turned(),
        "layout": layout(),
    }
    for ndims in (2, 3):
        for name, kind in (("", carl.NoDownsampleNet), ("_broad", carl.NoDownsampleNetBroad)):
            found[f"count_{ndims}d{name}"] = sum(p.numel() for p in kind(ndims).parameters())
    unicarl.MODEL_DIM = 384
    found["count_halved"] = sum(p.numel() for p in unicarl.SomeDownsampleNoDilationNet(3, 384).parameters())
    found["count_unet"] = sum(p.numel() for p in networks.tallUNet2(2).parameters())
    np.savez_compressed(HERE / "carl.npz", **found)
    for name, value in found.items():
        print(name, value if np.ndim(value) == 0 else f"{value.shape} {np.abs(value).max():.4g} {np.std(value):.3g}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
