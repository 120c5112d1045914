"""Any model as a predictor: ours, exported, served, or a function of somebody else's."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from hetmorph.evaluation.predictor import ModelPredictor, Predictor, SavedModelPredictor, load
from hetmorph.ops.warp import warp


class FunctionPredictor(Predictor):
    """Predictor of a function that registers; whatever it does inside is its own affair.

    Args:
        function: takes moving and fixed, `[*S]` float32 in [0, 1], and returns the displacement `[*S, N]` in voxels on
            the fixed grid, moved(x) = moving(x + u(x)); or a mapping, or an object, that holds it as `displacement`.
        batched: the function takes `[B, *S, 1]` and returns `[B, *S, N]`, as `VxmDense.register` does.
    """

    compiles = False
    random = frozenset({"callable"})

    def __init__(self, function: Callable, batched: bool = False):
        super().__init__(None)
        self.function, self.batched = function, batched

    def _run(self, moving, fixed):
        field = self._fields(moving, fixed)
        return {"displacement": field, "moved": warp(moving, field)}

    def _fields(self, moving, fixed):
        moving, fixed = moving.numpy(), fixed.numpy()
        if self.batched:
            fields = _displacement_in(self.function(moving, fixed))
        else:
            pairs = zip(moving[..., 0], fixed[..., 0], strict=True)
            fields = np.stack([_displacement_in(self.function(*pair)) for pair in pairs])
        expected = (*moving.shape[:-1], moving.ndim - 2)
        if fields.shape != expected:
            raise ValueError(
                f"the function must return a displacement of shape {expected[not self.batched :]} in voxels for images "
                f"of {expected[not self.batched : -1]}, got {fields.shape[not self.batched :]}"
            )
        return fields

    def _drawn(self, moving, fixed, seed):
        return self._fields(moving, fixed)


def wrap(model, batched: bool = False) -> Predictor:
    """The predictor of a model in any form.

    Args:
        model: a `hetmorph.networks` model; a path as for `load`; what `tf.saved_model.load` returned; the client of a
            served model, with a method `predictor`, as `hetmorph.serving.Client`, or `register(moving, fixed)` of
            batches `[B, *S, 1]`; a function, see `FunctionPredictor`; or a predictor, which is returned as it is.
        batched: whether a function takes batches, see `FunctionPredictor` (default: single pairs).

    Raises:
        ValueError: none of these.

    Example:
        >>> predictor = wrap(lambda moving, fixed: numpy.zeros((*fixed.shape, fixed.ndim)))
    """
    if isinstance(model, Predictor):
        return model
    if isinstance(model, keras.Model):
        return ModelPredictor(model)
    if isinstance(model, (str, Path)):
        return load(model)
    if callable(getattr(model, "predictor", None)):
        return model.predictor()
    if hasattr(model, "signatures"):
        return SavedModelPredictor(model)
    if callable(getattr(model, "register", None)) and not inspect.isclass(model):
        return FunctionPredictor(model.register, batched=True)
    if callable(model) and not inspect.isclass(model):
        return FunctionPredictor(model, batched)
    raise ValueError(
        "expected a registration model, its path, a SavedModel, a client with a method `register`, or a function of "
        f"moving and fixed, got {model!r:.80}"
    )


def _displacement_in(result) -> np.ndarray:
    if isinstance(result, Mapping):
        result = result["displacement"]
    return np.asarray(getattr(result, "displacement", result), np.float32)
