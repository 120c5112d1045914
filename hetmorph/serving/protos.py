"""Packages that only serving needs, imported when they are first used."""

import importlib

import tensorflow as tf

# Of the same minor version, since both hold code made for one version of protobuf.
PROTOS = f'pip install --no-deps "tensorflow-serving-api=={tf.__version__.rpartition(".")[0]}.*"'
EXTRA = 'pip install ".[serving]"'
ONNX = 'pip install ".[onnx]"'


def tensorflow_serving(*names: str) -> list:
    """Modules of `tensorflow_serving.apis`.

    Raises:
        ImportError: the package is missing; the message says how to install it.
    """
    return [_module(f"tensorflow_serving.apis.{name}", "tensorflow-serving-api", PROTOS) for name in names]


def grpc():
    """The module `grpc`; ImportError says how to install it."""
    return _module("grpc", "grpcio", EXTRA)


def requests():
    """The module `requests`; ImportError says how to install it."""
    return _module("requests", "requests", EXTRA)


def tf2onnx():
    """The module `tf2onnx`; ImportError says how to install it."""
    return _module("tf2onnx", "tf2onnx", ONNX)


def _module(name: str, package: str, command: str):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(f"this needs {package}: {command} ({error})") from error
