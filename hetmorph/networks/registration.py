"""The model that is trained of a step."""

import keras
import tensorflow as tf

from hetmorph.networks.assembly import check_inshape, float32, image_inputs, warped
from hetmorph.networks.base import references, store_config_args
from hetmorph.networks.registration_model import RegistrationModel
from hetmorph.networks.vxm import VxmDense
from hetmorph.steps import AtResolution, NetworkStep, Registered, Step, check_direction


@keras.saving.register_keras_serializable("hetmorph")
class Registration(RegistrationModel):
    """A step, however it is made of networks and other steps, as a model that is trained, saved, served.

    Args:
        step: from the two images to a transform, see `hetmorph.steps`.
        inshape: spatial size of the images; None entries take any.
        direction: also register the other way round: "exchange", by the same step with the images exchanged, which
            steps that are consistent by construction know without asking their networks again; "inverse", by the
            inverse of its transform, of steps that have one; None registers one way.
        src_feats, trg_feats: image channels.
        fill_value: value outside the image, which it reaches within the voxel beyond the edge; None repeats the edge.
        name: name of the model, and prefix of its layers' names.

    Inputs `[source, target]`, each `[B, *S, C]` in [0, 1]. Outputs `[moved source, (moved target), displacement]`.
    While training, `terms` of `compile` see the transforms themselves, between voxels too.

    Raises:
        ValueError: a direction that the step cannot give, or images of different channels to be exchanged.

    Example:
        >>> network = hetmorph.networks.velocity_network((None, None))
        >>> step = Repeated(VelocityStep(network), 3)
        >>> model = Registration(step, (None, None))
        >>> model.compile("adam", loss=[MSE().loss, Grad("l2").loss], loss_weights=[1, 0.01])
    """

    @store_config_args
    def __init__(
        self, step: Step, inshape, direction=None, src_feats=1, trg_feats=1, fill_value=None, name="registration"
    ):
        inshape = check_inshape(inshape)
        _check_direction(direction, step, src_feats, trg_feats)
        _check_sizes(step, inshape)
        source, target = image_inputs(inshape, src_feats, trg_feats, name).inputs
        there, back = step(source, target, direction=direction), None
        if direction is not None:
            there, back = there
        moved = warped(source, there, fill_value, f"{name}_transformer", fade=True)
        moved_back = None if back is None else warped(target, back, fill_value, f"{name}_neg_transformer", fade=True)
        # Through a layer of its own, so that the output has a name that losses and metrics can be given by.
        field = float32(keras.layers.Identity, f"{name}_displacement")(there)
        outputs = [moved, field] if back is None else [moved, moved_back, field]
        super().__init__(name=name, inputs=[source, target], outputs=outputs)
        self.references = references(
            step=step, source=source, target=target, pos_flow=there, neg_flow=back, y_source=moved, y_target=moved_back
        )

    def _recorded(self, inputs, training) -> tuple[Registered, list]:
        # By the step itself: its transforms are functions of points, of which the functional model has samples only.
        arguments = self.config.params
        moving, fixed = (tf.cast(image, tf.float32) for image in tf.nest.flatten(inputs))
        forward, backward = self.step.directions(moving, fixed, arguments["direction"], training)
        functional, added = getattr(self.references, "model_with_losses", None), ()
        if functional is not None:  # `add_loss` was given tensors of the functional model
            added = functional(tf.nest.flatten(inputs), training=training)[len(self.outputs) :]
        registered = Registered(moving, fixed, forward, backward, fill_value=arguments["fill_value"], added=added)
        backward = [] if backward is None else [registered.warped_back]
        return registered, [registered.warped, *backward, registered.displacement]

    @property
    def step(self) -> Step:
        """The step that is trained."""
        return self.references.step


def _check_direction(direction: str | None, step: Step, src_feats: int, trg_feats: int) -> None:
    if check_direction(direction) == "inverse" and not step.invertible:
        raise ValueError(
            f"expected a step whose transforms have an inverse, received {type(step).__name__} with "
            "direction='inverse'; direction='exchange' takes any"
        )
    if direction == "exchange" and src_feats != trg_feats:
        raise ValueError(
            f"images that are exchanged have equal channels, received src_feats={src_feats}, trg_feats={trg_feats}"
        )


def _check_sizes(step: Step, inshape: tuple) -> None:
    """A network that was built for one size takes no other; inside a step, only its own images say which it meets."""
    parts = [layer for layer in step._flatten_layers() if isinstance(layer, Step)]
    shrunk = any(isinstance(part, AtResolution) for part in parts)
    for network in (part.network for part in parts if isinstance(part, NetworkStep)):
        built = tuple(network.inputs[0].shape[1:-1])
        if any(size is not None and (shrunk or size != asked) for size, asked in zip(built, inshape, strict=True)):
            raise ValueError(
                f"expected networks of images {inshape} or of any size, received {network.name} built for {built}; "
                "sizes of None take any"
            )


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
