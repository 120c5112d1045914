"""Refuses a Keras that hetmorph cannot run on, when it is imported, and says what to do."""

import keras

_VERSION = str(keras.__version__)
if int(_VERSION.split(".")[0]) < 3:
    raise ImportError(f'hetmorph needs Keras 3, but found {_VERSION}. Install it with: pip install "keras>=3"')
if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"hetmorph runs Keras on TensorFlow, but the backend is {keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=tensorflow before Python starts."
    )
