"""The step whose transform is a network of coordinates."""

import keras

from hetmorph.ops.grid import spatial_shape
from hetmorph.steps.networks import NetworkStep
from hetmorph.transforms.implicit import Codes, Implicit


@keras.saving.register_keras_serializable("hetmorph")
class ImplicitStep(NetworkStep):
    """A network of two images that gives codes, and networks of coordinates and codes that are the transforms.

    Of both directions the images are looked at once: the one network of coordinates is φ_AB, the other φ_BA, and
    training makes them inverse to each other. So the transform of the exchanged images is not φ_BA.

    Args:
        network: Keras model that takes `[moving, fixed]` and gives codes of the pair, `[B, G]`, and of places,
            `[B, *L, C]`.
        forward, backward: Keras models that take `[places, codes]`, see `transforms.Implicit`.
        kwargs: further arguments of `keras.layers.Layer`.

    Raises:
        ValueError: networks of other inputs or outputs, or that do not take the codes.

    Example:
        >>> networks = [hetmorph.networks.coordinate_network(2, name=name) for name in ("forward", "backward")]
        >>> step = ImplicitStep(hetmorph.networks.code_encoder(2), *networks)

    Reference:
        Tian et al., NePhi, ECCV 2024, arXiv:2309.07322.
    """

    given = 2
    invertible = False  # its inverse is searched point by point

    def __init__(self, network: keras.Model, forward: keras.Model, backward: keras.Model, **kwargs):
        super().__init__(network, **kwargs)
        of_pair, of_places = (output.shape for output in network.outputs)
        expected = [len(of_places) - 2, of_pair[-1] + of_places[-1]]
        for one in (forward, backward):
            taken = [tensor.shape[-1] for tensor in one.inputs]
            if taken != expected or one.outputs[0].shape[-1] != expected[0]:
                raise ValueError(
                    f"expected a network of places and codes of {expected} numbers, as {network.name} gives them, "
                    f"received {one.name} of {taken} that gives {one.outputs[0].shape[-1]}"
                )
        self.forward, self.backward = forward, backward

    def codes(self, moving, fixed, training=None) -> Codes:
        """What the transforms of a batch of pairs are made of.

        Args:
            moving, fixed, training: as of `transform`.
        """
        return Codes(*self.answer(moving, fixed, training=training))

    def of_codes(self, codes: Codes, moving, fixed) -> tuple[Implicit, Implicit]:
        """The transforms of both directions by their codes.

        Args:
            codes: codes of the pairs.
            moving, fixed: images, of which the grids are taken.
        """
        there = Implicit(self.forward, codes, spatial_shape(fixed))
        return there, Implicit(self.backward, codes, spatial_shape(moving))

    def transform(self, moving, fixed, training=None) -> Implicit:
        return self.both(moving, fixed, training)[0]

    def both(self, moving, fixed, training=None) -> tuple[Implicit, Implicit]:
        """The two transforms, of codes that are asked for once.

        Args:
            moving, fixed, training: as of `transform`.
        """
        return self.of_codes(self.codes(moving, fixed, training), moving, fixed)
