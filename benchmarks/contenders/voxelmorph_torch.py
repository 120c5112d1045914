"""voxelmorph 0.3.4 on PyTorch, `grid_sample` by itself, and the local correlation of MONAI."""

import problem
import torch
import voxelmorph as vxm
import worker
from torch import nn
from torch.nn import functional


class DenseLayout(nn.Module):
    """The network of VxmDense (16-32-32-32, 32-32-32-32, 32-16-16, half-resolution integration) on 0.3.4's modules."""

    def __init__(self, ndims: int, encoder=(16, 32, 32, 32), decoder=(32, 32, 32, 32), final=(32, 16, 16)):
        super().__init__()
        conv = getattr(nn, f"Conv{ndims}d")
        self.pool = getattr(functional, f"max_pool{ndims}d")
        channels, skips = 2, []
        self.encoder, self.decoder, self.final = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for features in encoder:
            self.encoder.append(conv(channels, features, 3, padding=1))
            channels = features
            skips.append(features)
        for features in decoder:
            self.decoder.append(conv(channels, features, 3, padding=1))
            channels = features + skips.pop()
        for features in final:
            self.final.append(conv(channels, features, 3, padding=1))
            channels = features
        self.flow = conv(channels, ndims, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)
        self.down, self.up = (vxm.nn.modules.ResizeDisplacementField(factor) for factor in (0.5, 2))
        self.integrate = vxm.nn.modules.IntegrateVelocityField(steps=problem.STEPS)
        self.warp = vxm.nn.modules.SpatialTransformer()

    def forward(self, moving, fixed):
        x, skips = torch.cat([moving, fixed], 1), []
        for layer in self.encoder:
            skips.append(functional.leaky_relu(layer(x), 0.2))
            x = self.pool(skips[-1], 2)
        for layer in self.decoder:
            x = functional.interpolate(functional.leaky_relu(layer(x), 0.2), scale_factor=2)
            x = torch.cat([x, skips.pop()], 1)
        for layer in self.final:
            x = functional.leaky_relu(layer(x), 0.2)
        velocity = self.down(self.flow(x))
        return self.warp(moving, self.up(self.integrate(velocity))), velocity


class Pairwise(nn.Module):
    """0.3.4's own model with its defaults: 16 features a level, five steps at full resolution."""

    def __init__(self, ndims: int):
        super().__init__()
        self.model = vxm.nn.models.VxmPairwise(ndims, 1, 1)

    def forward(self, moving, fixed):
        displacement, moved = self.model(moving, fixed, return_warped_source=True)
        return moved, displacement


def build(case: dict):
    torch.set_num_threads(case["threads"])
    return {"kernels": kernel, "train_step": train_step, "inference": inference}[case["benchmark"]](case)


def kernel(case: dict):
    ndims, device = case["ndims"], device_of(case)
    if problem.window_of(case):
        return local_correlation(case, device)
    if problem.augmented(case):
        return random_affine(ndims, device) if case.get("bare") else None
    if case.get("monai"):
        return None
    half = channels_first(problem.field(ndims, coarse=True)).to(device)
    if case["operation"] == "warp":
        scan, field = (channels_first(x).to(device) for x in (problem.image(ndims), problem.field(ndims)))
        if case.get("bare"):
            run, inputs = grid_sample, [scan, normalised(field)]
        else:
            run, inputs = vxm.nn.modules.SpatialTransformer(), [scan, field]
    elif case.get("bare"):
        return None
    elif case["operation"] == "integrate":
        run, inputs = vxm.nn.modules.IntegrateVelocityField(steps=problem.STEPS), [half]
    elif case["operation"] == "resize":
        run, inputs = vxm.nn.modules.ResizeDisplacementField(2), [half]
    else:
        transform = vxm.nn.modules.SpatialTransformer()
        run, inputs = (lambda outer, inner: inner + transform(outer, inner)), [half, half.clone()]

    def forward():
        with torch.no_grad():
            run(*inputs)

    def backward():
        leaves = [x.detach().requires_grad_() for x in inputs]
        run(*leaves).square().sum().backward()

    return backward if case["backward"] else forward


def random_affine(ndims: int, device: str):
    """Maps of both images of each pair, whose axes stay: to exchange them costs nothing here."""
    images = torch.cat([channels_first(image) for image in problem.images(ndims)]).to(device)
    _, noise = problem.affine_draws(ndims)
    maps = torch.eye(ndims, ndims + 1) + 0.05 * torch.from_numpy(noise).transpose(0, 1).flatten(0, 1)
    maps = maps.to(device)

    def run():
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    return run


def local_correlation(case: dict, device: str):
    """Of voxelmorph 0.3.4, whose losses leave it to neurite, or of MONAI: its mean, and the moved image's gradient."""
    if case.get("bare"):
        return None
    window = problem.window_of(case)
    if case.get("monai"):
        from monai.losses import LocalNormalizedCrossCorrelationLoss

        loss = LocalNormalizedCrossCorrelationLoss(case["ndims"], window)
    else:
        from neurite.nn.modules import NCC

        loss = NCC(window)
    fixed, moved = (channels_first(x).to(device) for x in problem.images(case["ndims"]))

    def forward():
        with torch.no_grad():
            loss(moved, fixed)

    def backward():
        loss(moved.detach().requires_grad_(), fixed).sum().backward()

    return backward if case["backward"] else forward


def grid_sample(scan, positions):
    return functional.grid_sample(scan, positions, align_corners=True, padding_mode="border")


def normalised(field: torch.Tensor) -> torch.Tensor:
    """Sampling positions in grid_sample's frame: [-1, 1], last axis first, `[B, *S, N]`."""
    sizes = field.shape[2:]
    grid = torch.meshgrid(*[torch.arange(float(n), device=field.device) for n in sizes], indexing="ij")
    scaled = [2 * (g + field[:, d]) / (n - 1) - 1 for d, (g, n) in enumerate(zip(grid, sizes, strict=True))]
    return torch.stack(scaled[::-1], -1)


def train_step(case: dict):
    moving, fixed = (channels_first(x) for x in problem.pair(case["shape"], case["batch"]))
    model, moving, fixed = prepared(case, moving, fixed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def objective(moving, fixed):
        moved, field = model(moving, fixed)
        smoothness = sum(field.diff(dim=axis).square().mean() for axis in range(2, field.ndim))
        return ((moved - fixed) ** 2).mean() + 0.02 * smoothness / (field.ndim - 2)

    loss_of = torch.compile(objective, dynamic=False) if case.get("compiled") else objective

    def update():
        loss = loss_of(moving, fixed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def inference(case: dict):
    moving, fixed = (channels_first(x) for x in problem.pair(case["shape"], case["batch"]))
    model, moving, fixed = prepared(case, moving, fixed)
    model.eval()
    if case.get("compiled"):
        model = torch.compile(model, dynamic=False)

    def register():
        with torch.inference_mode():
            return model(moving, fixed)[0].cpu().numpy()

    return register


def prepared(case: dict, *images):
    """Model and images on the case's device, channels last in memory if the case asks for it."""
    ndims, device = len(case["shape"]), device_of(case)
    model = (Pairwise if case["layout"] == "own" else DenseLayout)(ndims).to(device)
    images = [image.to(device) for image in images]
    if case.get("channels_last"):
        memory = torch.channels_last if ndims == 2 else torch.channels_last_3d
        return model.to(memory_format=memory), *(x.to(memory_format=memory) for x in images)
    return model, *images


def device_of(case: dict) -> str:
    """Device of a case, as PyTorch calls it."""
    return "cuda" if case.get("device") == "gpu" else "cpu"


def channels_first(array) -> torch.Tensor:
    return torch.from_numpy(array).movedim(-1, 1).contiguous()


if __name__ == "__main__":
    worker.serve(build, "torch")
