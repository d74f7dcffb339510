"""Groups of documents: the unit of work, independent of the number of processes.

The text is cut into groups of documents by its size alone. The instances of group g
and duplicate d are drawn with the seed (seed, g, d), and the other document of a random
next segment is one of the same group. So the records of a group depend on nothing
outside it, and any process can make them at any time. The records of a group, ten
duplicates together, are shuffled; training shuffles all records again.
"""

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.pretraining.instances import InstanceMaker, Masker, TrainingInstance
from bert_tf.data.pretraining.statistics import TextCounts, count_text
from bert_tf.data.processes import blocks
from bert_tf.data.text.documents import (
    FileRange,
    count_documents,
    cut_into_ranges,
    holds_words,
    read_ranges,
)
from bert_tf.data.text.duplicates import make_finder
from bert_tf.data.text.tokenization import (
    UNCASED,
    TokenizerSettings,
    WordSplitter,
    cached_tokenizer,
)
from bert_tf.files import content_size

# Large enough for varied random next segments, small enough to keep every core busy.
GROUP_BYTES = 1 << 20
_SMALL_GROUP_BYTES = 256 << 10
_GROUPS_PER_SHARD = 4
_DUPLICATES_AT_ONCE = 10


@dataclasses.dataclass(frozen=True)
class DocumentGroup:
    """Documents that are processed together.

    Attributes:
      number: Index of the group in the text, from 0.
      ranges: Their parts of the files: at least two documents, if the text has two.
      left_out: Indices of documents that repeat earlier ones.
    """

    number: int
    ranges: tuple[FileRange, ...]
    left_out: frozenset[int] = frozenset()

    @property
    def num_bytes(self) -> int:
        """Size of the text."""
        return sum(file_range.num_bytes for file_range in self.ranges)


def cut_into_groups(
    paths: Sequence[str],
    input_format: str,
    num_shards: int = 1,
    settings: TokenizerSettings = UNCASED,
    *,
    fewest: int = 2,
) -> Iterator[DocumentGroup]:
    """Cuts text into groups of about `GROUP_BYTES`.

    Args:
      paths: Text files.
      input_format: google, text or lines, see `cut_into_ranges`.
      num_shards: Little text is cut into smaller groups, several for each shard, so
        that the shards have about the same size.
      settings: Those of the tokenizer: only documents with a token count.
      fewest: Documents of a group at least: 2 for sentence pairs, otherwise 1.

    Yields:
      Groups of at least so many documents each, unless the whole text has fewer.
    """
    splitter = WordSplitter(settings)
    share = sum(map(content_size, paths)) // (_GROUPS_PER_SHARD * num_shards)
    target = min(GROUP_BYTES, max(share, _SMALL_GROUP_BYTES))
    number = size = documents = 0
    current: list[FileRange] = []
    ready: DocumentGroup | None = None
    for file_range in cut_into_ranges(paths, input_format, target):
        current.append(file_range)
        size += file_range.num_bytes
        if documents < fewest:
            documents += count_documents(file_range, input_format, splitter)
        if size >= target and documents >= fewest:
            if ready:
                yield ready
            ready = DocumentGroup(number, tuple(current))
            number, size, documents, current = number + 1, 0, 0, []
    if ready and documents < fewest:
        # A single document has no partner for random next segments: it joins the
        # previous group.
        ready = DocumentGroup(ready.number, (*ready.ranges, *current))
        documents = 0
    if ready:
        yield ready
    if documents:
        yield DocumentGroup(number, tuple(current))


def without_repeated(
    groups: Iterable[DocumentGroup], input_format: str, mode: str, fewest: int
) -> tuple[list[DocumentGroup], int]:
    """Leaves documents out that repeat an earlier one; small groups are joined.

    Args:
      groups: The text.
      input_format: google, text or lines.
      mode: exact or near, see `make_finder`.
      fewest: See `cut_into_groups`.

    Returns:
      The groups, and how many documents are left out.
    """
    find = make_finder(mode)
    kept: list[tuple[tuple[FileRange, ...], set[int]]] = []
    num_read = num_kept = total = 0
    ranges: tuple[FileRange, ...] = ()
    left_out: set[int] = set()
    for group in groups:
        texts = ["\n".join(x) for x in read_ranges(group.ranges, input_format)]
        is_repeated = find(texts)
        pairs = [*zip(texts, is_repeated, strict=True)]
        left_out |= {num_read + i for i, (_, is_old) in enumerate(pairs) if is_old}
        ranges += group.ranges
        num_read += len(texts)
        num_kept += sum(not is_old and holds_words(text) for text, is_old in pairs)
        total += sum(is_repeated)
        if num_kept >= fewest:
            kept.append((ranges, left_out))
            ranges, left_out, last_read = (), set(), num_read
            num_read = num_kept = 0
    if num_kept and kept:  # Too few for a group: they join the last one.
        before, numbers = kept[-1]
        kept[-1] = (before + ranges, numbers | {last_read + i for i in left_out})
    elif num_kept:
        kept.append((ranges, left_out))
    made = [DocumentGroup(i, r, frozenset(x)) for i, (r, x) in enumerate(kept)]
    return made, total


def tokenizer_settings(config: CreateDataConfig) -> TokenizerSettings:
    """The tokenizer settings of a config in which all of them are filled in."""
    return TokenizerSettings(
        config.do_lower_case, config.strip_accents, config.tokenize_chinese_chars
    )


def make_instances(
    group: DocumentGroup, duplicates: range, config: CreateDataConfig, vocab_sha256: str
) -> tuple[list[TrainingInstance], TextCounts]:
    """Makes the instances of some duplicates of a group, in random order.

    Args:
      group: The text.
      duplicates: Numbers of the duplicates, in `range(config.dupe_factor)`.
      config: All settings, those of the tokenizer filled in.
      vocab_sha256: Checksum of the vocabulary file.

    Returns:
      Instances that depend only on text, numbers and settings; and the counts of the
      text, which only the first duplicates of a group have.

    Raises:
      ValueError: if fewer than two documents hold text.
    """
    settings = tokenizer_settings(config)
    tokenizer = cached_tokenizer(config.vocab_file, vocab_sha256, settings)
    found = enumerate(read_ranges(group.ranges, config.input_format))
    texts = [text for number, text in found if number not in group.left_out]
    documents = [tokenizer.encode(text) for text in texts]
    counts = TextCounts()
    if duplicates.start == 0:
        counts = count_text(texts, documents, tokenizer.special.unk)
    masker = Masker(
        config,
        tokenizer.special,
        len(tokenizer.inverse_vocab),
        tokenizer.continuations,
    )
    instances = []
    for duplicate in duplicates:
        rng = _generator(config.seed, group.number, duplicate)
        maker = InstanceMaker(config, tokenizer.special, masker, rng)
        instances += maker.make(documents)
    _generator(config.seed, group.number, duplicates.start, "order").shuffle(instances)
    return instances, counts


def duplicate_blocks(dupe_factor: int) -> list[range]:
    """Divides the duplicates into blocks that a worker process holds in memory."""
    return blocks(range(dupe_factor), _DUPLICATES_AT_ONCE)


def _generator(*parts: object) -> random.Random:
    """A random generator that is seeded with a tuple."""
    return random.Random(repr(parts))
