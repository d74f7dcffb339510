"""Speed and memory against other systems, on the same machine in the same minutes.

    make bench

Each comparison starts two processes (`benchmarks/peers`) that both stay loaded and take
turns: some steps of ours, as many of the other's. What counts is the median over the
rounds of the ratio of sequences/s. The others run in a separate environment, which
`make bench` builds. Tuned: with the C library told to keep freed memory, as vendors
advise for PyTorch.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_tf.launch import HUGE_PAGES

ROOT = pathlib.Path(__file__).parents[1]
PEERS = pathlib.Path(__file__).parent / "peers"
PYTHONS = {
    "ours": ROOT / ".venv/bin/python",
    "with_tf_models": ROOT / ".venv/bin/python",
    "with_transformers": ROOT / ".venv-bench/bin/python",
    "with_keras_hub": ROOT / ".venv-bench/bin/python",
}
TUNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


class Side(NamedTuple):
    """One of two systems, and what it does."""

    system: str
    work: dict[str, Any]
    environment: dict[str, str]


class Comparison(NamedTuple):
    """Two sides, and how much better ours should be."""

    name: str
    ours: Side
    other: Side
    target: float
    steps: int  # Of each side in each round.


def work(model: str = "base", kind: str = "train", **values: Any) -> dict[str, Any]:  # noqa: ANN401
    """A workload: see `peers/worker.py`."""
    defaults = {"batch": 32, "length": 128, "predictions": 20}
    return {"model": model, "kind": kind, "threads": len(os.sched_getaffinity(0))} | (
        defaults | values
    )


def ours(**values: Any) -> Side:  # noqa: ANN401
    """Our side, started as the scripts start themselves."""
    return Side("ours", work(**values), dict([HUGE_PAGES]))


def transformers(
    environment: dict[str, str] | None = None,
    **values: Any,  # noqa: ANN401
) -> Side:
    """PyTorch with transformers."""
    return Side("with_transformers", work(**values), environment or {})


def natural_lengths(count: int) -> list[int]:
    """Lengths up to 512 as those of Wikipedia's sequences are distributed."""
    from packing import wikipedia_shares

    shares = wikipedia_shares()
    return random.Random(1).choices(range(len(shares)), weights=list(shares), k=count)


def packed_rows(lengths: list[int], size: int) -> list[list[int]]:
    """Rows of at most `size` tokens, as `data pack` makes them."""
    import numpy as np

    from bert_tf.data.packing.planning import make_plan

    histogram = np.bincount(lengths, minlength=size + 1)
    plan = make_plan(histogram)
    return [list(s.lengths) for s in plan.strategies for _ in range(s.count)]


def comparisons() -> list[Comparison]:
    """All of them, the most telling first."""
    lengths = natural_lengths(1000)
    rows = packed_rows(lengths, 512)
    random.Random(2).shuffle(rows)
    long = {"length": 512, "predictions": 80, "model": "small"}
    squad = {"kind": "predict", "batch": 8, "length": 384}
    packed = ours(**long, rows=rows[:16])
    padded = transformers(**long, lengths=lengths[:16])
    return [
        Comparison("transformers, as it ships", ours(), transformers(), 2.3, 2),
        Comparison("transformers, tuned", ours(), transformers(TUNED), 1.6, 2),
        Comparison(
            "transformers, tuned, head on masked tokens",
            ours(),
            transformers(TUNED, masked_only=True),
            1.4,
            2,
        ),
        Comparison("tf-models", ours(), Side("with_tf_models", work(), {}), 2.0, 2),
        Comparison("keras-hub", ours(), Side("with_keras_hub", work(), {}), 2.0, 2),
        Comparison(
            "small: transformers",
            ours(model="small"),
            transformers(model="small"),
            2.5,
            8,
        ),
        Comparison(
            "tiny: transformers", ours(model="tiny"), transformers(model="tiny"), 6, 20
        ),
        Comparison("512 tokens, packed: transformers, padded", packed, padded, 3.5, 3),
        Comparison(
            "prediction, 8 x 384: transformers",
            ours(**squad),
            transformers(**squad),
            1.5,
            8,
        ),
        Comparison("dropout 0.1: dropout 0", ours(), ours(dropout=0.0), 0.95, 2),
        Comparison(
            "bf16: fp32",
            ours(model="small"),
            ours(model="small", precision="fp32"),
            1,
            5,
        ),
        Comparison(
            "step: its products alone, by PyTorch",
            ours(),
            transformers(kind="products"),
            0.6,
            2,
        ),
        Comparison(
            "step: its products alone, by us", ours(), ours(kind="products"), 0.6, 2
        ),
    ]


@contextlib.contextmanager
def started(side: Side) -> Iterator[subprocess.Popen]:
    """A worker that is ready."""
    process = subprocess.Popen(
        [PYTHONS[side.system], PEERS / f"{side.system}.py", json.dumps(side.work)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | side.environment,
    )
    try:
        while line := process.stdout.readline():
            if line.strip() == "ready":
                break
        else:
            raise RuntimeError(f"{side.system} ended before it was ready: {side.work}")
        yield process
    finally:
        process.kill()
        process.wait()


def take(process: subprocess.Popen, steps: int) -> dict[str, float]:
    """Lets a worker take steps."""
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def num_sequences(side: Side) -> int:
    """Sequences in a batch."""
    values = side.work
    if "rows" in values:
        return sum(map(len, values["rows"]))
    return len(values.get("lengths") or range(values["batch"]))


def compare(comparison: Comparison, rounds: int) -> dict[str, Any]:
    """Runs both sides in turn."""
    sides = (comparison.ours, comparison.other)
    rates: list[list[float]] = [[], []]
    memory = [0.0, 0.0]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(side)) for side in sides]
        for _ in range(rounds):
            for i, side in enumerate(sides):
                answer = take(processes[i], comparison.steps)
                total = num_sequences(side) * comparison.steps
                rates[i].append(total / answer["seconds"])
                memory[i] = max(memory[i], answer["peak_mb"])
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    return {
        "name": comparison.name,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "target": comparison.target,
        "ours_per_second": rates[0],
        "other_per_second": rates[1],
        "peak_mb": memory,
    }


def main() -> None:
    """Prints a table line by line, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="comparisons with this in their name"
    )
    parser.add_argument("--output", default="results/speed.json")
    arguments = parser.parse_args()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    print("| against | ours / s | other / s | ratio | target | peak MB |")
    print("| - | - | - | - | - | - |")
    results = []
    for comparison in comparisons():
        if arguments.only not in comparison.name:
            continue
        result = compare(comparison, arguments.rounds)
        results.append(result)
        mean = [
            statistics.median(result[f"{side}_per_second"])
            for side in ("ours", "other")
        ]
        peaks = " : ".join(f"{mb:,.0f}" for mb in result["peak_mb"])
        print(
            f"| {result['name']} | {mean[0]:.2f} | {mean[1]:.2f} | "
            f"{result['ratio']:.2f} | {result['target']} | {peaks} |",
            flush=True,
        )
        path = pathlib.Path(arguments.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
