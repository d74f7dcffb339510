"""Settings of the data commands that make, pack, index and show records."""

import dataclasses
from typing import ClassVar

from bert_tf.config import checks
from bert_tf.config.text import DEDUP_MODES


@dataclasses.dataclass(frozen=True, kw_only=True)
class CreateDataConfig:
    """Makes masked sentence-pair records from text (`python -m bert_tf data create`).

    Attributes:
      input: Comma-separated text files, or folders of *.txt files and files without
        an extension; * and ? are expanded.
      output_dir: Folder for the record shards; the metadata is written next to it, to
        <output_dir>_metadata.json.
      vocab_file: The WordPiece vocabulary, one token per line.
      input_format: google (one sentence per line, a blank line between documents), or
        plain text, which is split into sentences: text (each file is a document) or
        lines (each line is a document).
      do_lower_case: Lower-case the text and strip accents, for an uncased vocabulary.
        Default: from the tokenizer's files next to vocab_file, else true if the
        vocabulary has no capital letters.
      strip_accents: Strip accents. Default: from the tokenizer's files next to
        vocab_file, else as do_lower_case.
      tokenize_chinese_chars: Make each Chinese character a word. Default: from the
        tokenizer's files next to vocab_file, else true.
      max_seq_length: Tokens per record.
      max_predictions_per_seq: Maximum number of masked tokens per record.
      masked_lm_prob: Fraction of the tokens to mask.
      short_seq_prob: Fraction of the instances made shorter than max_seq_length.
      do_whole_word_mask: Mask all pieces of a word together.
      max_ngram_size: Maximum number of consecutive whole words masked together; more
        than 1 needs do_whole_word_mask. Shorter n-grams are more likely.
      do_nsp: Make pairs of segments, for next-sentence prediction. Without it a record
        has one segment of whole sentences, and one document is enough.
      dupe_factor: How often each document is used, each time with new masks.
      dedup: Leave out documents that repeat an earlier one: exact (word for word; also
        --dedup alone) or near (most pairs of words in common; needs the extra dedup).
      format: tfrecord, or hdf5 with the datasets of NVIDIA's and Intel's PyTorch BERT;
        `data convert` also writes hdf5 without padding or compressed.
      seed: Random seed of masks, sentence pairs and shards; the same seed gives the
        same bytes.
      num_shards: Number of record files.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      horovod: Divide the shards among the processes started by mpirun, which must see
        the same folders. The output does not depend on it.
      overwrite: Replace an output_dir that holds other records.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input", "output_dir", "vocab_file")
    BARE: ClassVar[dict[str, str]] = {"dedup": "exact"}

    input: str = ""
    output_dir: str = ""
    vocab_file: str = ""
    input_format: str = "google"
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    do_whole_word_mask: bool = False
    max_ngram_size: int = 1
    do_nsp: bool = True
    dupe_factor: int = 10
    dedup: str = ""
    format: str = "tfrecord"
    seed: int = 12345
    num_shards: int = 1
    num_processes: int = 0
    horovod: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_choice(self, "input_format", ("google", "text", "lines"))
        if self.dedup:
            checks.require_choice(self, "dedup", DEDUP_MODES)
        checks.require_choice(self, "format", ("tfrecord", "hdf5"))
        checks.require(
            self.max_seq_length >= 8,
            "max_seq_length",
            "be at least 8 to hold two sentences and three special tokens",
            self.max_seq_length,
        )
        checks.require_positive(
            self,
            "max_seq_length",
            "max_predictions_per_seq",
            "max_ngram_size",
            "dupe_factor",
            "num_shards",
        )
        checks.require(
            self.do_whole_word_mask or self.max_ngram_size == 1,
            "max_ngram_size",
            "be 1 unless `do_whole_word_mask` is set",
            self.max_ngram_size,
        )
        checks.require_not_negative(self, "seed", "num_processes")
        checks.require_probability(self, "masked_lm_prob", "short_seq_prob")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowDataConfig:
    """Prints records as text (`python -m bert_tf data show`).

    Attributes:
      input_dir: Folder of record files, or one record file.
      vocab_file: The WordPiece vocabulary that the records were made with.
      num_records: Number of records to show, starting with the first.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input_dir", "vocab_file")

    input_dir: str = ""
    vocab_file: str = ""
    num_records: int = 2

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_positive(self, "num_records")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackDataConfig:
    """Packs several short sequences into a record (`python -m bert_tf data pack`).

    Attributes:
      input_dir: Comma-separated folders of unpacked records; * and ? are expanded.
      output_dir: Folder for the packed shards; the metadata is written next to it, to
        <output_dir>_metadata.json.
      max_sequences_per_pack: Maximum number of sequences in a record, 0 for no limit;
        3 is planned by non-negative least squares, any other number longest first.
      seed: Random seed of which sequences share a record; the same seed gives the same
        bytes.
      num_shards: Number of record files; 0 means as many as input files.
      num_processes: Worker processes; 0 means one per core. The output does not depend
        on it.
      overwrite: Replace an output_dir that holds other records.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input_dir", "output_dir")

    input_dir: str = ""
    output_dir: str = ""
    max_sequences_per_pack: int = 3
    seed: int = 12345
    num_shards: int = 0
    num_processes: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
        checks.require_not_negative(
            self, "max_sequences_per_pack", "seed", "num_shards", "num_processes"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexDataConfig:
    """Counts records and writes their metadata (`python -m bert_tf data index`).

    Attributes:
      input_dir: Folder of packed or unpacked records.
      overwrite: Replace existing metadata.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("input_dir",)

    input_dir: str = ""
    overwrite: bool = False

    def __post_init__(self) -> None:
        checks.require_given(self, *self.REQUIRED)
