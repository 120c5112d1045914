"""Code in a fresh process, which knows Keras and TensorFlow but has imported nothing of hetmorph.

Processes are forked from one that has imported TensorFlow already, which takes seconds each time otherwise.
"""

import contextlib
import io
import multiprocessing
import sys
import traceback

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["keras", "tensorflow"])


def output_of(code: str, *arguments) -> str:
    """What `python -c code arguments…` prints; AssertionError with its traceback where it fails."""
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_run, args=(code, [str(a) for a in arguments], sender))
    process.start()
    sender.close()  # so that a process that dies is the end of the pipe
    try:
        printed, error = receiver.recv()
    except EOFError:
        printed, error = "", "the process died"
    finally:
        receiver.close()
        process.join()
    assert not error, error
    return printed


def _run(code, arguments, sender):
    before = sorted(name for name in sys.modules if name.split(".")[0] == "hetmorph")
    assert not before, f"the process is not fresh: it has {before}"
    sys.argv[:] = ["-c", *arguments]
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
    except BaseException:
        error = traceback.format_exc()
    sender.send((printed.getvalue(), error))
    sender.close()
