"""The side of a benchmark that runs in a contender's own environment. Standard library and numpy only.

The parent writes a number of repetitions per line and reads one line of JSON back, so that contenders take turns.
"""

import json
import os
import resource
import sys
import time


def serve(build) -> None:
    """Build the case named on the command line, then time it as often as the parent asks.

    Args:
        build: function of the case's dictionary that returns a function to be timed, or None if the contender has no
            such thing.
    """
    case = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    run = build(case)
    if run is None:
        print(json.dumps({"supported": False}), file=answers, flush=True)
        return
    run()
    print(json.dumps({"supported": True}), file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            seconds.append((time.perf_counter() - start) / case.get("updates", 1))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"seconds": seconds, "peak_mib": peak}), file=answers, flush=True)
