"""Steps that look at each image alone, and then compare what they have seen."""

import keras

from hetmorph.steps.combined import to_voxels
from hetmorph.steps.networks import BEYOND, NetworkStep, check_beyond
from hetmorph.transforms import Transform, in_frame


@keras.saving.register_keras_serializable("hetmorph")
class FeatureStep(NetworkStep):
    """A network of one image, asked for either, and a layer that makes a displacement of both answers.

    The images meet in the layer alone, so that each may move by itself: with `layers.CoordinateAttention`, translations
    of either pass through. For both directions each image is looked at once.

    Args:
        network: from one image to its features.
        matching: layer of `[features of moving, features of fixed]` that gives a displacement, `[B, *V, N]` voxels of
            its grid.
        spacing: voxels of the image for one voxel of the displacement; the first and the last of either lie on each
            other.
        beyond: as of `FieldStep`.
        kwargs: further arguments of `keras.layers.Layer`.

    Example:
        >>> encoder = hetmorph.networks.feature_encoder(2, padding=9)
        >>> step = FeatureStep(encoder, hetmorph.layers.CoordinateAttention(padding=9))
    """

    asked = 1
    invertible = False

    def __init__(
        self, network: keras.Model, matching: keras.layers.Layer, spacing: int = 1, beyond: str = "edge", **kwargs
    ):
        super().__init__(network, **kwargs)
        if int(spacing) != spacing or spacing < 1:
            raise ValueError(f"expected a whole spacing >= 1, received {spacing}")
        self.matching, self.spacing, self.beyond = matching, int(spacing), check_beyond(beyond)

    def transform(self, moving, fixed, training=None) -> Transform:
        seen = [self.answer(image, training=training) for image in (moving, fixed)]
        return self._matched(*seen, fixed)

    def both(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        a, b = (self.answer(image, training=training) for image in (moving, fixed))
        return self._matched(a, b, fixed), self._matched(b, a, moving)

    def _matched(self, of_moving, of_fixed, fixed) -> Transform:
        transform = BEYOND[self.beyond](self.matching([of_moving, of_fixed]))
        if self.spacing == 1:
            return transform
        return in_frame(transform, to_voxels(transform.field, fixed, self.spacing, corners=True))
