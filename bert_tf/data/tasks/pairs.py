"""Pairs of texts that belong together, from tables of two or three columns."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_tf.data.tasks.classification import TextExample, encode_examples, text_of
from bert_tf.data.tasks.custom_task import find_text_columns
from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.data.tasks.row_labels import ColumnNames
from bert_tf.data.tasks.table_columns import check_columns
from bert_tf.data.tasks.tables import column_names, read_rows
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.tokenization import WordPieceTokenizer

_USUAL = ColumnNames("anchor", "positive")
_NEGATIVE = "negative"


class PairColumns(NamedTuple):
    """The columns of a table of pairs; without names, common ones are tried.

    Attributes:
      anchor: The text by which others are searched.
      positive: The text that belongs to it.
      negative: A text that does not; empty: none, or the column `negative`.
    """

    anchor: str = ""
    positive: str = ""
    negative: str = ""


def find_columns(path: str, given: PairColumns) -> list[str]:
    """The two or three columns of a table of pairs.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a column is missing or there is no common name, or two are one.
    """
    present = column_names(path)
    location = f"{path}, line 1"
    texts = (given.anchor, given.positive)
    if not given.anchor:
        texts = find_text_columns(present, [_USUAL])
    if texts is None or not texts[1]:
        raise ValueError(
            f"{location}: there must be columns anchor and positive, and perhaps "
            f"negative. Received: {quoted_list(present)}. Name the columns in the "
            "first line, or pass --anchor_column and --positive_column."
        )
    names = {name.lower(): name for name in present}
    negative = given.negative or names.get(_NEGATIVE, "")
    columns = [name for name in (*texts, negative) if name]
    check_columns(columns, present, location)
    if len({*columns}) < len(columns):
        raise ValueError(
            f"{location}: anchors, positives and negatives must be different columns. "
            f"Received: {quoted_list(columns)}. Name others."
        )
    return columns


def read_pairs(path: str, columns: Sequence[str]) -> list[list[str]]:
    """Reads the texts of each row, in the order of the columns.

    Raises:
      ValueError: if there are no rows, or a text is empty or no string; the message
        names file and line.
    """
    pairs = []
    for row in read_rows(path, columns):
        texts = [text_of(row, column) for column in columns]
        for column, text in zip(columns, texts, strict=True):
            if not text.strip():
                raise ValueError(
                    f"{row.location}: {column!r} must be text. Received: {text!r}, "
                    "which is empty. Remove the row, or correct it."
                )
        pairs.append(texts)
    if not pairs:
        raise ValueError(f"{path}: there are no pairs. Use a file with pairs.")
    return pairs


def encode_pairs(
    pairs: Sequence[Sequence[str]], tokenizer: WordPieceTokenizer, max_seq_length: int
) -> tuple[TokenSequences, list[str]]:
    """Encodes each text as [CLS] a [SEP], row after row.

    Returns:
      n * columns sequences, and lines about texts that may have been cut.
    """
    examples = (TextExample(t, None, None, "") for texts in pairs for t in texts)
    sequences = encode_examples(examples, tokenizer, max_seq_length)
    full = int(np.count_nonzero(sequences.lengths == max_seq_length))
    notes = [
        f"{full} of {len(sequences)} texts have max_seq_length={max_seq_length} tokens "
        "or more: what follows is cut off."
    ]
    return sequences, notes if full else []
