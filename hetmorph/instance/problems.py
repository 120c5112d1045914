"""The loss of one pair as a function of what is varied: a velocity, or the weights of a network."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from hetmorph.evaluation.predictor import ModelPredictor, Predictor
from hetmorph.instance import known
from hetmorph.instance.criterion import Criterion
from hetmorph.losses.within import of_images
from hetmorph.networks import Registration, code_table
from hetmorph.objectives import Similarity
from hetmorph.ops import fields, separable, xla
from hetmorph.steps import ImplicitStep, NetworkStep

_SQUARINGS = 5
_COARSENING = 2  # from the image to the velocity
_SPREAD = 1.0  # of one number of the velocity, voxels of its grid
_SHORTEST = 8  # voxels that an axis keeps at a coarser resolution
_COARSEST = 4
_WORTH_COMPILING = 200_000  # voxels: compiling takes seconds, and an evaluation then a quarter of its time


class Problem:
    """Loss of a pair as a function of `variables`; one object serves all pairs of a shape: traced once.

    A pair is `(moving, fixed, weight, start, said)`: images `[1, *S, 1]`, the model's own displacement
    `[1, *S, N]`, and what is known of the pair besides, as `known.known` gives it.
    """

    variables: list[keras.Variable]

    def __init__(self, criterion: Criterion, shape: Sequence[int]):
        self.criterion, self.shape = criterion, tuple(shape)
        compiled = xla.FAST_SCATTER and xla.allowed() and np.prod(shape) >= _WORTH_COMPILING
        self.value_and_gradient = self._traced(compiled)

    def restart(self, pair: tuple) -> None:
        """Set the variables to where they reproduce the model's own answer for a pair."""
        raise NotImplementedError

    def displacement(self, moving, fixed, start) -> tuple[tf.Tensor, tf.Tensor]:
        """The displacement, and the penalty on its folds."""
        raise NotImplementedError

    def _traced(self, compiled: bool) -> tf.types.experimental.PolymorphicFunction:
        """Value and gradient as one graph, compiled by XLA if asked for."""
        return tf.function(self._value_and_gradient, jit_compile=compiled or None, autograph=False)

    def _value_and_gradient(self, moving, fixed, weight, start, said):
        with tf.GradientTape() as tape:
            displacement, folding = self.displacement(moving, fixed, start)
            value = self.criterion(fixed, moving, weight, displacement, said) + folding
        return value, tape.gradient(value, [v.value for v in self.variables]), displacement


class Field(Problem):
    """A velocity on a grid of half the resolution, applied on top of the model's answer.

    Each number that is varied moves a Gaussian neighbourhood, so that a step is smooth before it is penalised.

    Args:
        criterion: what is minimised.
        shape: voxels of the images at this resolution along each axis.
        resting: whether the model's answer is no displacement, which then need not be composed with.
    """

    def __init__(self, criterion: Criterion, shape: Sequence[int], resting: bool):
        super().__init__(criterion, shape)
        self._resting = resting
        self.factors = [_COARSENING if size >= 2 * _SHORTEST else 1 for size in shape]
        self._coarse = [-(-size // k) for size, k in zip(shape, self.factors, strict=True)]
        zeros = np.zeros((1, *self._coarse, len(shape)), np.float32)
        self.variables = [keras.Variable(zeros, name="velocity")]
        self._reached = tf.Variable(zeros, trainable=False)
        self._spread = [separable.bell(size, _SPREAD, mean=False) for size in self._coarse]
        self._finer = [
            None if k == 1 else separable.hats(np.arange(size) / k, coarse)
            for size, k, coarse in zip(shape, self.factors, self._coarse, strict=True)
        ]

    def restart(self, pair):
        self.go_on(np.zeros(self._reached.shape, np.float32))

    def go_on(self, velocity) -> None:
        """Vary from a velocity on."""
        self._reached.assign(velocity)
        self.variables[0].assign(np.zeros(self._reached.shape, np.float32))

    def velocity(self) -> tf.Tensor:
        return self._reached + separable.multiply(self.variables[0].value, self._spread)

    def resampled(self, velocity: tf.Tensor, step: np.ndarray) -> tf.Tensor:
        """A velocity of another grid on this one.

        Args:
            velocity: `[1, *S, N]`, voxels of its grid.
            step: voxels of that grid from one voxel of this one to the next, for each axis.
        """
        old = velocity.shape[1:-1]
        matrices = [separable.hats(np.arange(n) * k, m) for n, k, m in zip(self._coarse, step, old, strict=True)]
        return separable.multiply(velocity, matrices) / tf.constant(step, tf.float32)

    def displacement(self, moving, fixed, start):
        further = fields.integrate(self.velocity(), _SQUARINGS)
        folding = self.criterion.folding(further)
        further = separable.multiply(further, self._finer) * tf.constant(self.factors, tf.float32)
        return (further if self._resting else fields.compose(start, further)), folding


class Network(Problem):
    """The weights of a copy of the model.

    Args:
        criterion: what is minimised.
        shape: voxels of the images along each axis.
        predictor: predictor of the model.
        recompute: run the networks of the model's steps once more for their gradient, see `steps.NetworkStep`.
    """

    def __init__(self, criterion: Criterion, shape: Sequence[int], predictor: ModelPredictor, recompute: bool = False):
        super().__init__(criterion, shape)
        self._copy = self._copied(predictor)
        for layer in self._copy._flatten_layers():
            if isinstance(layer, NetworkStep):
                layer.recomputed = recompute
        self._register = self._copy.get_registration_model()
        self.variables = self._register.trainable_variables
        self._stored = [v.numpy() for v in self.variables]

    def _copied(self, predictor: ModelPredictor):
        """The copy whose variables are varied."""
        return predictor.model.with_shape(self.shape)

    @staticmethod
    def check(predictor: Predictor) -> None:
        """Raise ValueError for a predictor that this cannot work on."""
        if not isinstance(predictor, ModelPredictor) or not hasattr(predictor.model, "with_shape"):
            raise ValueError(
                f"of='network' needs a live model of hetmorph.networks, received {type(predictor).__name__}; "
                "of='field' works with any predictor"
            )

    def _traced(self, compiled):
        """Its kernels alone are compiled: convolutions by XLA are many times slower on a processor."""

        def run(*pair):
            with xla.compiled_kernels(compiled):
                return self._value_and_gradient(*pair)

        return tf.function(run, autograph=False)

    def restart(self, pair):
        for variable, stored in zip(self.variables, self._stored, strict=True):
            variable.assign(stored)

    def displacement(self, moving, fixed, start):
        return self._register([moving, fixed], training=False), tf.zeros([])


class Trained(Network):
    """The same, by what the model was trained by: its losses, its terms, both directions where it registers both.

    The points that a term draws stay the same from one evaluation to the next, and are more than in training.

    Args:
        criterion: whose image loss takes the place of the model's own; None leaves that.
        shape, predictor, recompute: as of `Network`.
    """

    def __init__(
        self, criterion: Criterion | None, shape: Sequence[int], predictor: ModelPredictor, recompute: bool = False
    ):
        super().__init__(criterion, shape, predictor, recompute)
        arguments = compiled_by(predictor.model, criterion)
        arguments["terms"] = [term.of_one_pair(self.shape) for term in arguments["terms"]]
        self._copy.compile(**arguments)
        self._player = self._copy.players()[0]  # of the displacement; a variance stays as it was learnt
        self.variables = list(self._player.variables)
        self._stored = [v.numpy() for v in self.variables]

    @staticmethod
    def check(predictor: Predictor) -> None:
        Network.check(predictor)
        model = predictor.model
        if not getattr(model, "compiled", False) and hasattr(model, "compile_as_published"):
            model.compile_as_published()
        if not getattr(model, "compiled", False):
            raise ValueError(
                f"loss='own' needs a model that is compiled, as one loaded with its losses is; {model.name} is not"
            )

    def _value_and_gradient(self, moving, fixed, weight, start, said):
        with tf.GradientTape() as tape:
            play = self._copy.play([moving, fixed, known.of_images(said)], None, None, training=False)
            value, pair = self._player.loss(play), play.registered
            if known.pulls(said):
                value += known.pull(said, pair.displacement, pair.backward_displacement)
        return value, tape.gradient(value, [v.value for v in self.variables]), pair.displacement


class OfCodes(Trained):
    """The codes of a pair, by what the model was trained by; its networks stay as they were learnt."""

    def __init__(
        self, criterion: Criterion | None, shape: Sequence[int], predictor: ModelPredictor, recompute: bool = False
    ):
        super().__init__(criterion, shape, predictor, recompute)
        self.variables = self._copy.step.network.trainable_variables

    def _copied(self, predictor):
        """That with a table of codes in the place of the encoder, which is asked once for each pair."""
        copy = super()._copied(predictor)
        step, channels = copy.step, copy.inputs[0].shape[-1]
        self._encoder = step.network
        of_pair, of_places = self._encoder([tf.zeros([1, *self.shape, channels])] * 2, training=False)
        table = code_table(of_places.shape[1:-1], 1, of_pair.shape[-1], of_places.shape[-1], channels)
        arguments = {name: value for name, value in copy.config.params.items() if name != "metadata"}
        return Registration(**{**arguments, "step": ImplicitStep(table, step.forward, step.backward)})

    @staticmethod
    def check(predictor: Predictor) -> None:
        Trained.check(predictor)
        step = getattr(predictor.model, "step", None)
        if type(predictor.model) is not Registration or not isinstance(step, ImplicitStep):
            raise ValueError(f"of='codes' needs a model of an ImplicitStep, received {predictor.model.name}")

    def restart(self, pair):
        for variable, code in zip(self.variables, self._encoder(list(pair[:2]), training=False), strict=True):
            variable.assign(code)


def compiled_by(model, criterion: Criterion | None) -> dict:
    """Arguments by which `compile` makes another model minimise what this one does.

    Args:
        model: a compiled model.
        criterion: whose image loss takes the place of the model's own, by the same weight; None leaves that.

    Raises:
        ValueError: the model was not trained by an image loss.
    """
    arguments = keras.saving.deserialize_keras_object(model.get_compile_config())
    if criterion is None:
        return arguments
    image_loss, replaced = criterion.image_loss, []

    def of_view(loss, view: int):
        replaced.append(loss)
        return loss and image_loss

    def of_term(term):
        if type(term) is not Similarity:  # others that derive from it are not of the images
            return term
        replaced.append(term)
        return Similarity(getattr(image_loss, "__self__", image_loss), term.weight, term.name)

    arguments["loss"] = of_images(arguments.get("loss"), model.output_names, of_view)
    arguments["terms"] = [of_term(term) for term in arguments["terms"]]
    if not any(replaced):
        raise ValueError(f"{model.name} was not trained by an image loss of its own that another could replace")
    return arguments


def resolutions(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Factors by which images are shrunk, coarse to fine: 4, 2, 1, as far as an axis keeps 8 voxels.

    Args:
        shape: spatial sizes.
    """

    def fitting(size: int, most: int) -> int:
        return next(k for k in (most, most // 2, 1) if k == 1 or (k and size // k >= _SHORTEST))

    return list(dict.fromkeys(tuple(fitting(size, most) for size in shape) for most in (_COARSEST, 2, 1)))
