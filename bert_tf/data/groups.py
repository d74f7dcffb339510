"""Groups of documents: the unit of work that does not depend on how many work.

The text is cut into groups of documents by its size alone. The instances of group g
and duplicate d are drawn from the seed (seed, g, d), and the other document of a
random next segment is one of the same group. The records of a group, ten duplicates
together, are shuffled.
"""

import dataclasses
import functools
import os
import random
from collections.abc import Iterator, Sequence

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.documents import (
    Stretch,
    count_documents,
    cut_into_stretches,
    read_stretch,
)
from bert_tf.data.instances import TrainingInstance, create_instances
from bert_tf.data.text_counts import TextCounts, count_text
from bert_tf.data.tokenization import (
    UNCASED,
    TokenizerSettings,
    WordPieceTokenizer,
    WordSplitter,
)

# Large enough for varied random next segments, small enough to keep every core busy.
GROUP_BYTES = 1 << 20
_SMALL_GROUP_BYTES = 256 << 10
_GROUPS_PER_SHARD = 4
_DUPLICATES_AT_ONCE = 10


@dataclasses.dataclass(frozen=True)
class Group:
    """Documents that are worked on together.

    Attributes:
      number: Place in the text, from 0.
      stretches: Where they are: at least two documents, where the text has two.
    """

    number: int
    stretches: tuple[Stretch, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the text."""
        return sum(stretch.num_bytes for stretch in self.stretches)


def cut_into_groups(
    paths: Sequence[str],
    input_format: str,
    num_shards: int = 1,
    settings: TokenizerSettings = UNCASED,
) -> Iterator[Group]:
    """Cuts text into groups of about `GROUP_BYTES`.

    Args:
      paths: Text files.
      input_format: google or text, see `cut_into_stretches`.
      num_shards: Of little text the groups are smaller, several for each shard, so that
        the shards become about as large as each other.
      settings: Of the tokenizer: a document counts if it has a token.

    Yields:
      Groups of at least two documents each, unless there is only one in all.
    """
    splitter = WordSplitter(settings)
    share = sum(map(os.path.getsize, paths)) // (_GROUPS_PER_SHARD * num_shards)
    target = min(GROUP_BYTES, max(share, _SMALL_GROUP_BYTES))
    number = size = documents = 0
    current: list[Stretch] = []
    ready: Group | None = None
    for stretch in cut_into_stretches(paths, input_format, target):
        current.append(stretch)
        size += stretch.num_bytes
        if documents < 2:
            documents += count_documents(stretch, input_format, splitter)
        if size >= target and documents >= 2:
            if ready:
                yield ready
            ready = Group(number, tuple(current))
            number, size, documents, current = number + 1, 0, 0, []
    if ready and documents < 2:
        # One document alone has no partners: it joins the group before.
        ready = Group(ready.number, (*ready.stretches, *current))
        documents = 0
    if ready:
        yield ready
    if documents:
        yield Group(number, tuple(current))


def tokenizer_settings(config: CreateDataConfig) -> TokenizerSettings:
    """What is done to text first, of a config with all of it filled in."""
    return TokenizerSettings(
        config.do_lower_case, config.strip_accents, config.tokenize_chinese_chars
    )


@functools.lru_cache(maxsize=1)
def _tokenizer(
    vocab_file: str, vocab_sha256: str, settings: TokenizerSettings
) -> WordPieceTokenizer:
    """The tokenizer of this process; the checksum tells one vocabulary from another."""
    return WordPieceTokenizer(vocab_file, settings)


def make_instances(
    group: Group, duplicates: range, config: CreateDataConfig, vocab_sha256: str
) -> tuple[list[TrainingInstance], TextCounts]:
    """Makes the instances of some duplicates of a group, in a random order.

    Args:
      group: The text.
      duplicates: Their numbers, of `range(config.dupe_factor)`.
      config: All settings, those of the tokenizer filled in.
      vocab_sha256: Checksum of the vocabulary file.

    Returns:
      Instances that depend on text, numbers and settings only, and the counts of the
      text, with the first duplicates of each group.

    Raises:
      ValueError: if fewer than two documents hold text.
    """
    settings = tokenizer_settings(config)
    tokenizer = _tokenizer(config.vocab_file, vocab_sha256, settings)
    texts = [
        document
        for stretch in group.stretches
        for document in read_stretch(stretch, config.input_format)
    ]
    documents = [tokenizer.encode(text) for text in texts]
    counts = TextCounts()
    if duplicates.start == 0:
        counts = count_text(texts, documents, tokenizer.special.unk)
    instances = []
    for duplicate in duplicates:
        rng = _generator(config.seed, group.number, duplicate)
        instances += create_instances(
            documents,
            config,
            tokenizer.special,
            len(tokenizer.inverse_vocab),
            rng,
            tokenizer.continuations,
        )
    _generator(config.seed, group.number, duplicates.start, "order").shuffle(instances)
    return instances, counts


def duplicate_blocks(dupe_factor: int) -> list[range]:
    """Cuts the duplicates into blocks that one worker holds in memory at once."""
    return [
        range(first, min(first + _DUPLICATES_AT_ONCE, dupe_factor))
        for first in range(0, dupe_factor, _DUPLICATES_AT_ONCE)
    ]


def _generator(*parts: object) -> random.Random:
    """A generator of its own for each tuple of parts."""
    return random.Random(repr(parts))
