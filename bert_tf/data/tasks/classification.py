"""Turns texts and pairs of texts into token sequences for a classifier."""

from collections.abc import Iterable

from bert_tf.data.tasks.text_examples import TextExample
from bert_tf.data.text.token_sequences import TokenSequences, pair_sequence
from bert_tf.data.text.tokenization import WordPieceTokenizer

# [CLS] and two [SEP]; a shorter sequence cannot hold a pair.
_MIN_SEQ_LENGTH = 3


def encode_examples(
    examples: Iterable[TextExample], tokenizer: WordPieceTokenizer, max_seq_length: int
) -> TokenSequences:
    """Encodes texts as [CLS] a [SEP], pairs as [CLS] a [SEP] b [SEP], truncated.

    Args:
      examples: n texts or pairs.
      tokenizer: The model's tokenizer.
      max_seq_length: Maximum number of tokens of a sequence, at least 3. Tokens are
        dropped at the end of the longer text of a pair, one by one, as in
        google-research/bert; as there, a second text without tokens is ignored.

    Returns:
      n sequences, without padding.

    Raises:
      ValueError: if `max_seq_length` is too small.
    """
    if max_seq_length < _MIN_SEQ_LENGTH:
        raise ValueError(
            f"`max_seq_length` must be at least {_MIN_SEQ_LENGTH}. Received: "
            f"max_seq_length={max_seq_length}."
        )
    _, _, cls_id, sep_id, _ = tokenizer.special

    def sequence(example: TextExample) -> tuple[list[int], list[int]]:
        first, second = tokenizer.encode([example.text_a, example.text_b or ""])
        if not second:
            return pair_sequence(first[: max_seq_length - 2], None, cls_id, sep_id)
        sizes = truncated_lengths(len(first), len(second), max_seq_length - 3)
        # A second text without tokens has no [SEP] either.
        rest = second[: sizes[1]] or None
        return pair_sequence(first[: sizes[0]], rest, cls_id, sep_id)

    return TokenSequences.join(map(sequence, examples))


def truncated_lengths(first: int, second: int, limit: int) -> tuple[int, int]:
    """Lengths of a pair after tokens are dropped from the longer one until it fits.

    Args:
      first: Number of tokens of the first text.
      second: Number of tokens of the second, which loses one if both are equally long.
      limit: Maximum number of tokens of both together.

    Source: google-research/bert, `run_classifier.py` (`_truncate_seq_pair`), whose
    loop ends at these lengths.
    """
    if first + second <= limit:
        return first, second
    kept = min(first, max(limit - second, (limit + 1) // 2))
    return kept, limit - kept
