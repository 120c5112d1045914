"""uniGradICON 1.0.6 on PyTorch: registering a pair, and one step of its instance optimisation."""

from pathlib import Path

import numpy as np
import problem
import torch
import unigradicon
import worker


def build(case: dict):
    net = unigradicon.make_network([1, 1, *case["shape"][::-1]], include_last_step=True).eval()
    path = Path(case["folder"]) / "checkpoint.trch"
    if not path.exists():
        torch.save(_lively(net.regis_net).state_dict(), path)
    net.regis_net.load_state_dict(torch.load(path, weights_only=True))
    # The axes of the originals are (z, y, x).
    images = [
        torch.from_numpy(np.ascontiguousarray(x[0, ..., 0].T))[None, None] for x in problem.pair(case["shape"], 1)
    ]
    return {"inference": inference, "step": step}[case["benchmark"]](case, net, images)


def _lively(network):
    """Random weights and batch statistics; a displacement of some voxels."""
    torch.manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0.0, 0.1)
        elif name.endswith("weight") and value.ndim > 1:
            value.normal_(0.0, (0.1 if "lastConv" in name else 1.0) / np.sqrt(value[0].numel()))
    return network


def inference(case: dict, net, images):
    path = Path(case["folder"]) / "original.npy"

    def run():
        with torch.no_grad():
            net.identity_map.isIdentity = True
            u = net.regis_net(*images)(net.identity_map) - net.identity_map
        if not path.exists():  # [X, Y, Z, 3], voxels
            np.save(path, u[0].numpy().T[..., ::-1] * (np.array(case["shape"]) - 1))
        return u[0].numpy()

    return run


def step(case: dict, net, images):
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-5)

    def run():
        optimizer.zero_grad()
        loss = net(*images)[0]
        loss.backward()
        optimizer.step()
        return float(loss)

    return run


if __name__ == "__main__":
    worker.serve(build)
