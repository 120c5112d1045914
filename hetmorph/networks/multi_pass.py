"""A registration network that goes on from what it has moved so far."""

import keras

from hetmorph import layers
from hetmorph.networks.base import RegistrationModel, references, store_config_args
from hetmorph.networks.parts import float32, image_inputs, warped
from hetmorph.networks.two_networks import TwoNetworks, full_model


@keras.saving.register_keras_serializable("hetmorph")
class MultiPass(RegistrationModel):
    """A registration model applied several times, each time to the image moved so far; the displacements are composed.

    A network answers at once what an iterative program approaches step by step, and falls short where motion is large.
    Further passes of the same weights make up for it, in proportion to their time, and allow a stronger regularisation
    of each. Works for any trained model of two images; trains like it, too.

    Args:
        model: a `VxmDense`, `TransMorph` or other `RegistrationModel` of two inputs.
        passes: how often it is applied.
        name: name of the model.

    Inputs and outputs are the model's; the field output holds the field of each pass, `[B, *S, N·passes]`. With a
    variance network, `references.full_model` gives log σ² and weight for the final moved image.

    Example:
        >>> model = MultiPass(keras.saving.load_model("model.keras"), passes=2)
        >>> displacement = model.register(moving, fixed)

    Reference:
        Zhao et al., Recursive cascaded networks for unsupervised medical image registration, ICCV 2019,
        doi:10.1109/ICCV.2019.01070.
    """

    @store_config_args
    def __init__(self, model, passes=2, name="multi_pass"):
        inner = getattr(model, "references", None)
        if getattr(inner, "pos_flow", None) is None or len(model.inputs) != 2:
            raise ValueError(f"several passes need a registration model of two images, got {type(model).__name__}")
        if inner.y_target is not None or passes < 1:
            raise ValueError(f"several passes need passes ≥ 1 and a model without bidir, got passes={passes}")
        source_feats, target_feats = (tensor.shape[-1] for tensor in model.inputs)
        inputs = image_inputs(model.inshape, source_feats, target_feats, name).inputs
        source, target = inputs
        step = keras.Model(model.inputs, [inner.pos_flow, model.outputs[-1]], name=f"{name}_step")
        moved, displacement, fields = source, None, []
        for k in range(passes):
            further, field = step([moved, target])
            fields.append(field)
            if k:
                compose = float32(layers.ComposeTransform, f"{name}_compose_{k}")
                further = compose([displacement, further])
            displacement = further
            moved = warped(source, displacement, model.get_config().get("fill_value"), f"{name}_transformer_{k}")
        if passes > 1:
            field = float32(keras.layers.Concatenate, f"{name}_fields")(fields)
        super().__init__(inputs=inputs, outputs=[moved, field], name=name)
        self.references = references(
            model=model,
            source=source,
            target=target,
            pos_flow=displacement,
            neg_flow=None,
            y_source=moved,
            y_target=None,
        )
        if isinstance(model, TwoNetworks):
            self._layers.append(model.variance_network)  # its weights are in the file, though no output needs them
            self.references.full_model = full_model(model, inputs, source, target, displacement, moved)

    @property
    def inshape(self) -> tuple[int | None, ...]:
        """Spatial size the model was built for; None where any size goes."""
        return self.references.model.inshape

    def with_shape(self, inshape, **arguments):
        """The same weights for images of another spatial size; see `RegistrationModel.with_shape`."""
        return type(self)(self.references.model.with_shape(inshape, **arguments), self.config.params["passes"])
