"""Settings of the steps from raw text to training and test shards of sentences."""

import dataclasses

from bert_tf.config import checks

TEXT_FORMATS = ("auto", "mediawiki", "json", "text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Dumps, JSON and text files to plain documents (`python -m bert_tf data extract`).

    Attributes:
      input: Files or folders of them, separated by commas; * and ? work.
      output_dir: Folder for files of one JSON object per line, with title and text.
      input_format: mediawiki (an XML dump, plain or .bz2), json (a list, an object of
        documents by title, or one document per line in .jsonl), text (a file is a
        document), or auto: by the end of each file's name; without one it is text.
      text_field: The key of a JSON document under which its text is.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds other output.
    """

    input: str = ""
    output_dir: str = ""
    input_format: str = "auto"
    text_field: str = "text"
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("input", "output_dir", "text_field"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_choice(self, "input_format", TEXT_FORMATS)
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencesConfig:
    """Documents to sentences (`python -m bert_tf data sentences`).

    Attributes:
      input: Files that extract has made, or folders of them, separated by commas.
      output_dir: Folder for text in google's format: a sentence per line, a blank line
        between documents.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds other output.
    """

    input: str = ""
    output_dir: str = ""
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("input", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_not_negative(self, "num_processes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Documents to training and test shards (`python -m bert_tf data shard`).

    Attributes:
      input: Text in google's format, files or folders of *.txt files and files without
        an ending, separated by commas.
      output_dir: Folder for training-*.txt and test-*.txt, in the same format.
      n_training_shards: Number of files of training text.
      n_test_shards: Number of files of test text.
      fraction_test_set: Share of the documents that go to the test text.
      seed: Decides, with a document's text, on which side it is.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds other output.
    """

    input: str = ""
    output_dir: str = ""
    n_training_shards: int = 16
    n_test_shards: int = 16
    fraction_test_set: float = 0.1
    seed: int = 12345
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Checks each field on its own."""
        for name in ("input", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_positive(self, "n_training_shards", "n_test_shards")
        checks.require_shards(self, "n_training_shards", "n_test_shards")
        checks.require_not_negative(self, "seed", "num_processes")
        checks.require(
            0.0 < self.fraction_test_set < 1.0,
            "fraction_test_set",
            "be greater than 0 and less than 1",
            self.fraction_test_set,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabConfig:
    """Sentences to a WordPiece vocabulary (`python -m bert_tf data vocab`).

    Attributes:
      input: Text in google's format, files or folders of *.txt files and files without
        an ending, separated by commas.
      output_dir: Folder for vocab.txt.
      vocab_size: Most tokens, the special and the unused ones among them.
      do_lower_case: Lower-case the text, for an uncased vocabulary.
      strip_accents: Strip accents. Default: as do_lower_case.
      min_frequency: How often a piece must occur to become a token.
      limit_alphabet: Most different characters that become tokens, the most frequent
        ones; a word with another one is unknown.
      num_processes: Worker processes; 0 means one per core. The output is the same.
      overwrite: Replace an output_dir that holds another vocabulary.
    """

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
        """Checks each field on its own."""
        for name in ("input", "output_dir"):
            checks.require(bool(getattr(self, name)), name, "be given", "")
        checks.require_positive(self, "vocab_size", "min_frequency", "limit_alphabet")
        checks.require_not_negative(self, "num_processes")
