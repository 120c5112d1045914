"""Write `unigradicon.trch` and `unigradicon.npz` beside this script, with the originals under PyTorch.

Run by hand, `python -m tests.golden.make_unigradicon` in the root of the repository, in an environment of its own:
`pip install --no-deps unigradicon==1.0.6 icon-registration==1.1.9 torch==2.13.0`, and what they import. The network is
narrow and small, with random weights and random batch statistics; that of the published size is compared by
`benchmarks/unigradicon.py`. tests/convert/test_unigradicon.py compares hetmorph with what is written.
"""

import tempfile
from pathlib import Path

import itk
import nibabel
import numpy as np
import torch
import unigradicon
from icon_registration import itk_wrapper, networks

from tests.golden import unigradicon_recipes as recipes

HERE = Path(__file__).resolve().parent


def lively(network, seed=0):
    """Random weights and statistics, of sizes at which every layer matters."""
    torch.manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean") or ".batchNorms." in name and name.endswith("bias"):
            value.normal_(0.0, 0.1)
        elif ".batchNorms." in name and name.endswith("weight"):
            value.uniform_(0.8, 1.2)
        elif name.endswith("weight"):
            value.normal_(0.0, 1.0 / np.sqrt(value[0].numel()))
        elif name.endswith("bias"):
            value.normal_(0.0, 0.1)
    return network


def narrow(dimension):
    encoder, decoder = recipes.FEATURES
    return networks.UNet2(len(encoder), [[2, *encoder], decoder[::-1]], dimension)


def network(size):
    """The published network of that size, (X, Y, Z), narrow; its arrays are (Z, Y, X)."""
    networks.tallUNet2 = narrow
    net = unigradicon.make_network([1, 1, *size[::-1]], include_last_step=True)
    lively(net.regis_net)
    return net.eval()


def written(role, folder):
    """Paths of image and mask."""
    paths = []
    for name, array in ((role, recipes.volume(role)), (f"{role}_mask", recipes.mask(role))):
        paths.append(str(folder / f"{name}.nii.gz"))
        nibabel.Nifti1Image(array, recipes.AFFINES[role]).to_filename(paths[-1])
    return paths


def resized(image):
    """As `register_pair` resizes it."""
    array = torch.Tensor(np.array(image))[None, None]
    size = recipes.SIZE[::-1]
    return torch.nn.functional.interpolate(array, size=size, mode="trilinear", align_corners=False)


def places(image):
    """LPS mm of every voxel, `[X·Y·Z, 3]`."""
    index = np.stack(np.indices(recipes.SHAPES["fixed"]), -1).reshape(-1, 3)
    return [image.TransformIndexToPhysicalPoint([int(k) for k in one]) for one in index]


def displacement(phi, fixed):
    """What a transform adds to the voxels of the fixed image, `[X, Y, Z, 3]` LPS mm."""
    there = [phi.TransformPoint(place) for place in places(fixed)]
    return (np.array(there) - np.array(places(fixed))).reshape(*recipes.SHAPES["fixed"], 3)


def optimised(net, images, name):
    """Loss before and after some updates, and the displacement after them, `[X, Y, Z, 3]` voxels.

    At points of the inverse consistency that are the recipe's, since another program draws others.
    """
    net.similarity, net.dice_loss_weight = unigradicon.make_sim(name.split()[0]), 0.0
    net.apply_intensity_conservation_loss, known = "mass" in name, {}
    if "dice" in name:
        sides = {"segmentation_A": "moving", "segmentation_B": "fixed"}
        known = {side: torch.Tensor(recipes.labels(role).T)[None, None] for side, role in sides.items()}
        net.dice_loss_weight = recipes.DICE_WEIGHT
    draw, torch.randn = torch.randn, lambda *shape: torch.Tensor(recipes.noise().T.copy())[None]
    try:
        with torch.enable_grad():
            before = net(*images, **known)[0]
            after = itk_wrapper.finetune_execute(net, *images, recipes.UPDATES, recipes.RATE, **known)[0]
    finally:
        torch.randn = draw
    u = (net.phi_AB(net.identity_map) - net.identity_map)[0].detach().numpy()
    return np.array([before.item(), after.item()]), u.T[..., ::-1] * (np.array(recipes.SIZE) - 1)


def main():
    net = network(recipes.SIZE)
    torch.save(net.regis_net.state_dict(), HERE / "unigradicon.trch")
    found = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        read = {role: [itk.imread(p) for p in written(role, Path(folder))] for role in recipes.SHAPES}
        short = {role: itk.CastImageFilter[type(m), itk.Image[itk.SS, 3]].New()(m) for role, (_, m) in read.items()}
        cases = {
            "ct": {"modality": "ct"},
            "window": {"modality": "ct", "ct_window": recipes.WINDOW},
            "mri": {"modality": "mri"},
            "quantiles": {"modality": "mri", "quantile_range": recipes.QUANTILES},
        }
        seen = {}
        for name, how in cases.items():
            for role, (image, _) in read.items():
                mask = short[role] if name == "quantiles" else None
                seen[role, name] = image = unigradicon.preprocess(image, mask=mask, **how)
                if role == "moving":
                    found[f"seen_{name}"] = resized(image)[0, 0].numpy().T[::2, ::2, ::2]
        for name, (a, b) in {"ct to mri": ("ct", "mri"), "mri to ct": ("quantiles", "window")}.items():
            phis = itk_wrapper.register_pair(net, seen["moving", a], seen["fixed", b])
            fixed = read["fixed"][0]
            found[f"{name} mm"] = displacement(phis[0], fixed).astype("float32")[::2, ::2, ::2]
            moving = itk.CastImageFilter[type(read["moving"][0]), itk.Image[itk.F, 3]].New()(read["moving"][0])
            moved = itk.resample_image_filter(
                moving, transform=phis[0], use_reference_image=True, reference_image=fixed, default_pixel_value=-5000.0
            )
            found[f"{name} moved"] = itk.array_from_image(moved).T[::2, ::2, ::2]
        u = (net.phi_AB(net.identity_map) - net.identity_map)[0].numpy()
        found["network"] = u.T[::2, ::2, ::2, ::-1] * (np.array(recipes.SIZE) - 1)
        found["parameters"] = sum(p.numel() for p in net.parameters())
        images = resized(seen["moving", "quantiles"]), resized(seen["fixed", "window"])
        for name in recipes.OPTIMISED:
            found[f"losses {name}"], u = optimised(net, images, name)
            found[f"optimised {name}"] = u[::4, ::4, ::4].astype("float32")
    np.savez_compressed(HERE / "unigradicon.npz", **found)
    for name, value in found.items():
        print(name, value if np.ndim(value) == 0 else f"{value.shape} {np.abs(value).max():.4g} {np.std(value):.3g}")


if __name__ == "__main__":
    main()
