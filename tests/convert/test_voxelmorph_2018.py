"""VoxelMorph's networks of 2018 from files that hold weights alone."""

import h5py
import numpy as np
import pytest
from scipy import ndimage

from hetmorph.convert import convert_voxelmorph_2018
from tests.convert.weights_2018 import VM1, VM2, kernels, write

pytestmark = pytest.mark.usefixtures("eager")


def convolved(image, kernel, bias, stride=1):
    """A convolution as TensorFlow pads it, `[*S, C]`, by scipy; LeakyReLU is the caller's."""
    ndims = image.ndim - 1
    result = np.zeros((*image.shape[:-1], kernel.shape[-1]))
    for i in range(kernel.shape[-2]):
        for o in range(kernel.shape[-1]):
            result[..., o] += ndimage.correlate(image[..., i].astype(float), kernel[..., i, o], mode="constant")
    start = stride // 2  # even sizes: nothing in front, one voxel behind
    return result[(slice(start, None, stride),) * ndims] + bias


def reference(images, layers, depth):
    """The network as its authors describe it: strides down, repeated voxels up."""

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    def joined(coarse, skip):
        for axis in range(skip.ndim - 1):
            coarse = np.repeat(coarse, 2, axis)
        return np.concatenate([coarse, skip], -1)

    left = [(kernel, bias) for _, kernel, bias in layers]
    x = np.stack(images, -1)
    skips = []
    for _ in range(depth):
        skips.append(x)
        x = leaky(convolved(x, *left.pop(0), stride=2))
    for level in range(depth):
        x = leaky(convolved(x, *left.pop(0)))
        if level < depth - 1:
            x = joined(x, skips.pop())
    x = joined(leaky(convolved(x, *left.pop(0))), skips.pop())
    while len(left) > 1:
        x = leaky(convolved(x, *left.pop(0)))
    return convolved(x, *left.pop(0))


@pytest.mark.parametrize(("features", "ndims", "root"), [(VM1, 3, "model_weights"), (VM2, 2, "")])
def test_equals_the_network_by_numpy(features, ndims, root, tmp_path, rng):
    layers = kernels(features, ndims)
    model = convert_voxelmorph_2018(write(tmp_path / "w.h5", layers, root))
    images = rng.uniform(size=(2, *(12, 8, 16)[:ndims])).astype("float32")
    found = model.register(*images[:, None, ..., None])[0]
    expected = reference(0.47 * images, layers, depth=2)  # the range of FreeSurfer's intensities, divided by 255
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-5)
    odd = model.register(*images[:, None, :-1, ..., None])  # no multiple of four is needed
    assert odd.shape == (1, 11, *images.shape[2:], ndims)


def test_the_published_shapes(tmp_path):
    encoder = [16, 32, 32, 32]
    for decoder, count in (([32, 32, 32, 32, 8, 8], 259_675), ([32] * 5 + [16, 16], 300_547)):
        model = convert_voxelmorph_2018(write(tmp_path / f"{count}.h5", kernels((encoder, decoder), 3)))
        assert model.count_params() == count


def broken(layers, kind):
    if kind == "no flow":
        return layers[:-1]
    if kind == "another input":
        return [(layers[0][0], layers[0][1][..., :1, :], layers[0][2]), *layers[1:]]
    if kind == "wide kernels":
        return [(name, np.repeat(kernel, 2, 0), bias) for name, kernel, bias in layers]
    return [(name, kernel[..., :1, :] if k == 3 else kernel, bias) for k, (name, kernel, bias) in enumerate(layers)]


@pytest.mark.parametrize("kind", ["no flow", "another input", "wide kernels", "a kernel of another shape"])
def test_other_networks_are_refused(kind, tmp_path):
    path = write(tmp_path / "w.h5", broken(kernels(VM1, 3), kind))
    with pytest.raises(ValueError, match=r"w\.h5: expected weights of VoxelMorph's networks of 2018.*received"):
        convert_voxelmorph_2018(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(b"not a file of HDF5")
    with pytest.raises(ValueError, match="expected a file of HDF5"):
        convert_voxelmorph_2018(path)
    whole = write(path, kernels(VM1, 3)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="expected a file of HDF5"):
        convert_voxelmorph_2018(path)
    with h5py.File(path, "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"received the layers \[\]"):
        convert_voxelmorph_2018(path)
    with pytest.raises(FileNotFoundError):
        convert_voxelmorph_2018(tmp_path / "nowhere.h5")
    with pytest.raises(ValueError, match=r"of 3-D images, received the sizes \(16, 16\)"):
        convert_voxelmorph_2018(write(path, kernels(VM1, 3)), (16, 16))
