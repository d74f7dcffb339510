"""What every system's process does: set up, then time steps when told to.

A worker is started with a workload as JSON. It prints `ready`, and then, for each line
that it reads, takes that many steps and prints JSON with their seconds and its peak
memory. Nothing here needs more than Python, since each system has its own environment.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Step = Callable[[], Any]
SHAPES = {  # Layers, width, heads, inner width.
    "tiny": (2, 128, 2, 512),
    "small": (4, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
}
VOCABULARY = 30522


def workload() -> dict[str, Any]:
    """The workload that this process was started with."""
    return json.loads(sys.argv[1])


def serve(step: Step) -> None:
    """Takes steps as the standard input says; the first two are not timed."""
    for _ in range(2):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        answer = {
            "seconds": time.perf_counter() - start,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(answer), flush=True)


def products_of(work: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """Matrix products forward of a step: rows, depth, width, and how often."""
    layers, width, _, inner = SHAPES[work["model"]]
    tokens = work["batch"] * work["length"]
    masked = work["batch"] * work["predictions"]
    return [
        (tokens, width, 3 * width, layers),
        (tokens, width, width, layers),
        (tokens, width, inner, layers),
        (tokens, inner, width, layers),
        (masked, width, VOCABULARY // 32 * 32, 1),
    ]


def lengths_of(work: dict[str, Any]) -> list[int]:
    """Lengths of the sequences of a batch: as given, or all full."""
    return work.get("lengths") or [work["length"]] * work["batch"]
