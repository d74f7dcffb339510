"""Settings of the data commands from raw text to shards and a vocabulary."""

import dataclasses
from typing import ClassVar

from bert_tf.config import checks

DEDUP_MODES = ("exact", "near")
TEXT_FORMATS = ("auto", "mediawiki", "json", "csv", "parquet", "text", "lines")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text in files of several formats.

    Attributes:
      input: Comma-separated files or folders; * and ? are expanded.
      input_format: mediawiki, json, csv, parquet, text or lines, see `data extract`, or
        auto: by each file's extension.
      text_field: The key of a JSON document, or the column, that holds its text.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input",)
    FORMATS: ClassVar[tuple[str, ...]] = TEXT_FORMATS

    input: str = ""
    input_format: str = "auto"
    text_field: str = "text"

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED, "text_field")
        checks.require_choice(self, "input_format", self.FORMATS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractConfig(TextConfig):
    """Extracts documents from dumps, JSON and text (`python -m bert_tf data extract`).

    Attributes:
      input_format: mediawiki (an XML dump, plain or .bz2), json (a list, an object of
        documents by title, or one document per line in .jsonl), csv or parquet (a
        document in each row), text (each file is a document), lines (each line is a
        document), or auto: by each file's extension, which .gz may follow; files
        without one are text.
      output_dir: Folder for files of one JSON object per line, with title and text.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other output.
    """

    REQUIRED = ("input", "output_dir")

    output_dir: str = ""
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckConfig(TextConfig):
    """Counts repeats, lengths, scripts and [UNK] (`python -m bert_tf data check`).

    Attributes:
      input_format: google (one sentence per line, a blank line between documents), a
        format of extract, or auto: by each file's extension, text being google's.
      vocab_file: A vocabulary, to count [UNK]; of large texts in a sample.
      dedup: Documents that count as repeated: exact (word for word) or near (most pairs
        of words in common, too; needs the extra dedup).
      json: Print JSON instead of a table.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
    """

    FORMATS = ("google", *TEXT_FORMATS)

    vocab_file: str = ""
    dedup: str = "exact"
    json: bool = False
    num_processes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_choice(self, "dedup", DEDUP_MODES)
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencesConfig:
    """Splits documents into sentences (`python -m bert_tf data sentences`).

    Attributes:
      input: Comma-separated files written by extract, or folders of them.
      output_dir: Folder for text in google's format: one sentence per line, a blank
        line between documents.
      dedup: Leave out documents that repeat an earlier one: exact (word for word; also
        --dedup alone) or near (most pairs of words in common; needs the extra dedup).
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other output.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input", "output_dir")
    BARE: ClassVar[dict[str, str]] = {"dedup": "exact"}

    input: str = ""
    output_dir: str = ""
    dedup: str = ""
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        if self.dedup:
            checks.require_choice(self, "dedup", DEDUP_MODES)
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Divides documents into training and test (`python -m bert_tf data shard`).

    Attributes:
      input: Text in google's format: comma-separated files, or folders of *.txt files
        and files without an extension.
      output_dir: Folder for training-*.txt and test-*.txt, in the same format.
      n_training_shards: Number of training files.
      n_test_shards: Number of test files.
      fraction_test_set: Fraction of the documents that go to the test files.
      seed: Decides, together with a document's text, whether it is training or test.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other output.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input", "output_dir")

    input: str = ""
    output_dir: str = ""
    n_training_shards: int = 16
    n_test_shards: int = 16
    fraction_test_set: float = 0.1
    seed: int = 12345
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_positive(self, "n_training_shards", "n_test_shards")
        checks.require_not_negative(self, "seed", "num_processes")
        checks.require(
            0.0 < self.fraction_test_set < 1.0,
            "fraction_test_set",
            "be greater than 0 and less than 1",
            self.fraction_test_set,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabConfig:
    """Trains a WordPiece vocabulary (`python -m bert_tf data vocab`).

    Attributes:
      input: Text in google's format: comma-separated files, or folders of *.txt files
        and files without an extension.
      output_dir: Folder for vocab.txt.
      vocab_size: Maximum number of tokens, with the special and the unused ones.
      do_lower_case: Lower-case the text, for an uncased vocabulary.
      strip_accents: Strip accents. Default: as do_lower_case.
      min_frequency: How often a piece must occur to become a token.
      limit_alphabet: Maximum number of characters that become tokens, the most frequent
        ones; a word with any other character is [UNK].
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds another vocabulary.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input", "output_dir")

    input: str = ""
    output_dir: str = ""
    vocab_size: int = 30522
    do_lower_case: bool = True
    strip_accents: bool | None = None
    min_frequency: int = 2
    limit_alphabet: int = 1000
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_positive(self, "vocab_size", "min_frequency", "limit_alphabet")
        checks.require_not_negative(self, "num_processes")
