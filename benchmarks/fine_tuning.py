"""Speed of fine-tuning: ours packed, ours unpacked, and transformers, in turn.

    python benchmarks/fine_tuning.py --output results/fine_tuning.json

Training and prediction of SQuAD's windows in rows of 384 tokens and of pairs like
MRPC's in rows of 128, bfloat16 on all sides. All three stay loaded and take turns with
as many examples as there are, since steps differ in tokens; what counts is the median
over the rounds of the ratio of examples/s. transformers pads to the full length, as its
examples do by default, with the C library told to keep freed memory. Its environment is
that of `make bench`.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import random
import statistics
from typing import Any, NamedTuple

from speed import PYTHONS, TUNED, Side, started, take

from bert_tf.launch import HUGE_PAGES

ROOT = pathlib.Path(__file__).parents[1]
SHORTEST = 24  # Tokens of the shortest example.
SYSTEMS = {"ours": "ours_fine_tuning", "transformers": "with_transformers_fine_tuning"}


class Task(NamedTuple):
    """Examples to be learned or predicted."""

    name: str
    length: int  # Of a row.
    lengths: list[int]  # Of the examples, in tokens.
    batch: int  # Examples of an optimizer step.
    micro_batch: int  # Without packing.
    prediction_batch: int  # Rows.


def natural_lengths(count: int, mean: float, spread: float, most: int) -> list[int]:
    """Lengths as those of texts are spread: log-normal, cut off at both ends."""
    variance = math.log(1.0 + (spread / mean) ** 2)
    rng, middle = random.Random(1), math.log(mean) - variance / 2.0
    drawn = (rng.lognormvariate(middle, math.sqrt(variance)) for _ in range(count))
    return [min(most, max(SHORTEST, round(length))) for length in drawn]


def squad_lengths(path: str, count: int) -> list[int]:
    """Lengths of windows of a SQuAD file, `count` of them by chance."""
    from bert_tf.data.tasks.squad_files import read_squad
    from bert_tf.data.tasks.squad_windows import WindowSettings, build_windows
    from bert_tf.data.text.tokenization import WordPieceTokenizer

    examples = read_squad(path, version_2_with_negative=True, needs_answers=False)
    tokenizer = WordPieceTokenizer(str(ROOT / ".data/vocab.txt"))
    windows = build_windows(examples, tokenizer, WindowSettings())
    return random.Random(1).choices(windows.sequences.lengths.tolist(), k=count)


def tasks(squad_file: str) -> list[Task]:
    """Both tasks."""
    windows = (
        squad_lengths(squad_file, 128)
        if squad_file
        else natural_lengths(128, 174.0, 75.0, 384)
    )
    pairs = natural_lengths(256, 53.5, 18.0, 128)
    return [
        Task("squad", 384, windows, 32, 8, 8),
        Task("pairs", 128, pairs, 64, 64, 64),
    ]


def sides(task: Task, kind: str, model: str) -> dict[str, Side]:
    """What takes turns."""
    work: dict[str, Any] = {
        "task": task.name,
        "kind": kind,
        "model": model,
        "threads": len(os.sched_getaffinity(0)),
        "length": task.length,
        "lengths": task.lengths,
        "batch": task.batch if kind == "train" else task.prediction_batch,
        "micro_batch": task.micro_batch,
    }
    huge_pages = dict([HUGE_PAGES])
    # Twice the examples have fewer than twice the rows, but need about the memory.
    packed = {"packed": True, "micro_batch": min(task.batch, 2 * task.micro_batch)}
    return {
        "packed": Side(SYSTEMS["ours"], work | packed, huge_pages),
        "unpacked": Side(SYSTEMS["ours"], work | {"packed": False}, huge_pages),
        "transformers": Side(SYSTEMS["transformers"], work, TUNED),
    }


def compare(task: Task, kind: str, model: str, rounds: int) -> dict[str, Any]:
    """Lets all three take turns with as many examples as there are."""
    systems = sides(task, kind, model)
    rates: dict[str, list[float]] = {name: [] for name in systems}
    peaks: dict[str, float] = {}
    examples, steps = len(task.lengths), 1
    if kind == "train":
        steps = examples // task.batch
        examples = steps * task.batch
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(started(side)) for name, side in systems.items()
        }
        for _ in range(rounds):
            for name, process in processes.items():
                answer = take(process, steps)
                rates[name].append(examples / answer["seconds"])
                peaks[name] = answer["peak_mb"]
    ratios = {
        name: [a / b for a, b in zip(rates["packed"], rates[name], strict=True)]
        for name in ("unpacked", "transformers")
    }
    return {
        "task": task.name,
        "kind": kind,
        "model": model,
        "mean_length": statistics.mean(task.lengths),
        "examples_per_second": rates,
        "packed_to": {name: statistics.median(r) for name, r in ratios.items()},
        "ratios": ratios,
        "peak_mb": peaks,
    }


def main() -> None:
    """Prints a table line by line, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="base", choices=("tiny", "small", "base"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--squad_file", default="", help="take its windows' lengths")
    parser.add_argument("--only", default="", help="such as 'squad, train'")
    parser.add_argument("--output", default="results/fine_tuning.json")
    arguments = parser.parse_args()
    PYTHONS.update({SYSTEMS["ours"]: PYTHONS["ours"]})
    PYTHONS.update({SYSTEMS["transformers"]: PYTHONS["with_transformers"]})
    print("| task | packed / s | unpacked / s | transformers / s | ratios |")
    print("| - | - | - | - | - |")
    results = []
    for task in tasks(arguments.squad_file):
        for kind in ("train", "predict"):
            if arguments.only not in f"{task.name}, {kind}":
                continue
            result = compare(task, kind, arguments.model, arguments.rounds)
            results.append(result)
            rates = result["examples_per_second"]
            middle = [f"{statistics.median(values):.1f}" for values in rates.values()]
            ratios = ", ".join(f"{r:.2f}" for r in result["packed_to"].values())
            line = " | ".join([f"{task.name}, {kind}", *middle, ratios])
            print(f"| {line} |", flush=True)
            path = pathlib.Path(arguments.output)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
