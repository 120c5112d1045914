"""What the plug-in computes, in a process of its own.

TensorFlow crashes a process that draws by OpenGL where both bring LLVM, as Mesa's drivers do. And a viewer would stand
still while TensorFlow is loaded, and keep its memory.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Generator
from types import GeneratorType

from hetmorph.io import Image
from hetmorph.napari import work


def steps(
    moving: Image, fixed: Image, options: dict, uncertain: bool = False
) -> Generator[str, None, work.Found | work.Refusal]:
    """As `work.steps`; a process that ends without an answer is a refusal, too.

    Args:
        moving, fixed, options, uncertain: as of `work.steps`.
    """
    return (yield from _asked("steps", moving, fixed, options, uncertain))


def phantom() -> dict:
    """As `work.phantom`."""
    return work.last_of(_asked("phantom"))


def _asked(name: str, *arguments) -> Generator:
    """What a function of `work` yields and returns."""
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-m", "hetmorph.napari.process"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=paths)
    try:
        with child.stdin:
            pickle.dump((name, arguments), child.stdin)
        while True:
            kind, what = pickle.load(child.stdout)
            if kind == "returned":
                return what
            if kind == "failed":
                raise RuntimeError(what)
            yield what
    except (EOFError, BrokenPipeError):
        return work.Refusal(f"the process that registers ended with status {child.wait()}: is there memory enough?")
    finally:
        child.kill()  # who is not interested any more need not wait
        child.wait()
        child.stdout.close()


def _answer() -> None:
    """The other end of it: answers what stands on stdin. What else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)

        def tell(kind: str, what) -> None:
            pickle.dump((kind, what), answers)
            answers.flush()

        name, arguments = pickle.load(sys.stdin.buffer)
        try:
            found = getattr(work, name)(*arguments)
            if isinstance(found, GeneratorType):
                found = work.last_of(found, lambda text: tell("said", text))
            tell("returned", found)
        except Exception:
            tell("failed", traceback.format_exc())


if __name__ == "__main__":
    _answer()
