"""`python training/train.py`, the same as `hetmorph train`: see hetmorph/cli/train.py and --help."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: hide its notes
if importlib.util.find_spec("hetmorph") is None:  # run from a clone without `pip install -e .`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hetmorph.cli.train import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
