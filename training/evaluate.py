"""`python training/evaluate.py`, the same as `hetmorph evaluate`: see hetmorph/cli/evaluate.py and --help."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone without `pip install -e .`

from hetmorph.cli.parsers import run  # noqa: E402

if __name__ == "__main__":
    sys.exit(run("evaluate", sys.argv[1:], "evaluate.py"))
