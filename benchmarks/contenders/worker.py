"""The side of a benchmark that runs in a contender's own environment. Standard library and numpy only.

The parent writes one message a line, a case to build or how often to run it, and reads one line of JSON back. So
contenders take turns, and stay in memory from case to case.
"""

import json
import os
import resource
import sys
import time

import hardware


def serve(build, framework: str | None = None) -> None:
    """Build and time what the parent asks for, until it ends.

    Args:
        build: function of the case's dictionary that returns a function to be timed, or None if the contender has no
            such thing.
        framework: "tensorflow" or "torch" if the contender can use a GPU by it.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    for line in sys.stdin:
        message = json.loads(line)
        if "case" in message:
            case = message["case"]
            try:
                device = hardware.of(case.get("device", "cpu"), framework)
                run = build(case)
            except hardware.Missing as error:
                answer = {"missing": str(error)}
            else:
                if run is not None:
                    run()
                    device.wait()
                answer = {"supported": run is not None, "first": time.time() - message["since"]}
        else:
            seconds = _turn(run, message["repetitions"], device)
            answer = {"seconds": [one / case.get("updates", 1) for one in seconds], "device_mib": device.peak_mib()}
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps(answer), file=answers, flush=True)


def _turn(run, repetitions: int, device) -> list[float]:
    """Seconds of every repetition; of a device that works on its own, the mean of the turn, at whose end it is met."""
    if not device.waits:
        return [_timed(run) for _ in range(repetitions)]

    def turn():
        for _ in range(repetitions):
            run()
        device.wait()

    return [_timed(turn) / repetitions]


def _timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
