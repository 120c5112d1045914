"""Imported first by every script: TensorFlow, without the notes on processor and drivers that its libraries write.

They write them straight to the file behind stderr, before their log level counts. `hetmorph.cli.quiet` does the same
for the command; to import it from here would import TensorFlow first.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_kept, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
try:
    os.dup2(_nowhere, 2)
    import tensorflow  # noqa: F401
finally:
    os.dup2(_kept, 2)
    os.close(_kept)
    os.close(_nowhere)
