"""The table of `make demo`."""

import collections
import math

import numpy as np
import pytest
from conftest import make_example, write_records

from tools import demo


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The test records of a demo, as dictionaries."""
    rng = np.random.default_rng(3)
    examples = [make_example(rng) for _ in range(50)]
    for example in examples[:10]:
        example["masked_lm_ids"] = [7] * 4
    write_records(tmp_path / "part-0.tfrecord", examples)
    monkeypatch.setattr(demo, "TEST", tmp_path)
    return examples


def constant_of(labels):
    """Loss and accuracy of the best constant guess: entropy and largest share."""
    counts = collections.Counter(labels).values()
    shares = [count / sum(counts) for count in counts]
    return math.fsum(-p * math.log(p) for p in shares), max(shares)


def expected(examples):
    tokens = [
        label
        for example in examples
        for label, weight in zip(
            example["masked_lm_ids"], example["masked_lm_weights"], strict=True
        )
        if weight
    ]
    pairs = [example["next_sentence_labels"][0] for example in examples]
    return [*constant_of(tokens), *constant_of(pairs)]


def test_the_best_constants_are_entropy_and_largest_share(examples):
    found = demo.best_constants()
    names = ["masked_lm_loss", "masked_lm_accuracy"]
    names += ["next_sentence_loss", "next_sentence_accuracy"]
    # The frequencies are float64; the sums differ in order.
    assert [found[name] for name in names] == pytest.approx(
        expected(examples), rel=1e-12
    )


def test_each_row_of_the_table_has_its_best_constant(examples, monkeypatch, capsys):
    numbers = dict.fromkeys(demo.best_constants(), 0.5) | {"masked_lm_count": 9.0}
    monkeypatch.setattr(demo, "read_results", lambda name: numbers)
    monkeypatch.setattr(demo, "packing", lambda: "")
    demo.print_table({}, 1.0)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    token_loss, token, pair_loss, pair = expected(examples)
    assert [row[-1] for row in rows] == [
        *(f"{token_loss:.3f}", f"{token:.2%}", f"{pair_loss:.3f}", f"{pair:.2%}")
    ]
    assert [len(row) for row in rows] == [5, 5, 5, 5]
