"""Sets of records with damage, and the same sets with weight 0 in its place."""

import numpy as np
from conftest import make_example, write_records

from bert_tf.data.records.tfrecord import scan_offsets

FILES = {"part-0.tfrecord": 60, "part-1.tfrecord": 50, "part-2.tfrecord": 40}
STARTS = dict(zip(FILES, (0, 60, 110), strict=True))


def write_set(folder, examples):
    """150 records in three files; returns the folder."""
    folder.mkdir(parents=True)
    for name, count in FILES.items():
        write_records(folder / name, examples[STARTS[name] :][:count])
    return folder


def examples(seed=7, **options):
    """The examples of a set."""
    rng = np.random.default_rng(seed)
    return [make_example(rng, **options) for _ in range(150)]


def write_packed_set(folder, examples, of_weight_0=()):
    """The same records as packed ones, of one sequence each; some have weight 0."""
    (folder.parent).mkdir(parents=True, exist_ok=True)
    metadata = folder.parent / f"{folder.name}_metadata.json"
    metadata.write_text('{"avg_seq_per_sample": 1.0}')
    packed = []
    for number, example in enumerate(examples):
        weight = float(number not in of_weight_0)
        packed.append(
            example
            | {
                "positions": list(range(len(example["input_ids"]))),
                "next_sentence_positions": [0],
                "next_sentence_weights": [weight],
                "masked_lm_weights": [
                    weight * value for value in example["masked_lm_weights"]
                ],
            }
        )
    return write_set(folder, packed)


def location(number):
    """File and number within it."""
    name = max((n for n in FILES if STARTS[n] <= number), key=STARTS.get)
    return name, number - STARTS[name]


def flip(folder, number, rng):
    """Flips a random bit in the data or the checksum of a record."""
    name, record = location(number)
    offsets = scan_offsets(str(folder / name))
    content = bytearray((folder / name).read_bytes())
    place = rng.integers(offsets[record] + 12, offsets[record + 1])
    content[place] ^= 1 << int(rng.integers(8))
    (folder / name).write_bytes(content)


def _set(name, value):
    def change(example, rng):
        values = list(example[name])
        values[int(rng.integers(len(values)))] = value
        return example | {name: values}

    return change


def _without(name):
    return lambda example, rng: {n: x for n, x in example.items() if n != name}


def _cut(name):
    return lambda example, rng: example | {name: example[name][:-1]}


# What is wrong in an example whose checksum is right.
WRONG = {
    "weight NaN": _set("masked_lm_weights", float("nan")),
    "weight -1": _set("masked_lm_weights", -1.0),
    "weight inf": _set("masked_lm_weights", float("inf")),
    "mask 2": _set("input_mask", 2),
    "mask -1": _set("input_mask", -1),
    "id of no word": _set("input_ids", 30),
    "negative id": _set("input_ids", -1),
    "masked id of no word": _set("masked_lm_ids", 2**40),
    "segment 2": _set("segment_ids", 2),
    "position 16": _set("masked_lm_positions", 16),
    "label 2": _set("next_sentence_labels", 2),
    "no labels": _without("next_sentence_labels"),
    "no ids": _without("input_ids"),
    "short ids": _cut("input_ids"),
    "short weights": _cut("masked_lm_weights"),
}
