"""Descent on the loss of one pair, remembering the best."""

import keras
import numpy as np
from scipy import optimize

from hetmorph.instance.problems import Problem

_TOLERANCE = 1e-5
_PATIENCE = 10


class Search:
    """Minimises the loss of one pair and remembers the best it has seen."""

    def __init__(self, problem: Problem, pair: tuple):
        self.problem, self.pair = problem, pair
        self.losses, self.best = [], None

    def evaluate(self) -> tuple[float, list]:
        """Loss and gradients where the variables are."""
        value, gradients, displacement = self.problem.value_and_gradient(*self.pair)
        value = float(value)
        if np.isfinite(value) and value < min(self.losses, default=np.inf):
            self.best = displacement[0].numpy()
        self.losses.append(value if np.isfinite(value) else np.inf)
        return self.losses[-1], gradients

    def run(self, optimizer: str, iterations: int, learning_rate: float) -> None:
        """Descend from where the variables are."""
        if optimizer == "adam":
            self._adam(iterations, learning_rate)
        else:
            self._lbfgs(iterations)

    def _adam(self, iterations: int, learning_rate: float) -> None:
        optimizer, first = keras.optimizers.Adam(learning_rate), len(self.losses)
        for _ in range(iterations):
            _, gradients = self.evaluate()
            if self._stalls(first):
                return
            optimizer.apply(gradients, self.problem.variables)
        self.evaluate()

    def _stalls(self, first: int) -> bool:
        """Whether the last evaluations brought nothing to speak of."""
        losses = self.losses[first:]
        before, recent = losses[:-_PATIENCE], losses[-_PATIENCE:]
        return bool(before) and min(recent) > min(before) - _TOLERANCE * abs(min(before))

    def _lbfgs(self, iterations: int) -> None:
        variables = self.problem.variables
        start = np.concatenate([v.numpy().ravel() for v in variables])
        scale = None

        def value_and_gradient(flat: np.ndarray):
            nonlocal scale
            _assign(variables, flat)
            value, gradients = self.evaluate()
            # scipy's tolerance is relative to the value, but not below 1: make the first value 1.
            scale = scale or 1 / max(abs(value), 1e-12)
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
