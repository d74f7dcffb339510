"""Records as text that a person can read."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from bert_tf.config.data import ShowDataConfig
from bert_tf.data.record_index import RecordIndex, record_files
from bert_tf.data.tokenization import load_vocabulary
from bert_tf.errors import CorruptRecordError


def describe_records(config: ShowDataConfig) -> Iterator[str]:
    """Describes the first records of a set.

    Args:
      config: Which, and how many.

    Yields:
      Some lines for each record: its text with [MASK] and what it hides.

    Raises:
      FileNotFoundError: if there are no records, or no vocabulary.
      CorruptRecordError: if a record cannot be read.
      ValueError: if the vocabulary cannot be used, or is too short for the records.
    """
    vocabulary = load_vocabulary(config.vocab_file)
    index = RecordIndex(record_files(config.input_dir))
    for number in range(min(config.num_records, len(index))):
        [data] = index.read(np.asarray([number]))
        place = index.place(number)
        try:
            feature = tf.train.Example.FromString(data).features.feature
        except Exception as error:
            raise CorruptRecordError(f"{place}: not a tf.train.Example.") from error
        values = {
            name: list(entry.int64_list.value or entry.float_list.value)
            for name, entry in feature.items()
        }
        yield f"{place}\n{_describe(values, vocabulary)}"
    index.close()


def _describe(features: dict[str, list], vocabulary: Sequence[str]) -> str:
    """The lines of one record.

    Args:
      features: Name -> values.
      vocabulary: Tokens by id.
    """
    try:
        length = sum(1 for mask in features["input_mask"] if mask)
        weights = features["masked_lm_weights"]
        hidden = [
            f"{position}: {_token(vocabulary, token)}"
            for position, token, weight in zip(
                features["masked_lm_positions"],
                features["masked_lm_ids"],
                weights,
                strict=True,
            )
            if weight
        ]
        ids = features["input_ids"][:length]
        segment_ids = features["segment_ids"][:length]
        label = features["next_sentence_labels"]
    except KeyError as error:
        raise ValueError(
            f"A record must hold the features of BERT pre-training, but {error} is "
            "missing."
        ) from None
    lines = [f"  next_sentence_labels: {label} (0: b follows a, 1: random)"]
    for name, segment in (("a", 0), ("b", 1)):
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
            f"`vocab_file` must be the one that the records were made with: it has "
            f"{len(vocabulary)} tokens, and a record holds the id {token}."
        )
    return vocabulary[token]
