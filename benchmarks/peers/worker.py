"""What every system's process does: set up, then time steps when told to.

A worker is started with a workload as JSON. It prints `ready`, and then, for each line
that it reads, takes that many steps and prints JSON with their seconds, its peak memory
and the loss of its very first step. Nothing here needs more than Python and NumPy,
since each system has its own environment.

All make the same batch: the sequences of `rows`, each with its own tokens and masked
tokens. A system that packs computes the rows, the others pad each sequence.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Step = Callable[[], float | None]
SHAPES = {  # Layers, width, heads, inner width.
    "tiny": (2, 128, 2, 512),
    "small": (4, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
}
VOCABULARY = 30522


class Sequence(NamedTuple):
    """A sequence of the batch.

    Attributes:
      ids: Its tokens, where the masked ones are replaced: [n].
      positions: Positions of the masked tokens, ascending: [p].
      labels: The masked tokens: [p].
      follows: The next-sentence label.
    """

    ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    follows: int


def workload() -> dict[str, Any]:
    """The workload that this process was started with."""
    return json.loads(sys.argv[1])


def architecture(work: dict[str, Any]) -> dict[str, int]:
    """The sizes, as arguments of `BertConfig`: ours or that of transformers."""
    layers, width, heads, inner = SHAPES[work["model"]]
    return {
        "vocab_size": VOCABULARY,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }


def peak_mb() -> float:
    """Most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(
    step: Step, note: str = "", peak_memory: Callable[[], float] = peak_mb
) -> None:
    """Takes steps as the standard input says; the first two are not timed.

    Args:
      step: Takes one.
      note: What the table has to say about this system.
      peak_memory: Most memory so far, in MB: of the process, or of its GPU.
    """
    first_loss = step()
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        answer = {
            "seconds": time.perf_counter() - start,
            "peak_mb": peak_memory(),
            "first_loss": first_loss,
            "note": note,
        }
        print(json.dumps(answer), flush=True)


def scoring(
    work: dict[str, Any], score: Callable[[list[list[str]]], list[list[float]]]
) -> Step:
    """Steps that score one part of the pairs after the other, and write the scores."""
    with open(work["parts"]) as file:
        parts = iter(json.load(file))

    def step() -> None:
        with open(work["output"], "a") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in score(next(parts)))

    return step


def rows_of(work: dict[str, Any]) -> list[list[int]]:
    """Lengths of the sequences of each row: as given, or one full sequence in each."""
    return work.get("rows") or [[work["length"]]] * work["batch"]


def sequences_of(work: dict[str, Any]) -> list[Sequence]:
    """The sequences of all rows; a full one has `predictions` masked tokens."""
    rng = np.random.default_rng(0)
    result = []
    for n in (n for row in rows_of(work) for n in row):
        count = max(1, round(work["predictions"] * n / work["length"]))
        ids = rng.integers(1000, 30000, n)
        positions = np.sort(rng.choice(n, count, replace=False))
        labels = ids[positions]
        ids[positions] = 103
        result.append(Sequence(ids, positions, labels, int(rng.integers(2))))
    return result


def parts_of(work: dict[str, Any]) -> list[list[Sequence]]:
    """The sequences in batches of `at_once`, which is all of them if not given."""
    sequences = sequences_of(work)
    size = work.get("at_once") or len(sequences)
    return [sequences[i : i + size] for i in range(0, len(sequences), size)]


def padded(sequences: list[Sequence]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask, as long as the longest: two of [B, S], int64."""
    length = max(len(s.ids) for s in sequences)
    ids = np.zeros((len(sequences), length), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = sequence.ids
        mask[row, : len(sequence.ids)] = 1
    return ids, mask


def padded_inputs(work: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """`input_ids` and `attention_mask` of each of `parts_of`."""
    names = ("input_ids", "attention_mask")
    return [dict(zip(names, padded(part), strict=True)) for part in parts_of(work)]


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
