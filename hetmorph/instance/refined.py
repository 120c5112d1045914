"""A predictor whose answers are optimised pair by pair."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from hetmorph.evaluation.adapter import wrap
from hetmorph.evaluation.guide import Guide
from hetmorph.evaluation.predictor import Prediction, Predictor
from hetmorph.instance import known
from hetmorph.instance.criterion import SIMILARITIES, Criterion
from hetmorph.instance.problems import Field, Network, OfCodes, Problem, Trained, compiled_by, resolutions
from hetmorph.instance.search import Search
from hetmorph.ops import fields
from hetmorph.ops.warp import warp

_KINDS = ("field", "network", "codes")
_OPTIMIZERS = ("lbfgs", "adam")
_MORE_FOLDS = 0.1  # percent of the voxels; what folds more than the model's own answer by this is refused
_SMOOTHNESS = 0.3
_NOTHING = 1e-6  # a loss from which there is nowhere to go
_SHORTER = (0.75, 0.5, 0.25)


class RefinementWarning(UserWarning):
    """The optimisation of a pair did not do what it is for."""


@dataclass(frozen=True)
class Refinement:
    """Outcome for one pair.

    Attributes:
        displacement: `[*S, N]` voxels, on the fixed grid.
        moved: `[*S]` the moving image pulled through it.
        losses: loss of every evaluation at full resolution, the first being the model's own answer.
        loss: loss of the displacement; not above the first of `losses`.
        folds: percent of the voxels, of the model's own answer and of this one.
        start: the model's own answer.
    """

    displacement: np.ndarray
    moved: np.ndarray
    losses: list[float]
    loss: float
    folds: tuple[float, float]
    start: Prediction


class Refined(Predictor):
    """A predictor whose answers are optimised pair by pair; an answer never has a higher loss than the model's own.

    Nor does it fold at 0.1 % more of the voxels: a velocity is shortened until it does not, and where nothing better
    than the model's own answer is found, that is the answer. Both come with a `RefinementWarning`.
    `log_variance` and `weight` of a prediction remain those the model gave for its own answer.

    Args:
        model: a predictor or a live model.
        iterations: at most so many at each resolution (a quarter, a half and all of the voxels of an axis, as far as 8
            are left); it stops earlier where the loss no longer falls by 10⁻⁵ of itself. A network sees the last only.
        of: "field"; "network" for the weights of a copy of it; or "codes" for those that a model of an `ImplicitStep`
            predicts, its networks staying as they are. The model itself stays as it is.
        loss: image loss `(fixed, moved) → loss`, or a name: "ncc", as None, is `LocalCorrelation`, "mse", and of images
            of different modalities "mind", "mi" or "ngf"; "own", of a network or its codes, takes all that the model
            was trained by, its terms and λ too, as ICON and GradICON go on from their answers.
        similarity: the image loss that takes the place of the model's in loss "own", by the same weight: a name as for
            `loss`, or one of `hetmorph.losses`, the object or its `.loss`; None leaves the model's.
        smoothness: λ; None takes the one that suits a named loss (`SIMILARITIES`), 0.3 of others. Not for "own".
        optimizer: "lbfgs", or "adam" with `learning_rate`.
        learning_rate: step of Adam: voxels for a field (about 0.1), weights for a network (about 1e-4).
        weighted: weight the voxels of the loss as the heteroscedastic model does.
        recompute: run each step of a network of steps once more for its gradient instead of keeping all that it
            computes on the way: half the memory of a large volume, for a fifth more time.

    Raises:
        ValueError: an argument out of range, or one that the model does not allow.

    Example:
        >>> refined = Refined(model, iterations=30)
        >>> displacement = refined(moving, fixed).displacement
    """

    guided = True

    def __init__(
        self,
        model,
        iterations: int = 50,
        of: str = "field",
        loss: Callable | str | None = None,
        smoothness: float | None = None,
        optimizer: str = "lbfgs",
        learning_rate: float = 0.1,
        weighted: bool = False,
        recompute: bool = False,
        similarity: Callable | str | None = None,
    ):
        own, named = loss == "own", "ncc" if loss in (None, "own") else loss
        names = {} if callable(named) else {"loss": (named, (*SIMILARITIES, "own"))}
        names |= {"similarity": (similarity, tuple(SIMILARITIES))} if isinstance(similarity, str) else {}
        names |= {"of": (of, _KINDS), "optimizer": (optimizer, _OPTIMIZERS)}
        for name, (value, choices) in names.items():
            if value not in choices:
                raise ValueError(f"expected {name} to be one of {choices}, received {value!r}")
        image_loss, suiting = SIMILARITIES.get(named, (named, _SMOOTHNESS))
        smoothness = suiting if smoothness is None else smoothness
        if iterations < 1 or smoothness < 0 or learning_rate <= 0:
            raise ValueError(
                f"expected iterations >= 1, smoothness >= 0 and learning_rate > 0, received {iterations}, "
                f"{smoothness} and {learning_rate}"
            )
        self.predictor = wrap(model)
        super().__init__(self.predictor.ndims)
        self.resizes_to, self.modalities = self.predictor.resizes_to, self.predictor.modalities
        self.iterations, self.smoothness, self.weighted = iterations, smoothness, weighted
        self.of, self.optimizer, self.learning_rate = of, optimizer, learning_rate
        if own and (of == "field" or weighted):
            raise ValueError("loss='own' goes with of='network' or of='codes', and knows its own weights")
        if of == "codes" and not own:
            raise ValueError("of='codes' goes with loss='own'")
        if similarity is not None and not own:
            raise ValueError("similarity goes with loss='own'; of others, loss is the image loss")
        if own:
            image_loss = SIMILARITIES[similarity][0] if isinstance(similarity, str) else similarity
        self._criterion = None if image_loss is None else Criterion(image_loss, smoothness, weighted)
        self._network, self._recompute = OfCodes if of == "codes" else Trained if own else Network, recompute
        if of != "field":
            self._network.check(self.predictor)
        elif recompute:
            raise ValueError("recompute goes with of='network'")
        if similarity is not None:
            compiled_by(self.predictor.model, self._criterion)  # says what cannot be
        self._problems: dict[tuple, Problem] = {}

    def refine(self, moving, fixed, guide: Guide | None = None) -> Refinement:
        """Optimise one pair of images `[*S]`, intensities in [0, 1].

        Args:
            moving, fixed: the images.
            guide: masks of the image loss, points and structures that are to meet, and volumes that conserve mass.

        Raises:
            ValueError: masks, labels or volumes of another shape than the images, points of another number of axes, or
                volumes for a loss that does not know what to do with them.
        """
        return self._refine(self.predictor(moving, fixed), moving, fixed, guide)

    def predict_batch(self, moving, fixed, guides: Sequence[Guide | None] | None = None) -> list[Prediction]:
        starts = self.predictor.predict_batch(moving, fixed)
        guides = [None] * len(starts) if guides is None else guides
        return [self._answer(*one) for one in zip(starts, moving, fixed, guides, strict=True)]

    def _run(self, moving, fixed):
        answers = self.predict_batch(moving.numpy()[..., 0], fixed.numpy()[..., 0])
        return {"displacement": np.stack([answer.displacement for answer in answers])}

    def _answer(self, start: Prediction, moving, fixed, guide: Guide | None) -> Prediction:
        result = self._refine(start, moving, fixed, guide)
        return replace(start, displacement=result.displacement, moved=result.moved, refinement=result)

    def _refine(self, start: Prediction, moving, fixed, guide: Guide | None) -> Refinement:
        if self.weighted and start.weight is None:
            raise ValueError("weighted refinement needs a model that predicts a weight; this one does not")
        if guide is not None:
            self._check(guide, np.shape(fixed))
        if guide is not None and guide.idle:
            return Refinement(start.displacement, start.moved, [0.0], 0.0, (_folds(start.displacement),) * 2, start)
        weight = np.ones(np.shape(fixed)) if start.weight is None else start.weight
        images = [np.asarray(x, np.float32)[None, ..., None] for x in (moving, fixed, weight)]
        pair = (*map(tf.constant, (*images, start.displacement[None])), known.known(guide))
        search = self._of_field(pair) if self.of == "field" else self._of_network(pair)
        displacement, loss = self._accepted(search, start.displacement)
        moved = warp(pair[0], displacement[None]).numpy()[0, ..., 0]
        folds = _folds(start.displacement), _folds(displacement)
        return Refinement(displacement, moved, search.losses, loss, folds, start)

    def _check(self, guide: Guide, shape: tuple[int, ...]) -> None:
        """Raise ValueError for a guide that does not fit the images."""
        volumes = [] if guide.volume is None else [guide.volume]
        for what, arrays in (("a mask", guide.masks), ("labels", guide.labels), ("volumes", volumes)):
            for array in arrays:
                if np.shape(array) != shape:
                    raise ValueError(f"expected {what} of the images' shape {shape}, received {np.shape(array)}")
        if volumes and self.weighted:
            raise ValueError("mass is conserved by losses that count all voxels alike, received weighted=True")
        if guide.points_fixed is not None and guide.points_fixed.shape[1] != len(shape):
            raise ValueError(f"expected points [P, {len(shape)}], received {guide.points_fixed.shape}")

    def _of_network(self, pair: tuple) -> Search:
        shape = tuple(pair[0].shape[1:-1])
        if shape not in self._problems:
            self._problems[shape] = self._network(self._criterion, shape, self.predictor, self._recompute)
        search = Search(self._problems[shape], pair)
        search.problem.restart(pair)
        search.run(self.optimizer, self.iterations, self.learning_rate)
        return search

    def _of_field(self, pair: tuple) -> Search:
        """From coarse to fine, each resolution from the velocity of the one before.

        A model has found the large motion already: from its answer the coarse resolutions, which know less than it did,
        lead away: on hearts they lost Dice that the finest alone gained.
        """
        pair, resting = known.softened(pair), not np.any(pair[3])
        *coarser, whole = resolutions(pair[0].shape[1:-1]) if resting else resolutions(pair[0].shape[1:-1])[-1:]
        finest = Search(self._field(tuple(pair[0].shape[1:-1]), resting), pair)
        finest.problem.restart(pair)
        value, _ = finest.evaluate()
        if finest.best is None or abs(value) <= _NOTHING:  # not finite, or nothing to gain
            return finest
        velocity, before = None, None
        for factor in (*coarser, whole):
            shrunk = known.shrunk(pair, factor)
            problem = self._field(tuple(shrunk[0].shape[1:-1]), resting)
            search, step = Search(problem, shrunk) if factor != whole else finest, np.multiply(factor, problem.factors)
            problem.restart(shrunk)
            if velocity is not None:
                problem.go_on(problem.resampled(velocity, step / before))
            search.run(self.optimizer, self.iterations, self.learning_rate)
            velocity, before = problem.velocity(), step
        return search

    def _field(self, shape: tuple[int, ...], resting: bool) -> Field:
        key = (shape, resting)
        if key not in self._problems:
            self._problems[key] = Field(self._criterion, shape, resting)
        return self._problems[key]

    def _accepted(self, search: Search, start: np.ndarray) -> tuple[np.ndarray, float]:
        """The best displacement found that folds no more than the model's own, and its loss."""
        first, lowest = search.losses[0], min(search.losses)
        if search.best is None:
            raise ValueError("the loss of the model's own answer is not finite: nothing to optimise")
        if lowest >= first:
            if len(search.losses) > 2 and abs(first) > _NOTHING:
                _warn(f"found nothing better than the model's own answer (loss {first:.4f}), which is kept")
            return start, first
        allowed, folds = _folds(start) + _MORE_FOLDS, _folds(search.best)
        if folds <= allowed:
            return search.best, lowest
        for displacement, loss in self._shorter(search):
            if loss < first and _folds(displacement) <= allowed:
                _warn(
                    f"folded {folds:.2f} % of the voxels; the deformation was shortened to {_folds(displacement):.2f} %"
                )
                return displacement, loss
        _warn(f"folded {folds:.2f} % of the voxels, the model's own answer {_folds(start):.2f} %, which is kept")
        return start, first

    @staticmethod
    def _shorter(search: Search):
        """The displacements, and losses, of parts of the velocity where the search has ended."""
        if not isinstance(search.problem, Field):
            return
        velocity = search.problem.velocity()
        for part in _SHORTER:
            search.problem.go_on(part * velocity)
            value, _, displacement = search.problem.value_and_gradient(*search.pair)
            yield displacement[0].numpy(), float(value)


def _folds(displacement: np.ndarray) -> float:
    """Percent of the voxels that fold."""
    return 100.0 * float(np.mean(fields.jacobian_determinant(displacement[None]).numpy() <= 0))


def _warn(what: str) -> None:
    warnings.warn(f"the optimisation of the pair {what}", RefinementWarning, stacklevel=2)
