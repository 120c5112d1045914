"""A registration network that goes on from what it has moved so far."""

import keras

from hetmorph import layers
from hetmorph.networks.assembly import float32, image_inputs, warped
from hetmorph.networks.base import references, store_config_args
from hetmorph.networks.registration_model import RegistrationModel
from hetmorph.networks.two_networks import TwoNetworks, full_model


@keras.saving.register_keras_serializable("hetmorph")
class MultiPass(RegistrationModel):
    """A trained model applied several times, each time to the image moved so far; the displacements are composed.

    A network answers at once what an iterative program approaches step by step, and falls short where motion is large.
    Further passes of the same weights make up for it, in proportion to their time, and allow a stronger regularisation
    of each. This model registers; what is trained is the model inside.

    Args:
        model: a `VxmDense`, `TransMorph` or other `RegistrationModel` of two images, without `bidir`.
        passes: how often it is applied.
        name: name of the model.

    Inputs as the model's; outputs `[moved source, displacement]`. With a variance network, `references.full_model`
    gives log σ² and weight for the final moved image.

    Example:
        >>> model = MultiPass(keras.saving.load_model("model.keras"), passes=2)
        >>> displacement = model.register(moving, fixed)

    Reference:
        Zhao et al., Recursive cascaded networks for unsupervised medical image registration, ICCV 2019,
        doi:10.1109/ICCV.2019.01070.
    """

    @store_config_args
    def __init__(self, model, passes=2, name="multi_pass"):
        _check(model, passes)
        source_feats, target_feats = (tensor.shape[-1] for tensor in model.inputs)
        inputs = image_inputs(model.inshape, source_feats, target_feats, name).inputs
        source, target = inputs
        step, fill_value = model.get_registration_model(), model.get_config().get("fill_value")
        moved, displacement = source, None
        for k in range(passes):
            further = step([moved, target])
            if k:
                further = float32(layers.ComposeTransform, f"{name}_compose_{k}")([displacement, further])
            displacement = further
            moved = warped(source, displacement, fill_value, f"{name}_transformer_{k}")
        super().__init__(inputs=inputs, outputs=[moved, displacement], name=name)
        # The whole model: its variance network has weights that no output here needs, but that belong to the file.
        self.inner = model
        if model not in self._layers:
            self._layers.append(model)
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
            self.references.full_model = full_model(model, inputs, source, target, displacement, moved)

    @property
    def inshape(self) -> tuple[int | None, ...]:
        """Spatial size the model was built for; None where any size goes."""
        return self.inner.inshape

    def with_shape(self, inshape, **arguments):
        """The same weights for images of another spatial size; see `RegistrationModel.with_shape`."""
        return type(self)(self.inner.with_shape(inshape, **arguments), self.config.params["passes"], self.name)

    def get_config(self):
        config = super().get_config()
        config["model"].pop("compile_config", None)  # what registers needs no optimiser
        return config

    def compile(self, *args, **kwargs):
        """Not for training.

        Raises:
            ValueError: always.
        """
        raise ValueError("MultiPass registers with a trained model; compile and fit that model, then wrap it")

    def save(self, filepath, overwrite=True, **kwargs):
        """Save as `.keras`; an `.h5` in VoxelMorph's layout is what the model inside writes."""
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(f"MultiPass is saved as .keras, got {filepath}; its .inner can be saved as .h5")
        return super().save(filepath, overwrite=overwrite, **kwargs)


def _check(model, passes: int) -> None:
    inner = getattr(model, "references", None)
    if getattr(inner, "pos_flow", None) is None or len(model.inputs) != 2 or isinstance(model, MultiPass):
        raise ValueError(f"several passes need a registration model of two images, got {type(model).__name__}")
    if model.get_config().get("input_model") is not None or inner.y_target is not None or passes < 1:
        raise ValueError(
            f"several passes need passes ≥ 1 and a model without input_model and bidir, got {passes} passes"
        )
