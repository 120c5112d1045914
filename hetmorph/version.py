"""The one place where the version is written; `setup.py` reads it without importing TensorFlow."""

__version__ = "0.1.0"
