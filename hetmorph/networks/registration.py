"""The model that is trained of a step."""

import keras

from hetmorph.networks.base import RegistrationModel, references, store_config_args
from hetmorph.networks.parts import check_inshape, float32, image_inputs, warped
from hetmorph.networks.vxm import VxmDense
from hetmorph.steps import Step


@keras.saving.register_keras_serializable("hetmorph")
class Registration(RegistrationModel):
    """A step, however it is made of networks and other steps, as a model that is trained, saved, served.

    Args:
        step: from the two images to a transform, see `hetmorph.steps`.
        inshape: spatial size of the images; None entries take any.
        src_feats, trg_feats: image channels.
        fill_value: value outside the image; None repeats the edge.
        name: name of the model, and prefix of its layers' names.

    Inputs `[source, target]`, each `[B, *S, C]` in [0, 1]. Outputs `[moved source, displacement]`.

    Example:
        >>> network = hetmorph.networks.velocity_network((None, None))
        >>> step = Repeated(VelocityStep(network), 3)
        >>> model = Registration(step, (None, None))
        >>> model.compile("adam", loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.01])
    """

    @store_config_args
    def __init__(self, step: Step, inshape, src_feats=1, trg_feats=1, fill_value=None, name="registration"):
        inshape = check_inshape(inshape)
        source, target = image_inputs(inshape, src_feats, trg_feats, name).inputs
        displacement = step(source, target)
        moved = warped(source, displacement, fill_value, f"{name}_transformer")
        # Through a layer of its own, so that the output has a name that losses and metrics can be given by.
        field = float32(keras.layers.Identity, f"{name}_displacement")(displacement)
        super().__init__(name=name, inputs=[source, target], outputs=[moved, field])
        self.references = references(
            step=step, source=source, target=target, pos_flow=displacement, neg_flow=None, y_source=moved, y_target=None
        )

    @property
    def step(self) -> Step:
        """The step that is trained."""
        return self.references.step


def velocity_network(inshape, spacing: int = 1, name: str = "velocity", **kwargs) -> keras.Model:
    """The U-Net of `VxmDense` from `[moving, fixed]` to its velocity, for steps.

    Args:
        inshape: spatial size of the images; None entries take any.
        spacing: voxels of the image for one voxel of the velocity, 1, 2, 4 …
        name: name and prefix of all layer names.
        kwargs: further arguments of `VxmDense` on its U-Net and images, such as `nb_unet_features`.

    Returns:
        Model `[moving, fixed] → [B, *V, N]`, voxels of its own grid, which may reach beyond the image's end.
    """
    model = VxmDense(inshape, svf_resolution=spacing, int_resolution=spacing, name=name, **kwargs)
    return keras.Model(model.inputs, model.references.svf, name=name)
