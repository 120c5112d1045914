"""The network of uniGradICON and multiGradICON."""

import keras

from hetmorph.losses import LNCC
from hetmorph.networks.architectures import gradicon
from hetmorph.networks.base import store_config_args
from hetmorph.networks.registration import Registration
from hetmorph.networks.tall_unet import FEATURES
from hetmorph.objectives.terms import GradientInverseConsistency, Similarity

PUBLISHED_SIZE = (175, 175, 175)


@keras.saving.register_keras_serializable("hetmorph")
class UniGradICON(Registration):
    """One network for many anatomies: four tall U-Nets on images of one size, whatever they show.

    The step is that of `gradicon`. What this model adds is how images come to it: each image is resized to `inshape`
    from its own field of view, so that scanner and voxel size do not matter, and is scaled to [0, 1] by its modality.
    `hetmorph.registration.register` does both, and brings the result back onto the fixed image.

    Args:
        inshape: voxels that every image is resized to. None entries take images as they are.
        nb_unet_features: [encoder, decoder] of each of the four, see `tall_unet`; None takes the published ones,
            70,680,916 weights in 3-D.
        direction: "exchange" also registers the other way round, as the training by GradICON needs; None does not.
        fill_value: value outside the image; None repeats the edge.
        stage: 1 is without the fourth network, as it is trained first; see `gradicon`.
        name: name of the model, and prefix of its layers' names.

    Inputs and outputs as `Registration`. `compile_as_published` compiles it by local correlation of Gaussian windows
    (σ 5) in both directions and 1.5 times the gradient's inverse consistency, by which `Refined(loss="own")` goes on
    from the answer of one that was not compiled otherwise.

    Attributes:
        modalities: how images can be scaled for it; a published model has to be told which.
        refining: how an optimisation of a pair varies its weights: options of `Refined`, as published but for the
            memory, which would otherwise be that of eight networks of a volume.

    Example:
        >>> model = UniGradICON((64, 64, 64))
        >>> displacement = model.register(moving, fixed)  # [B, 64, 64, 64, 1] in [0, 1]

    Reference:
        Tian et al., uniGradICON: a foundation model for medical image registration, MICCAI 2024, arXiv:2403.05780;
        Demir et al., multiGradICON, WBIR 2024, arXiv:2408.00221.
    """

    modalities = ("ct", "mri")
    refining = {"optimizer": "adam", "learning_rate": 2e-5, "recompute": True}

    @store_config_args
    def __init__(
        self,
        inshape=PUBLISHED_SIZE,
        nb_unet_features=None,
        direction="exchange",
        fill_value=0.0,
        stage=2,
        name="unigradicon",
    ):
        features = FEATURES if nb_unet_features is None else nb_unet_features
        step = gradicon(len(inshape), nb_unet_features=features, stage=stage)
        super().__init__(step, inshape, direction, fill_value=fill_value, name=name)
        del self.config  # of the parent: this model is made anew of its own arguments

    def compile_as_published(self) -> None:
        """Compile it by the losses that it was published with; of a model that registers one way nothing happens."""
        if self.config.params["direction"] == "exchange":
            terms = [Similarity(LNCC(5)), GradientInverseConsistency(1.5)]
            self.compile(keras.optimizers.Adam(self.refining["learning_rate"]), terms=terms)

    @property
    def resizes_to(self) -> tuple[int, ...] | None:
        """Voxels that every image is resized to from its own field of view; None where images are taken as they are."""
        return None if None in self.inshape else self.inshape
