"""Files of weights as VoxelMorph published them in 2018, with random numbers."""

import h5py
import numpy as np

VM1 = ([4, 5], [5, 5, 5, 3])  # its pattern: as many of the decoder as of the encoder, one at half, one at the whole
VM2 = ([4, 5], [5, 5, 5, 3, 4])


def kernels(features, ndims, seed=0):
    """Kernel and bias of each convolution, (name, kernel, bias), as those networks have them."""
    (encoder, decoder), rng, found = features, np.random.default_rng(seed), []
    depth, before = len(encoder), 2
    skips = [2, *encoder[:-1]]
    for k, count in enumerate([*encoder, *decoder, ndims]):
        joins = depth < k < 2 * depth or k == 2 * depth + 1
        taken = before + (skips.pop() if joins else 0)
        kernel = rng.normal(scale=(3**ndims * taken) ** -0.5, size=(*[3] * ndims, taken, count)).astype("float32")
        name = f"conv{ndims}d_{98 + k}" if k < len(encoder + decoder) else "flow"
        found.append((name, kernel, rng.normal(scale=0.3, size=count).astype("float32")))
        before = count
    return found


def write(path, layers, root="model_weights", suffix=":0"):
    """In Keras 2.2's layout, in whatever order HDF5 sorts the names."""
    with h5py.File(path, "w") as file:
        for name, kernel, bias in layers:
            inner = "flow_34" if name == "flow" else name
            for part, array in (("kernel", kernel), ("bias", bias)):
                file[f"{root}/{name}/{inner}/{part}{suffix}"] = array
    return path
