"""Groups of documents: the unit of work that does not depend on how many work.

The text is cut into groups of documents by their size alone. The instances of group g
and duplicate d are drawn from the seed (seed, g, d), and the other document of a
random next segment is one of the same group. The records of a group, ten duplicates
together, are shuffled.
"""

import dataclasses
import functools
import random
from collections.abc import Iterable, Iterator

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.documents import Sentences, document_bytes
from bert_tf.data.instances import create_instances
from bert_tf.data.records import frame_record, serialize_instance
from bert_tf.data.tokenization import WordPieceTokenizer

# Large enough for varied random next segments, small enough to keep every core busy.
GROUP_BYTES = 1 << 20
_DUPLICATES_AT_ONCE = 10


@dataclasses.dataclass(frozen=True)
class Group:
    """Documents that are worked on together.

    Attributes:
      number: Place in the text, from 0.
      documents: At least two, where the text has two.
      num_bytes: Their size in google's format.
    """

    number: int
    documents: list[Sentences]
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class GroupRecords:
    """What a worker hands back.

    Attributes:
      frames: Records as the files hold them, shuffled.
      num_tokens: Tokens in them that are not padding.
      num_bytes: Size of the text behind them, once for each duplicate.
    """

    frames: list[bytes]
    num_tokens: int
    num_bytes: int


def cut_into_groups(documents: Iterable[Sentences]) -> Iterator[Group]:
    """Cuts a stream of documents into groups of about `GROUP_BYTES`.

    Args:
      documents: In order.

    Yields:
      Groups of at least two documents each, unless there is only one in all.
    """
    number, size = 0, 0
    current: list[Sentences] = []
    ready: Group | None = None
    for document in documents:
        current.append(document)
        size += document_bytes(document)
        if size >= GROUP_BYTES and len(current) >= 2:
            if ready:
                yield ready
            ready = Group(number, current, size)
            number, size, current = number + 1, 0, []
    if len(current) == 1 and ready:
        # One document alone has no partners: it joins the group before.
        ready = Group(ready.number, ready.documents + current, ready.num_bytes + size)
        current = []
    if ready:
        yield ready
    if current:
        yield Group(number, current, size)


@functools.lru_cache(maxsize=1)
def _tokenizer(vocab_file: str, vocab_sha256: str, lower: bool) -> WordPieceTokenizer:
    """The tokenizer of this process; the checksum tells one vocabulary from another."""
    return WordPieceTokenizer(vocab_file, lower)


def make_group_records(
    group: Group, duplicates: range, config: CreateDataConfig, vocab_sha256: str
) -> GroupRecords:
    """Makes the records of some duplicates of a group: one piece of a worker's work.

    Args:
      group: The text.
      duplicates: Their numbers, of `range(config.dupe_factor)`.
      config: All settings.
      vocab_sha256: Checksum of the vocabulary file.

    Returns:
      The framed records, which depend on text, numbers and settings only.

    Raises:
      ValueError: if fewer than two documents hold text.
    """
    tokenizer = _tokenizer(config.vocab_file, vocab_sha256, config.do_lower_case)
    documents = [tokenizer.encode(document) for document in group.documents]
    frames = []
    num_tokens = 0
    for duplicate in duplicates:
        for instance in create_instances(
            documents,
            config,
            tokenizer.special,
            len(tokenizer.inverse_vocab),
            _generator(config.seed, group.number, duplicate),
        ):
            num_tokens += len(instance.input_ids)
            example = serialize_instance(
                instance, config.max_seq_length, config.max_predictions_per_seq
            )
            frames.append(frame_record(example))
    _generator(config.seed, group.number, duplicates.start, "order").shuffle(frames)
    return GroupRecords(frames, num_tokens, group.num_bytes * len(duplicates))


def duplicate_blocks(dupe_factor: int) -> list[range]:
    """Cuts the duplicates into blocks that one worker holds in memory at once."""
    return [
        range(first, min(first + _DUPLICATES_AT_ONCE, dupe_factor))
        for first in range(0, dupe_factor, _DUPLICATES_AT_ONCE)
    ]


def _generator(*parts: object) -> random.Random:
    """A generator of its own for each tuple of parts."""
    return random.Random(repr(parts))
