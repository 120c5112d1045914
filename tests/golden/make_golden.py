"""Write the `.h5` and `.npz` files beside this script, with the original voxelmorph 0.2 under Keras 2.

Run by hand in an environment of its own: Python 3.10, tensorflow 2.15, voxelmorph 0.2, neurite 0.2.
Each `.h5` is what `model.save` wrote; the `.npz` holds `in0 … ` and the outputs `out0 …` of that model, and `reg`,
`atlas` where the model has such methods. tests/networks compare hetmorph with them.
"""

from pathlib import Path

import numpy as np
import voxelmorph as vxm

HERE = Path(__file__).resolve().parent
FEATURES = [[4, 4], [4, 4, 4]]
SIZE = (16, 16)
N = vxm.networks

MODELS = {
    "hyper": lambda: N.HyperVxmDense(inshape=SIZE, nb_unet_features=FEATURES, nb_hyp_layers=2, nb_hyp_units=6),
    "hyper_3d": lambda: N.HyperVxmDense(
        inshape=(8, 8, 8), nb_unet_features=[[2], [2, 2]], nb_hyp_params=2, nb_hyp_layers=1, nb_hyp_units=3
    ),
    "seg": lambda: N.VxmDenseSemiSupervisedSeg(inshape=SIZE, nb_labels=3, nb_unet_features=FEATURES),
    "seg_bidir": lambda: N.VxmDenseSemiSupervisedSeg(
        inshape=SIZE, nb_labels=2, nb_unet_features=FEATURES, seg_resolution=1, bidir_labels=True, int_resolution=1
    ),
    "points": lambda: N.VxmDenseSemiSupervisedPointCloud(
        inshape=SIZE, nb_surface_points=12, nb_labels_sample=2, nb_unet_features=FEATURES
    ),
    "points_one_way": lambda: N.VxmDenseSemiSupervisedPointCloud(
        inshape=SIZE, nb_surface_points=12, nb_labels_sample=2, nb_unet_features=FEATURES, surf_bidir=False
    ),
    "instance": lambda: N.InstanceDense(inshape=SIZE, mult=10),
    "template": lambda: N.TemplateCreation(inshape=SIZE, nb_unet_features=FEATURES, mean_cap=20),
    "conditional": lambda: N.ConditionalTemplateCreation(
        inshape=SIZE, pheno_input_shape=(2,), nb_unet_features=FEATURES, conv_nb_features=3, extra_conv_layers=2
    ),
    "conditional_levels": lambda: N.ConditionalTemplateCreation(
        inshape=SIZE,
        pheno_input_shape=(2,),
        nb_unet_features=FEATURES,
        conv_image_shape=(8, 8, 3),
        conv_nb_levels=2,
        conv_nb_features=3,
        extra_conv_layers=1,
        use_mean_stream=False,
    ),
    "atlas": lambda: N.ProbAtlasSegmentation(
        inshape=SIZE, nb_labels=3, nb_unet_features=FEATURES, init_mu=[0.1, 0.5, 0.9], init_sigma=[0.2, 0.3, 0.1]
    ),
    "atlas_supervised": lambda: N.ProbAtlasSegmentation(
        inshape=SIZE, nb_labels=3, nb_unet_features=FEATURES, stat_post_warp=False, supervised_model=True
    ),
}


def randomise(model, rng):
    """Weights for which every output depends on every input."""
    for layer in model.layers:
        new = []
        for weight in layer.weights:
            fan_in = max(1, int(np.prod(weight.shape[:-1])))
            if "count" in weight.name:
                new.append(np.full(weight.shape, 7.0))
            elif "hyper" in weight.name:
                new.append(rng.normal(size=weight.shape) * 0.25)
            else:
                new.append(rng.normal(size=weight.shape) * (1.5 / np.sqrt(fan_in) if len(weight.shape) > 1 else 0.1))
        layer.set_weights(new)


def inputs_of(model, rng):
    values = []
    for tensor in model.inputs:
        shape = (2, *tensor.shape[1:])
        value = rng.uniform(size=shape)
        if "surface" in tensor.name:
            value *= SIZE[0] - 1
            value[..., -1] = rng.integers(0, 2, size=shape[:-1])
        values.append(value.astype("float32"))
    return values


def main():
    for seed, (name, make) in enumerate(MODELS.items()):
        rng = np.random.default_rng(seed)
        model = make()
        randomise(model, rng)
        inputs = inputs_of(model, rng)
        arrays = {f"in{i}": x for i, x in enumerate(inputs)}
        outputs = model.predict(inputs, verbose=0)
        arrays.update({f"out{i}": x for i, x in enumerate(outputs)})
        if name.startswith(("seg", "points")):
            arrays["reg"] = model.register(*inputs[:2])
        if name == "template":
            arrays["atlas"] = model.get_atlas()
        model.save(HERE / f"{name}.h5")
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        sizes = [(HERE / f"{name}.{e}").stat().st_size // 1024 for e in ("h5", "npz")]
        largest = max(float(np.abs(outputs[-1]).max()), 0)
        print(f"{name}: {sizes} kB, {[o.shape for o in outputs]}, largest entry of the last output {largest:.2f}")


if __name__ == "__main__":
    main()
