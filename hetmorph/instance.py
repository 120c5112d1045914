"""A model's answer for one pair, optimised further on that pair alone.

What is minimised is D(fixed, moving∘(id + u)) + λ·2‖∇u‖², D an image loss. The factor 2 is the one of training at half
resolution, so that λ means the same. Two things can be varied: a velocity v, u = u₀∘exp(v), on top of the answer u₀ of
any predictor; or the weights of a copy of the network.

Reference: Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538, section V-C.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy import optimize

from hetmorph.evaluation.adapter import wrap
from hetmorph.evaluation.predictor import ModelPredictor, Prediction, Predictor
from hetmorph.losses import MSE, Grad
from hetmorph.losses.voxelwise import voxelwise_loss
from hetmorph.ops import fields
from hetmorph.ops.warp import warp

_SQUARINGS = 5
_COARSENING = 2
_TOLERANCE = 1e-5
_PATIENCE = 10


@dataclass(frozen=True)
class Refinement:
    """Outcome for one pair.

    Attributes:
        displacement: `[*S, N]` voxels, on the fixed grid.
        moved: `[*S]` the moving image pulled through it.
        losses: of every evaluation, the first being the model's own answer; the displacement is that of the lowest.
    """

    displacement: np.ndarray
    moved: np.ndarray
    losses: list[float]


class Refined(Predictor):
    """A predictor whose answers are optimised pair by pair; an answer never has a higher loss than the model's own.

    `log_variance` and `weight` of a prediction remain those the model gave for its own answer.

    Args:
        model: a predictor or a live model.
        iterations: at most so many; it stops earlier where the loss no longer falls by 10⁻⁵ of itself.
        of: "field", or "network" for the weights of a copy of it; the model itself stays as it is.
        loss: image loss `(fixed, moved) → loss`; None takes the mean squared difference.
        smoothness: λ.
        optimizer: "lbfgs", or "adam" with `learning_rate`.
        learning_rate: of Adam: voxels per step for a field (about 0.1), weight per step for a network (about 1e-4).
        weighted: weight the voxels of the loss as the heteroscedastic model does.

    Raises:
        ValueError: an argument out of range, or one that the model does not allow.

    Example:
        >>> refined = Refined(model, iterations=30)
        >>> displacement = refined(moving, fixed).displacement
    """

    def __init__(
        self,
        model,
        iterations: int = 50,
        of: str = "field",
        loss: Callable | None = None,
        smoothness: float = 0.01,
        optimizer: str = "lbfgs",
        learning_rate: float = 0.1,
        weighted: bool = False,
    ):
        for name, value, choices in (("of", of, _PROBLEMS), ("optimizer", optimizer, ("lbfgs", "adam"))):
            if value not in choices:
                raise ValueError(f"expected {name} to be one of {tuple(choices)}, received {value!r}")
        if iterations < 1 or smoothness < 0 or learning_rate <= 0:
            raise ValueError(
                f"expected iterations >= 1, smoothness >= 0 and learning_rate > 0, received {iterations}, "
                f"{smoothness} and {learning_rate}"
            )
        self.predictor = wrap(model)
        super().__init__(self.predictor.ndims)
        self.iterations, self.smoothness, self.weighted = iterations, smoothness, weighted
        self.optimizer, self.learning_rate = optimizer, learning_rate
        image_loss = MSE().loss if loss is None else loss
        self.image_loss = voxelwise_loss(image_loss) if weighted else image_loss
        self._problem = _PROBLEMS[of]
        self._problem.check(self.predictor)
        self._by_shape = {}

    def refine(self, moving, fixed) -> Refinement:
        """Optimise one pair of images `[*S]`, intensities in [0, 1]."""
        return self._refine(self.predictor(moving, fixed), moving, fixed)

    def _refine(self, start: Prediction, moving, fixed) -> Refinement:
        if self.weighted and start.weight is None:
            raise ValueError("weighted refinement needs a model that predicts a weight; this one does not")
        shape = np.shape(fixed)
        if shape not in self._by_shape:
            self._by_shape[shape] = self._problem(self, shape)
        problem = self._by_shape[shape]
        problem.restart()
        weight = np.ones(shape) if start.weight is None else start.weight
        images = [tf.constant(np.asarray(x, np.float32)[None, ..., None]) for x in (moving, fixed, weight)]
        search = _Search(problem, (*images, tf.constant(start.displacement[None])))
        search.run(self.optimizer, self.iterations, self.learning_rate)
        if search.best is None:
            raise ValueError("the loss of the model's own answer is not finite: nothing to optimise")
        moved = warp(images[0], search.best[None]).numpy()[0, ..., 0]
        return Refinement(search.best, moved, search.losses)

    def _run(self, moving, fixed):
        pairs = list(zip(moving.numpy()[..., 0], fixed.numpy()[..., 0], strict=True))
        starts = self.predictor.predict_batch(*zip(*pairs, strict=True))
        results = [self._refine(start, *pair) for start, pair in zip(starts, pairs, strict=True)]
        stacked = {
            "displacement": np.stack([result.displacement for result in results]),
            "moved": np.stack([result.moved for result in results])[..., None],
        }
        for name in ("log_variance", "weight"):
            if getattr(starts[0], name) is not None:
                stacked[name] = np.stack([getattr(start, name) for start in starts])[..., None]
        return stacked


class _Problem:
    """Loss of a pair as a function of `variables`; one object serves all pairs of a shape: traced once."""

    variables: list[keras.Variable]

    def __init__(self, settings: Refined):
        self._settings = settings
        self.value_and_gradient = tf.function(self._value_and_gradient)

    @staticmethod
    def check(predictor: Predictor) -> None:
        """Raise ValueError for a predictor that this cannot work on."""

    def restart(self) -> None:
        """Set the variables to where they reproduce the model's own answer."""
        raise NotImplementedError

    def displacement(self, moving, fixed, start) -> tf.Tensor:
        raise NotImplementedError

    def _value_and_gradient(self, moving, fixed, weight, start):
        with tf.GradientTape() as tape:
            displacement = self.displacement(moving, fixed, start)
            value = self._loss(moving, fixed, weight, displacement)
        return value, tape.gradient(value, [v.value for v in self.variables]), displacement

    def _loss(self, moving, fixed, weight, displacement):
        settings = self._settings
        dissimilarity = settings.image_loss(fixed, warp(moving, displacement))
        if settings.weighted:
            dissimilarity = weight * dissimilarity
        roughness = Grad("l2", loss_mult=_COARSENING).loss(None, displacement)
        return tf.reduce_mean(dissimilarity) + settings.smoothness * tf.reduce_mean(roughness)


class _Field(_Problem):
    """A velocity on a grid of half the resolution, applied on top of the model's answer."""

    def __init__(self, settings: Refined, shape: tuple[int, ...]):
        super().__init__(settings)
        self._shape = shape
        coarse = [-(-size // _COARSENING) for size in shape]
        self.variables = [keras.Variable(np.zeros((1, *coarse, len(shape)), np.float32), name="velocity")]

    def restart(self):
        self.variables[0].assign(np.zeros(self.variables[0].shape, np.float32))

    def displacement(self, moving, fixed, start):
        further = fields.integrate(self.variables[0].value, _SQUARINGS)
        further = fields.rescale(further, _COARSENING)
        return fields.compose(start, further[(slice(None), *(slice(size) for size in self._shape))])


class _Network(_Problem):
    """The weights of a copy of the model."""

    def __init__(self, settings: Refined, shape: tuple[int, ...]):
        super().__init__(settings)
        model = settings.predictor.model
        self._copy = model.with_shape(shape)
        self._register = self._copy.get_registration_model()
        self.variables = self._register.trainable_variables
        self._stored = [v.numpy() for v in self.variables]

    @staticmethod
    def check(predictor):
        if not isinstance(predictor, ModelPredictor) or not hasattr(predictor.model, "with_shape"):
            raise ValueError(
                f"of='network' needs a live model of hetmorph.networks, received {type(predictor).__name__}; "
                "of='field' works with any predictor"
            )

    def restart(self):
        for variable, stored in zip(self.variables, self._stored, strict=True):
            variable.assign(stored)

    def displacement(self, moving, fixed, start):
        return self._register([moving, fixed], training=False)


_PROBLEMS = {"field": _Field, "network": _Network}


class _Search:
    """Minimises the loss of one pair and remembers the best it has seen."""

    def __init__(self, problem: _Problem, pair: tuple):
        self.problem, self.pair = problem, pair
        self.losses, self.best = [], None

    def run(self, optimizer: str, iterations: int, learning_rate: float) -> None:
        if optimizer == "adam":
            self._adam(iterations, learning_rate)
        else:
            self._lbfgs(iterations)

    def _evaluate(self) -> tuple[float, list]:
        value, gradients, displacement = self.problem.value_and_gradient(*self.pair)
        value = float(value)
        if np.isfinite(value) and value < min(self.losses, default=np.inf):
            self.best = displacement[0].numpy()
        self.losses.append(value if np.isfinite(value) else np.inf)
        return self.losses[-1], gradients

    def _adam(self, iterations: int, learning_rate: float) -> None:
        optimizer = keras.optimizers.Adam(learning_rate)
        for _ in range(iterations):
            _, gradients = self._evaluate()
            if self._stalls():
                return
            optimizer.apply(gradients, self.problem.variables)
        self._evaluate()

    def _stalls(self) -> bool:
        """Whether the last evaluations brought nothing to speak of."""
        before, recent = self.losses[:-_PATIENCE], self.losses[-_PATIENCE:]
        return bool(before) and min(recent) > (1 - _TOLERANCE) * min(before)

    def _lbfgs(self, iterations: int) -> None:
        variables = self.problem.variables
        start = np.concatenate([v.numpy().ravel() for v in variables])
        scale = None

        def value_and_gradient(flat: np.ndarray):
            nonlocal scale
            _assign(variables, flat)
            value, gradients = self._evaluate()
            # scipy's tolerance is relative to the value, but not below 1: make the first value 1.
            scale = scale or 1 / max(value, 1e-12)
            return scale * value, scale * np.concatenate([g.numpy().ravel() for g in gradients]).astype(np.float64)

        optimize.minimize(
            value_and_gradient,
            start.astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": iterations, "maxcor": 8, "ftol": _TOLERANCE, "gtol": 0},
        )


def _assign(variables: list[keras.Variable], flat: np.ndarray) -> None:
    position = 0
    for variable in variables:
        size = int(np.prod(variable.shape))
        variable.assign(flat[position : position + size].reshape(variable.shape))
        position += size
