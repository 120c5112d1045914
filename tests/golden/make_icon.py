"""Write `icon.npz` beside this script, with the originals of the ICON family: icon-registration 1.1.9 under PyTorch.

Run by hand in an environment of its own: `pip install --no-deps icon-registration==1.1.9 torch==2.13.0`, and what they
import. Weights, images and noise follow from `icon_recipes.py`; only what the originals make of them is stored.
tests/networks/test_icon.py compares hetmorph with it.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.modules["torchvision"] = ModuleType("torchvision")  # imported by the originals, and not used by what runs here

import icon_recipes as recipes  # noqa: E402
import icon_registration as icon  # noqa: E402
from icon_registration import constricon, data, losses, networks  # noqa: E402


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def batch(image):
    return tensor(image[None, None])


def to_torch(kernel):
    """A kernel `[…, a, b]` of Keras as `[b, a, …]`; of a transposed convolution that is again what PyTorch has."""
    return tensor(np.moveaxis(kernel, (-1, -2), (0, 1)))


def filled(network, arrays):
    """A U-Net of the originals with the arrays of `unet_weights`."""
    left = iter(arrays)

    def fill(layer):
        layer.weight.copy_(to_torch(next(left)))
        layer.bias.copy_(tensor(next(left)))

    with torch.no_grad():
        for layer in network.downConvs:
            fill(layer)
        for level in reversed(range(network.num_layers)):
            fill(network.upConvs[level])
            norm = network.batchNorms[level]
            for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                part.copy_(tensor(next(left)))
        fill(network.lastConv)
    assert not list(left)
    return network.eval()


def narrow(seed, last=0.1):
    channels = [[2, *recipes.NARROW], recipes.NARROW_UP[::-1]]
    weights = recipes.unet_weights(2, seed, recipes.NARROW, recipes.NARROW_UP, last)
    return filled(networks.UNet2(len(recipes.NARROW), channels, 2), weights)


def matrix_network(seed):
    network, left = networks.ConvolutionalMatrixNet(2), iter(recipes.matrix_weights(2, seed))
    with torch.no_grad():
        for layer in network.convs:
            layer.weight.copy_(to_torch(next(left)))
            layer.bias.copy_(tensor(next(left)))
        for layer in (network.dense2, network.dense3):
            layer.weight.copy_(tensor(next(left).T))
            layer.bias.copy_(tensor(next(left)))
    return network.eval()


def field(transform, module):
    """φ(x) − x at the voxels, in the unit cube, components last."""
    module.identity_map.isIdentity = True
    return np.moveaxis((transform(module.identity_map) - module.identity_map)[0].numpy(), 0, -1)


def with_noise(module, seed=99):
    """The module's numbers for the two images, its noise that of the recipe."""
    draw, torch.randn = torch.randn, lambda *shape: tensor(recipes.jitter(shape[2:], seed)[None])
    try:
        return module(*[batch(image) for image in recipes.images(recipes.SIZE, 5)])
    finally:
        torch.randn = draw


def unets():
    found = {}
    for ndims, shape in ((2, (21, 26)), (3, (17, 19, 18))):
        network = filled(networks.tallUNet2(ndims), recipes.unet_weights(ndims, seed=ndims))
        result = network(*[batch(image) for image in recipes.images(shape, ndims)])[0]
        every = [slice(None, None, ndims - 1)] * ndims  # of the volume, every second voxel
        found[f"unet_{ndims}d"] = np.moveaxis(result.numpy(), 0, -1)[tuple(every)]
        found[f"unet_{ndims}d_count"] = sum(p.numel() for p in network.parameters())
    network = networks.ConvolutionalMatrixNet(3)
    found["matrix_3d_count"] = sum(p.numel() for p in network.parameters())
    return found


def compositions():
    """A network at a quarter, half and all of the resolution, as in GradICON, and the penalties."""
    steps = [icon.FunctionFromVectorField(narrow(seed)) for seed in (11, 12, 13)]
    down = icon.DownsampleRegistration
    net = icon.TwoStepRegistration(
        down(icon.TwoStepRegistration(down(steps[0], 2), steps[1]), 2), steps[2]
    )  # fmt: skip
    found = {}
    for name, kind in (("icon", losses.InverseConsistentNet), ("dense", icon.GradientICON),
                       ("sparse", losses.GradientICONSparse)):  # fmt: skip
        module = kind(net, icon.LNCC(sigma=2), 1.5)
        module.assign_identity_map((1, 1, *recipes.SIZE))
        numbers = with_noise(module)
        found[f"{name}_penalty"], found[f"{name}_loss"] = (float(numbers[i]) for i in (1, 0))
        found["flips"], found["similarity"] = float(numbers.flips), float(numbers.similarity_loss)
    found["composed"], found["composed_back"] = field(module.phi_AB, module), field(module.phi_BA, module)
    return found


def velocity():
    step = icon.network_wrappers.SquaringVelocityField(narrow(21, last=0.5))
    step.assign_identity_map((1, 1, *recipes.SIZE))
    phi = step(*[batch(image) for image in recipes.images(recipes.SIZE, 5)])
    return {"velocity": field(phi, step)}


def consistent():
    """Both directions of an affine step, a rigid one, a velocity, and three in two steps; the diffusion of the last."""
    affine = constricon.ConsistentFromMatrix(matrix_network(31))
    rigid = constricon.ConsistentFromMatrix(constricon.AntiDiagonalize(matrix_network(31)))
    svfs = [constricon.ICONSquaringVelocityField(narrow(seed, last=0.5)) for seed in (32, 33)]
    two = constricon.TwoStepInverseConsistent
    # Matrices are those of a square image, in which the unit cube is as long along both axes.
    size, found = (36, 36), {}
    cases = {"affine": affine, "rigid": rigid, "svf": svfs[0], "two": two(affine, two(*svfs))}
    for name, module in cases.items():
        module.assign_identity_map((1, 1, *size))
        there, back = module(*[batch(image) for image in recipes.images(size, 7)])
        for suffix, phi in (("", there), ("_back", back)):
            found[f"consistent_{name}{suffix}"] = field(phi, module)[::2, ::2]
    loss = constricon.VelocityFieldDiffusion(constricon.FirstTransform(cases["two"]), icon.LNCC(sigma=2), 5.0)
    loss.assign_identity_map((1, 1, *size))
    numbers = loss(*[batch(image) for image in recipes.images(size, 7)])
    found["diffusion"], found["diffusion_loss"] = float(numbers.bending_energy_loss), float(numbers.all_loss)
    return found


def similarities():
    found = {}
    for ndims, shape in ((2, (30, 24)), (3, (12, 14, 11))):
        a, b = (batch(image) for image in recipes.images(shape, 50 + ndims))
        for sigma in (2, 5):
            found[f"lncc_{ndims}d_{sigma}"] = float(icon.LNCC(sigma)(a, b))
            found[f"squared_lncc_{ndims}d_{sigma}"] = float(losses.SquaredLNCC(sigma)(a, b))
        found[f"ncc_{ndims}d"] = float(losses.NCC()(a, b))
        if ndims == 3:
            for radius, dilation in ((2, 2), (1, 2)):
                found[f"mind_{radius}_{dilation}"] = float(losses.MINDSSC(radius, dilation)(a, b))
        noise = recipes.jitter(shape, 60 + ndims)[None]
        identity = np.indices(shape).astype("float32")[None]
        found[f"flips_{ndims}d"] = float(losses.flips(tensor(identity + 0.5 * noise)))
    return found


def triangles():
    found = {}
    for hollow in (False, True):
        np.random.seed(8)
        loader, _ = data.get_dataset_triangles(data_size=24, hollow=hollow, samples=6)
        found["hollow" if hollow else "filled"] = loader.dataset.tensors[0].numpy()[:, 0].astype("float16")
    return found


if __name__ == "__main__":
    with torch.no_grad():
        parts = unets() | compositions() | velocity() | consistent() | similarities() | triangles()
    np.savez_compressed(HERE / "icon.npz", **parts)
    for name, value in parts.items():
        print(name, value if np.ndim(value) == 0 else f"{value.shape} {np.abs(value).max():.4g}")
