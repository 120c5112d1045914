"""Keras' callbacks in a training of two optimisers, of which one may rest."""

import contextlib
import copy
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

# What acts on `model.optimizer`.
_OF_OPTIMIZERS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.SwapEMAWeights,
)


def for_both(callbacks, model: keras.Model, first: Sequence = (), last: Sequence = ()):
    """Callbacks, and before each that acts on the optimiser a twin that acts on the second one.

    Args:
        callbacks: a callback, a list, nested ones, None, or a `CallbackList`, as `keras.Model.fit` takes them.
        model: a model with `optimizer` and `variance_optimizer`.
        first, last: callbacks before and after all others.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        listed = copy.copy(callbacks)  # the user's own stays as it is
        listed.callbacks = for_both(callbacks.callbacks, model, first, last)
        listed.set_params(listed.params)
        listed.set_model(model)
        return listed
    # The twin goes first, so that what both write into the logs is in the end that of `model.optimizer`.
    given = tf.nest.flatten(callbacks or [])
    return [*first, *(one for callback in given for one in (*_twin(callback, model), callback)), *last]


def _twin(callback: keras.callbacks.Callback, model: keras.Model) -> list[keras.callbacks.Callback]:
    if not isinstance(callback, _OF_OPTIMIZERS) or isinstance(callback, _OfSecond):
        return []
    if isinstance(callback, keras.callbacks.SwapEMAWeights) and not bare(model.variance_optimizer).use_ema:
        return []
    twin = copy.copy(callback)
    twin.__class__ = type(type(callback).__name__, (_OfSecond, type(callback)), {})
    return [twin]


class _OfSecond:
    """Mixin before a callback: to it, the model's optimiser is the second one."""

    def set_model(self, model) -> None:
        super().set_model(_SecondOptimizer(model))


class _SecondOptimizer:
    """A model whose optimiser is its second one."""

    def __init__(self, model: keras.Model):
        self._model = model

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        return self._model.variance_optimizer

    def __getattr__(self, name: str):
        return getattr(self._model, name)


def watching(callbacks: Sequence) -> list[keras.callbacks.Callback]:
    """The callbacks that decide by the course of a value, such as `EarlyStopping`.

    Args:
        callbacks: without nested ones.
    """
    return [c for c in callbacks if hasattr(c, "monitor") and getattr(c, "save_best_only", True)]


@contextlib.contextmanager
def asleep(callbacks: Sequence[keras.callbacks.Callback], model: keras.Model) -> Iterator[None]:
    """Callbacks are told nothing of epochs and batches that end while `model.warming_up`.

    Args:
        callbacks: from `watching`.
        model: the model that is trained.
    """
    gated = []
    for callback in callbacks:
        for name in ("on_epoch_end", "on_train_batch_end"):
            hook = getattr(callback, name)
            if not getattr(hook, "_is_default", False):
                setattr(callback, name, _unless_warming_up(hook, model))
                gated.append((callback, name))
    try:
        yield
    finally:
        for callback, name in gated:
            delattr(callback, name)


def _unless_warming_up(hook, model: keras.Model):
    def gate(number, logs=None):
        if not model.warming_up:
            hook(number, logs)

    return gate


def bare(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """An optimiser without the scaling of its loss.

    Args:
        optimizer: any.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def constant_rate(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The learning rate, None where it follows a schedule.

    Args:
        optimizer: any.
    """
    rate = bare(optimizer)._learning_rate
    return float(rate.numpy()) if isinstance(rate, keras.Variable) else None


def begin_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Let the moving averages of an optimiser that has not moved yet be the weights: Keras begins them with zeros.

    Args:
        optimizer: built; without `use_ema` nothing happens.
    """
    optimizer = bare(optimizer)
    if optimizer.use_ema and not int(optimizer._iterations.numpy()):
        for variable, average in zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        ):
            average.assign(variable.numpy())


def check_variables(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
    """Refuse an optimiser that was built for other variables; Keras would, when the first step is traced.

    Args:
        optimizer: any; one that is not built fits all.
        variables: what it is to move.

    Raises:
        ValueError: the optimiser does not know one of the variables.
    """
    optimizer = bare(optimizer)
    if not optimizer.built or hasattr(optimizer, "optimizers"):
        return
    known = optimizer._trainable_variables_indices
    unknown = [variable.path for variable in variables if optimizer._var_key(variable) not in known]
    if unknown or optimizer.use_ema and len(known) != len(variables):
        which = f"{unknown[0]} is not among them" if unknown else "its averages are of more than is trained now"
        raise ValueError(
            f"expected a new optimizer, or one that was built for these {len(variables)} variables; received one built "
            f"for {len(known)} ({which}): give {type(optimizer).__name__}.from_config(optimizer.get_config())"
        )
