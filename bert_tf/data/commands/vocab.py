"""Trains a WordPiece vocabulary on text, in the layout of the published ones.

Also counts the words of a text, for a vocabulary that gets more of them.

The `tokenizers` library learns the pieces, from the words that our own tokenizer makes
of the text, so that vocabulary and tokenizer agree.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer

from bert_tf.config.text import TextConfig, VocabConfig
from bert_tf.data.commands.check import text_parts, texts_of
from bert_tf.data.commands.extract import RawDocument
from bert_tf.data.commands.output_folder import (
    VOCABULARY_FILES,
    OutputFolder,
    settings_of,
)
from bert_tf.data.output_files import (
    FileWriter,
    OutputFile,
    no_text_error,
    total_counts,
)
from bert_tf.data.processes import in_order
from bert_tf.data.text.documents import FileRange, cut_into_ranges, read_range
from bert_tf.data.text.input_files import expand_paths
from bert_tf.data.text.tokenization import (
    MAX_CHARS_PER_WORD,
    TokenizerSettings,
    WordSplitter,
)
from bert_tf.data.text.vocabulary import CONTINUATION, SPECIAL_TOKENS
from bert_tf.files import content_size
from bert_tf.progress import ProgressReport

Result = TypeVar("Result")

# [PAD], 99 tokens that users may replace, then the others: [UNK] is 100, [MASK] is 103.
_NUM_UNUSED = 99
_RANGE_BYTES = 1 << 20
FIRST_TOKENS = (
    SPECIAL_TOKENS.pad,
    *(f"[unused{number}]" for number in range(_NUM_UNUSED)),
    SPECIAL_TOKENS.unk,
    SPECIAL_TOKENS.cls,
    SPECIAL_TOKENS.sep,
    SPECIAL_TOKENS.mask,
)


class Alphabet(NamedTuple):
    """The characters of a text, and those that occur within words.

    Attributes:
      counts: Number of occurrences of each character.
      inner: Characters that are not the first of some word.
    """

    counts: Counter[str]
    inner: set[str]

    def add(self, other: "Alphabet") -> None:
        """Adds the characters of another text."""
        self.counts.update(other.counts)
        self.inner.update(other.inner)


def count_characters(line: str) -> Alphabet:
    """Counts the characters of the words of a line."""
    inner = {char for word in set(line.split()) for char in word[1:]}
    counts = Counter(line)
    del counts[" "]
    return Alphabet(counts, inner)


def train_vocabulary(
    lines: Iterable[str],
    alphabet: Alphabet,
    vocab_size: int,
    min_frequency: int,
    limit_alphabet: int,
) -> list[str]:
    """Learns the pieces into which words are split.

    Args:
      lines: Words between blanks.
      alphabet: Their characters.
      vocab_size: Maximum number of tokens; more than the special ones.
      min_frequency: How often a piece must occur.
      limit_alphabet: Maximum number of characters, the most frequent ones.

    Returns:
      `FIRST_TOKENS`, then characters, then pieces in the order in which they are found;
      the same for the same lines.
    """
    kept = sorted(alphabet.counts, key=lambda char: (-alphabet.counts[char], char))
    kept = sorted(kept[:limit_alphabet])
    inner = [f"{CONTINUATION}{char}" for char in kept if char in alphabet.inner]
    tokenizer = Tokenizer(WordPiece(unk_token=SPECIAL_TOKENS.unk))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        # The trainer numbers what it meets first in the order of a hash table, and
        # breaks ties by number: with fixed numbers the result is the same every time.
        special_tokens=[*FIRST_TOKENS, *kept, *inner],
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def split_words(file_range: FileRange, settings: TokenizerSettings) -> str:
    """The words of a range of a file: one task of a worker process."""
    splitter = WordSplitter(settings)
    return " ".join(
        word
        for document in read_range(file_range, "google")
        for sentence in document
        for word in splitter.words(sentence)
        if len(word) <= MAX_CHARS_PER_WORD
    )


def count_range(file_range: FileRange, settings: TokenizerSettings) -> Alphabet:
    """The characters of a range of a file: one task of a worker process."""
    return count_characters(split_words(file_range, settings))


def count_words(
    part: FileRange | list[RawDocument], settings: TokenizerSettings
) -> tuple[Counter[str], Counter[str]]:
    """How often each word occurs in a part of a text: one task of a worker process.

    Returns:
      Word -> occurrences; and counts of what is left out, see `plain_text`.
    """
    splitter = WordSplitter(settings)
    words, left_out = Counter[str](), Counter[str]()
    for text in texts_of(part, left_out):
        found = splitter.words(text)
        words.update(word for word in found if len(word) <= MAX_CHARS_PER_WORD)
    return words, left_out


def count_all_words(
    paths: Sequence[str],
    config: TextConfig,
    settings: TokenizerSettings,
    num_processes: int,
) -> tuple[Counter[str], Counter[str]]:
    """How often each word occurs in files of text, and what is left out.

    Args:
      paths: What `find_input` finds.
      config: Their formats.
      settings: How to normalise text.
      num_processes: Worker processes; 0 means one per core.
    """
    words, left_out = Counter[str](), Counter[str]()
    kept, sent = itertools.tee(text_parts(paths, config))
    tasks = ((part, settings) for _, _, part in sent)
    with ProgressReport(sum(map(content_size, paths)), "MiB of words") as progress:
        results = in_order(count_words, tasks, num_processes)
        for (_, size, _), (found, missing) in zip(kept, results, strict=True):
            words.update(found)
            left_out.update(missing)
            progress.add(size, size / 2**20)
    return words, left_out


def make_vocabulary(config: VocabConfig) -> Counter[str]:
    """Trains a vocabulary on files and writes it, unless it exists already.

    Args:
      config: All settings.

    Returns:
      Counts of `tokens` and `bytes`.

    Raises:
      FileNotFoundError: if there is no text.
      FileExistsError: if `output_dir` holds another vocabulary.
      ValueError: if the vocabulary is too small for the special tokens, or the text is
        not UTF-8.
    """
    if config.vocab_size <= len(FIRST_TOKENS):
        raise ValueError(
            f"`vocab_size` must be greater than {len(FIRST_TOKENS)}, the number of "
            f"special and unused tokens. Received: vocab_size={config.vocab_size}. "
            "Pass a larger --vocab_size."
        )
    paths = expand_paths(config.input)
    # Manifests of earlier versions, without this setting, stay valid.
    usual = ["strip_accents"] if config.strip_accents is None else []
    settings = settings_of(config, "input", *usual)
    output = OutputFolder("vocab", config.output_dir, VOCABULARY_FILES, settings, paths)
    files = output.complete(config.overwrite, lambda o: [_write(config, paths, o)])
    return total_counts(files)


def _write(
    config: VocabConfig, paths: Sequence[str], output: OutputFolder
) -> OutputFile:
    alphabet = Alphabet(Counter(), set())
    strips = config.strip_accents
    settings = TokenizerSettings(
        config.do_lower_case, config.do_lower_case if strips is None else strips
    )
    read = (paths, settings, config.num_processes)
    for found in _over_ranges(count_range, "characters", *read):
        alphabet.add(found)
    if not alphabet.counts:
        raise no_text_error(config.input)
    tokens = train_vocabulary(
        _over_ranges(split_words, "words", *read),
        alphabet,
        config.vocab_size,
        config.min_frequency,
        config.limit_alphabet,
    )
    with FileWriter(output.partial_dir / "vocab.txt") as writer:
        writer.append("".join(f"{token}\n" for token in tokens).encode())
    file = writer.described({"tokens": len(tokens)})
    output.finish(file)
    return file


def _over_ranges(
    function: Callable[[FileRange, TokenizerSettings], Result],
    what: str,
    paths: Sequence[str],
    settings: TokenizerSettings,
    num_processes: int,
) -> Iterator[Result]:
    """Applies a function to each range of the files, in order."""
    ranges = list(cut_into_ranges(paths, "google", _RANGE_BYTES))
    tasks = ((file_range, settings) for file_range in ranges)
    total = sum(file_range.num_bytes for file_range in ranges)
    with ProgressReport(total, f"MiB of {what}") as progress:
        results = in_order(function, tasks, num_processes)
        for number, result in enumerate(results):
            yield result
            size = ranges[number].num_bytes
            progress.add(size, size / 2**20)
