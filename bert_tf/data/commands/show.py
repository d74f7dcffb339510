"""Prints records as readable text."""

from collections.abc import Iterator, Sequence

import numpy as np

from bert_tf.config.data import ShowDataConfig
from bert_tf.data.output_files import describe_file
from bert_tf.data.records.checking import check_content
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import open_input
from bert_tf.data.text.vocabulary import load_vocabulary


def describe_records(config: ShowDataConfig) -> Iterator[str]:
    """Describes the first records of a set.

    Args:
      config: The records, and how many of them.

    Yields:
      Some lines for each record: its text with [MASK], and the masked tokens.

    Raises:
      FileNotFoundError: if there are no records, or no vocabulary.
      CorruptRecordError: if a record cannot be read.
      ValueError: if the vocabulary cannot be used, or is too short for the records.
    """
    vocabulary = load_vocabulary(config.vocab_file)
    files = record_files(config.input_dir)
    parser = open_input(files)
    index = parser.index
    count = min(config.num_records, len(index))
    # The content of these files alone: reading all of a large set would take long.
    shown = files[: np.searchsorted(index.starts, count)]
    check_content(parser, {path: describe_file(path) for path in shown})
    for number in range(count):
        features = parser(np.asarray([number]))
        values = {name: array[0].tolist() for name, array in features.items()}
        yield f"{index.location(number)}\n{_describe(values, vocabulary)}"
    index.close()


def _describe(features: dict[str, list], vocabulary: Sequence[str]) -> str:
    """The lines of one record."""
    length = sum(1 for mask in features["input_mask"] if mask)
    hidden = [
        f"{position}: {_token(vocabulary, token)}"
        for position, token, weight in zip(
            features["masked_lm_positions"],
            features["masked_lm_ids"],
            features["masked_lm_weights"],
            strict=True,
        )
        if weight
    ]
    ids = features["input_ids"][:length]
    segment_ids = features["segment_ids"][:length]
    label = features["next_sentence_labels"]
    lines, segments = [], [("a", 0)]
    if 1 in segment_ids:  # Not a record without next-sentence prediction.
        lines = [f"  next_sentence_labels: {label} (0: b follows a, 1: random)"]
        segments.append(("b", 1))
    for name, segment in segments:
        tokens = [
            _token(vocabulary, token)
            for token, of in zip(ids, segment_ids, strict=True)
            if of == segment
        ]
        lines.append(f"  {name}: {' '.join(tokens)}")
    lines.append(f"  masked (position: token): {', '.join(hidden)}")
    lines.append(f"  {length} tokens, {len(features['input_ids']) - length} padding")
    return "\n".join(lines)


def _token(vocabulary: Sequence[str], token: int) -> str:
    if not 0 <= token < len(vocabulary):
        raise ValueError(
            f"`vocab_file` must be the vocabulary that the records were made with. "
            f"Received: one of {len(vocabulary)} tokens, but a record has the id "
            f"{token}."
        )
    return vocabulary[token]
