"""`python training/evaluate.py`, the same as `hetmorph evaluate`: see hetmorph/cli/evaluate.py and --help."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from training import quiet  # noqa: E402, F401, I001

from hetmorph.cli.evaluate import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
