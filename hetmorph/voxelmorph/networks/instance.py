"""Optimisation of one pair: the velocity field itself is the weight."""

import keras
import numpy as np

from hetmorph import layers
from hetmorph.networks.base import LoadableModel, references, store_config_args
from hetmorph.networks.vxm import deprecated
from hetmorph.ops.fields import rescale
from hetmorph.ops.warp import warp
from hetmorph.transforms.logarithm import logarithm
from hetmorph.voxelmorph.layers import LocalParamWithInput


@keras.saving.register_keras_serializable("hetmorph")
class InstanceDense(LoadableModel):
    """Velocity field of one pair as a trainable tensor, integrated and applied to the source.

    Input the source `[1, *S, C]`; outputs `[moved, velocity]`. Fit it to the target, starting from `set_flow`.

    Args:
        inshape: spatial size of the source.
        nb_feats: channels.
        mult: the field is the weight times this factor, which scales its learning rate.
        int_steps: squarings; 0 takes the field as the displacement itself.
        int_downsize: deprecated name of `int_resolution`.
        int_resolution: voxel size of the field, in image voxels.

    Example:
        >>> model = InstanceDense((128, 128))
        >>> model.set_flow(velocity)                        # e.g. the field output of a VxmDense
        >>> model.compile("adam", loss=[MSE().loss, Grad("l2").loss])
        >>> model.fit(source, [target, zeros], epochs=50)

    Reference:
        Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538, section V-C.
    """

    @store_config_args
    def __init__(self, inshape, nb_feats=1, mult=1000, int_steps=7, int_downsize=None, int_resolution=2):
        int_resolution = deprecated(int_downsize, "int_downsize", "int_resolution", int_resolution)
        # Rounded up, so that the upsampled field covers the image; equal to voxelmorph's where it divides.
        flow_shape = [int(np.ceil(size / int_resolution)) for size in inshape]
        source = keras.Input((*inshape, nb_feats), name="source_input")
        flow_layer = LocalParamWithInput(
            (*flow_shape, len(inshape)), mult=mult, dtype="float32", name="local_param_with_input"
        )
        preint_flow = pos_flow = flow_layer(source)
        if int_steps > 0:
            pos_flow = layers.VecInt(int_steps=int_steps, dtype="float32", name="flow_int")(pos_flow)
        if int_resolution > 1:
            pos_flow = layers.RescaleTransform(int_resolution, dtype="float32", name="diffflow")(pos_flow)
            if tuple(pos_flow.shape[1:-1]) != tuple(inshape):
                pos_flow = layers.CropToReference(dtype="float32", name="diffflow_crop")([pos_flow, source])
        y_source = layers.SpatialTransformer(dtype="float32", name="transformer")([source, pos_flow])
        super().__init__(name="vxm_instance_dense", inputs=[source], outputs=[y_source, preint_flow])
        self.references = references(pos_flow=pos_flow, flow_layer=flow_layer, mult=mult, int_resolution=int_resolution)

    def set_flow(self, warp, displacement: bool | None = None):
        """Start from a field, on the model's own grid or on the image's, with or without a batch axis of 1.

        Args:
            warp: voxels of the grid that it lies on. A field on the image's grid is resampled.
            displacement: whether it is a displacement, such as `VxmDense.register` gives; the velocity whose integral
                it is, is then searched. False takes it as that velocity, such as the field output of a `VxmDense`.
                None takes a field on the image's grid for a displacement, unless it is the model's own grid too.

        Raises:
            ValueError: another shape.
        """
        grid = tuple(self.references.flow_layer.kernel.shape)
        image = (*self.config.params["inshape"], grid[-1])
        field = np.asarray(warp, np.float32)
        field = field[0] if field.ndim == len(grid) + 1 and len(field) == 1 else field
        if displacement is None:
            displacement = field.shape == image != grid
        if field.shape == image != grid:
            # Repeat the last voxel up to a size that the coarser grid divides.
            coarsening = self.references.int_resolution
            missing = [(0, int(round(g * coarsening)) - n) for g, n in zip(grid[:-1], image[:-1], strict=True)]
            field = np.pad(field, [*missing, (0, 0)], mode="edge")
            field = rescale(field[None], 1 / coarsening)[0].numpy()
        if field.shape != grid:
            raise ValueError(f"expected a field of shape {grid} or {image}, got {np.shape(warp)}")
        if displacement and self.config.params["int_steps"] > 0:
            field = logarithm(field[None], self.config.params["int_steps"])[0]
        self.references.flow_layer.set_weights([field / self.references.mult])

    def register(self, src, batch_size=None):
        """Current displacement, `[B, *S, N]` voxels; the values of `src` do not matter."""
        return self._registration_model().predict(np.asarray(src), batch_size=batch_size, verbose=0)

    def apply_transform(self, src, img, interp_method="linear"):
        """Warp `img` (`[B, *S, C]`) by the current displacement."""
        return warp(np.asarray(img, np.float32), self.register(src), interp_method).numpy()
