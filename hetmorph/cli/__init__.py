"""The `hetmorph` command: a file for each verb. TensorFlow is imported by the verbs that need it, once they run."""

from hetmorph.cli.main import cli

__all__ = ["cli"]
