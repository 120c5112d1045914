"""A loss object whose `.loss` Keras can write to a file and read back."""

import keras
import tensorflow as tf

from hetmorph.configured import Configured


@keras.saving.register_keras_serializable("hetmorph")
class LossMethod(Configured):
    """The `.loss` of a loss object: callable like the method it stands for, and serialisable.

    `compile(loss=[MSE().loss, ...])` is how VoxelMorph code passes losses. A bound method cannot be written to a
    `.keras` file; this object can, by writing its owner.

    Args:
        owner: registered loss object with `get_config` and `_loss(y_true, y_pred, ...)`.
    """

    def __init__(self, owner):
        self.owner = owner
        self.__name__ = f"{type(owner).__name__.lower()}_loss"

    def __call__(self, y_true, y_pred, *args, **kwargs) -> tf.Tensor:
        if isinstance(y_pred, keras.KerasTensor):
            return SymbolicLoss(self.owner)([y_pred] if y_true is None else [y_true, y_pred])
        return self.owner._loss(*as_real(y_true, y_pred), *args, **kwargs)

    def __repr__(self) -> str:
        return f"<loss of {self.owner!r}>"


@keras.saving.register_keras_serializable("hetmorph")
class SymbolicLoss(Configured, keras.layers.Layer):
    """A loss between tensors of a model, `[y_true, y_pred]` or `[y_pred]`, as an output of that model.

    Args:
        owner: loss object.
    """

    def __init__(self, owner, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.owner = owner

    def call(self, tensors):
        return self.owner._loss(*as_real(*([None] * (2 - len(tensors))), *tensors))


class SerializableLoss(Configured):
    """Base of a loss: serialisable `.loss`, configuration, readable `repr`.

    A subclass implements `voxelwise(y_true, y_pred)`, of which the mean is taken, or `_loss`, one number per sample.
    """

    @property
    def loss(self) -> LossMethod:
        """Callable `(y_true, y_pred) -> loss`, for `compile`."""
        return LossMethod(self)

    def _loss(self, y_true, y_pred, reduce="mean"):
        return per_sample(self.voxelwise(y_true, y_pred), reduce)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def as_real(*tensors) -> list[tf.Tensor]:
    """Tensors of one floating type: float32, or float64 where the prediction is.

    Half precision cannot hold the sums of a loss, and integer labels have no gradient. A target of None, which the
    smoothness losses do not look at, stays None. The prediction, last, decides the type.
    """
    dtype = tf.float64 if tf.convert_to_tensor(tensors[-1]).dtype == tf.float64 else tf.float32
    return [None if t is None else tf.cast(t, dtype) for t in tensors]


def per_sample(values: tf.Tensor, reduce: str | None = "mean") -> tf.Tensor:
    """Values `[B, …]` as one number per sample, `[B]`; all of them where `reduce` is None.

    Keras divides what has a batch axis by the global batch. A single number it would take for done already: with N
    replicas its gradient would count N times.

    Raises:
        ValueError: `reduce` is none of "mean", "max" and None.
    """
    if reduce is None:
        return values
    functions = {"mean": tf.reduce_mean, "max": tf.reduce_max}
    if reduce not in functions:
        raise ValueError(f"a loss can be reduced by 'mean', 'max' or None, got {reduce!r}")
    return functions[reduce](values, axis=list(range(1, len(values.shape))))


def positive(value: float, name: str) -> float:
    """The value, if it is above 0."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value


def require_rank(tensor: tf.Tensor, what: str) -> int:
    """Number of spatial dimensions of a `[B, *S, C]` tensor.

    Raises:
        ValueError: the rank is unknown, or not that of a 1-D, 2-D or 3-D batch.
    """
    rank = tensor.shape.rank
    if rank is None or not 3 <= rank <= 5:
        raise ValueError(f"{what} needs tensors [batch, 1 to 3 spatial axes, channels], got shape {tensor.shape}")
    return rank - 2
