"""The side of a benchmark that runs in a contender's own environment. Standard library and numpy only.

The parent writes one message a line, a case to build or how often to run it, and reads one line of JSON back. So
contenders take turns, and stay in memory from case to case.
"""

import json
import os
import resource
import sys
import time


def serve(build) -> None:
    """Build and time what the parent asks for, until it ends.

    Args:
        build: function of the case's dictionary that returns a function to be timed, or None if the contender has no
            such thing.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    for line in sys.stdin:
        message = json.loads(line)
        if "case" in message:
            case = message["case"]
            run = build(case)
            if run is not None:
                run()
            answer = {"supported": run is not None}
        else:
            answer = {"seconds": [_timed(run) / case.get("updates", 1) for _ in range(message["repetitions"])]}
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps(answer), file=answers, flush=True)


def _timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
