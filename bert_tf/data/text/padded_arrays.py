"""Texts in, the padded arrays of a model's inputs out: what a call of a tokenizer does.

The arguments are those of transformers' tokenizers.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from bert_tf.data.text.token_sequences import pair_sequence, truncated_lengths
from bert_tf.data.text.vocabulary import SpecialTokens

Text = str | tuple[str, str]
_PADDING = {True: "longest", False: "do_not_pad"}
_TRUNCATION = {True: "longest_first", False: "do_not_truncate"}
_WAYS_TO_PAD = ("longest", "max_length", "do_not_pad")
_WAYS_TO_CUT = ("longest_first", "only_first", "only_second", "do_not_truncate")


def text_list(texts: object) -> list[object]:
    """The inputs as a list: a single text is one of them, not its characters.

    Raises:
      ValueError: if they have no order, or are a table: its column names are no texts.
    """
    if isinstance(texts, str):
        return [texts]
    is_table = isinstance(texts, Mapping | Set) or hasattr(texts, "columns")
    if is_table or not isinstance(texts, Iterable):
        raise ValueError(
            "Texts must be a string, or a list of them. Received: a "
            f"{type(texts).__name__}. Pass a list, or one column of a table."
        )
    return list(texts)


def checked_pairs(
    text: Text | Sequence[Text], text_pair: str | Sequence[str] | None
) -> list[tuple[str, str | None]]:
    """A text, texts, or pairs of them, as a list of pairs.

    Args:
      text: A text, a list of them, or a list of pairs (tuples).
      text_pair: The second text of each; None if there is none.

    Raises:
      ValueError: if it is none of these, or there is nothing.
    """
    texts = text_list(text)
    if text_pair is not None:
        seconds = text_list(text_pair)
        if len(seconds) != len(texts):
            raise ValueError(
                "`text_pair` must have a text for each of `text`. Received: "
                f"{len(texts)} and {len(seconds)} texts."
            )
        texts = list(zip(texts, seconds, strict=True))
    pairs = [
        tuple(each) if isinstance(each, tuple | list) else (each, None)
        for each in texts
    ]
    for number, pair in enumerate(pairs):
        first_is_text = len(pair) == 2 and isinstance(pair[0], str)
        if not (first_is_text and isinstance(pair[1], str | None)):
            kinds = ", ".join(type(part).__name__ for part in pair)
            raise ValueError(
                "`text` must be a string, or a list of strings or of pairs of them. "
                f"Received: ({kinds}) at index {number}."
            )
    if not pairs:
        raise ValueError("`text` must have at least one text. Received: none.")
    return pairs


def padded_arrays(
    pairs: Sequence[tuple[list[int], list[int] | None]],
    special: SpecialTokens,
    *,
    padding: bool | str,
    truncation: bool | str,
    max_length: int | None,
) -> dict[str, np.ndarray]:
    """Encoded texts to `input_ids`, `input_mask` and `segment_ids`, [n, S] int32.

    Args:
      pairs: The tokens of each text, and of its second one or None.
      special: Ids of the special tokens.
      padding: See `WordPieceTokenizer.__call__`.
      truncation: The same.
      max_length: The same.

    Raises:
      ValueError: if an argument is unknown or missing, a text cannot be cut to
        `max_length`, or rows of unequal length are not padded.
    """
    padding, truncation = (
        _PADDING.get(padding, padding),
        _TRUNCATION.get(truncation, truncation),
    )
    _require("padding", padding, _WAYS_TO_PAD)
    _require("truncation", truncation, _WAYS_TO_CUT)
    cuts = truncation != "do_not_truncate"
    if max_length is None and (cuts or padding == "max_length"):
        raise ValueError(
            "`max_length` must be given to cut or to pad to it. Received: "
            f"padding={padding}, truncation={truncation}. Pass at most the model's "
            "max_position_embeddings."
        )
    sequences = []
    for first, second in pairs:
        if cuts:
            first, second = _cut(first, second, max_length, truncation)
        sequences.append(pair_sequence(first, second, special.cls, special.sep))
    lengths = [len(ids) for ids, _ in sequences]
    if padding == "do_not_pad" and min(lengths) < max(lengths):
        raise ValueError(
            "Rows of an array must be equally long. Received: from "
            f"{min(lengths)} to {max(lengths)} tokens. Pass padding=True."
        )
    width = max_length if padding == "max_length" else max(lengths)
    if max(lengths) > width:
        raise ValueError(
            f"Texts must have at most max_length={max_length} tokens. Received: "
            f"{max(lengths)} tokens. Pass truncation=True."
        )
    names = ("input_ids", "input_mask", "segment_ids")
    arrays = {name: np.zeros((len(sequences), width), np.int32) for name in names}
    arrays["input_ids"] += special.pad
    for row, (ids, segments) in enumerate(sequences):
        values = (ids, 1, segments)
        for name, value in zip(names, values, strict=True):
            arrays[name][row, : len(ids)] = value
    return arrays


def _require(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f"`{name}` must be true, false or one of {', '.join(choices)}. Received: "
            f"{name}={value!r}."
        )


def _cut(
    first: list[int], second: list[int] | None, max_length: int, way: str
) -> tuple[list[int], list[int] | None]:
    """The tokens that fit into `max_length` with [CLS] and [SEP]."""
    limit = max_length - (2 if second is None else 3)
    sizes = len(first), len(second or ())
    if sum(sizes) <= limit:
        return first, second
    if way == "longest_first":
        kept = truncated_lengths(*sizes, limit)
    elif way == "only_first":
        kept = limit - sizes[1], sizes[1]
    else:
        kept = sizes[0], limit - sizes[0]
    if limit < 0 or min(kept) < 0:
        raise ValueError(
            f"A text must fit into max_length={max_length} with {way} cut. Received: "
            f"{sizes[0]} and {sizes[1]} tokens. Pass a larger `max_length`, or another "
            "`truncation`."
        )
    return first[: kept[0]], None if second is None else second[: kept[1]]
