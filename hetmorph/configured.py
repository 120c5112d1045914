"""Objects that Keras writes to a file, and reads back, by the arguments that they were made of."""

import inspect

import keras
import numpy as np


class Configured:
    """Mixin, before a Keras class, or base of an object that keeps each argument of its constructor as an attribute.

    Its configuration holds all of them; what is no number or text among them, such as layers, is serialised.
    """

    def get_config(self) -> dict:
        inherited = super().get_config() if isinstance(self, keras.Layer) else {}
        return {**inherited, **{name: plain(getattr(self, name)) for name in _arguments(type(self))}}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**keras.saving.deserialize_keras_object(config))


def plain(value):
    """What JSON can hold of numbers, arrays, objects of Keras, and lists, tuples and dictionaries of these.

    Args:
        value: any of them.
    """
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return keras.saving.serialize_keras_object(value)


def _arguments(cls: type) -> list[str]:
    """Names of the arguments of a class, and of those classes that it hands further keywords on to."""
    names, own = [], (one for one in cls.__mro__ if issubclass(one, Configured) and "__init__" in vars(one))
    for one in own:
        parameters = [*inspect.signature(one.__init__).parameters.values()][1:]
        names += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in names]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names
