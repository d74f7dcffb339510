"""Repeated documents that --dedup finds, beside a plain loop of datasketch.

    pip install 'bert_tf[dedup]' datasketch
    python benchmarks/duplicates.py

Takes first paragraphs of Wikipedia (`make data`), and plants a copy of each in which a
share of the words is replaced. Prints how many copies and how many originals are taken
for repeated, and MB/s of processor time.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from bert_tf.data.text.duplicates import make_finder

ROOT = pathlib.Path(__file__).parents[1]
TEXT = ROOT / ".data/text/wikipedia/summaries_en-us.json"
SHARES = (0.0, 0.01, 0.05, 0.1)


def with_words_replaced(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with a share of its words replaced by new ones."""
    words = text.split()
    for place in rng.choice(len(words), round(share * len(words)), replace=False):
        words[place] += "x"
    return " ".join(words)


def by_datasketch(texts: list[str]) -> list[bool]:
    """As its documentation does: MinHash of pairs of words, LSH at one half."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=0.5, num_perm=128)
    found = []
    for number, text in enumerate(texts):
        words = text.lower().split()
        pairs = zip(words, words[1:], strict=False)
        minhash = MinHash(num_perm=128)
        minhash.update_batch([" ".join(pair).encode() for pair in pairs])
        found.append(bool(index.query(minhash)))
        if not found[-1]:
            index.insert(str(number), minhash)
    return found


def main() -> None:
    """Prints a line for each way and share."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = json.loads(TEXT.read_text())
    rows = rows.values() if isinstance(rows, dict) else rows
    originals = list(dict.fromkeys(row["extract"] for row in rows))
    originals = [text for text in originals if len(text.split()) >= 20]
    ways: dict[str, Callable[[list[str]], list[bool]]] = {
        "--dedup=exact": lambda texts: make_finder("exact")(texts),
        "--dedup=near": lambda texts: make_finder("near")(texts),
        "datasketch": by_datasketch,
    }
    for share in SHARES:
        rng = np.random.default_rng(0)
        copies = [with_words_replaced(text, share, rng) for text in originals]
        if not share:
            copies = originals
        texts = [*originals, *copies]
        size = sum(len(text.encode()) for text in texts) / 1e6
        for name, find in ways.items():
            start = time.process_time()
            found = find(texts)
            seconds = time.process_time() - start
            wrong, right = np.split(np.array(found), 2)
            print(
                f"{share:.0%} of the words replaced, {name}: {size:.1f} MB, "
                f"{right.mean():.1%} of {len(copies)} copies found, "
                f"{wrong.mean():.1%} of the originals; {size / seconds:.1f} MB/s"
            )


if __name__ == "__main__":
    main()
