"""Opens record files of either format, and checks sets of them for a model."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bert_tf.config.record_ranges import RecordRange
from bert_tf.config.record_sets import whole_parts
from bert_tf.data.records.checking import (
    Sample,
    check_metadata,
    check_sample,
    check_shards,
    find_corrupt_records,
)
from bert_tf.data.records.metadata import (
    Metadata,
    check_lengths,
    indexing,
    metadata_file,
    most_predictions,
    read_metadata,
)
from bert_tf.data.records.record_index import (
    NamedSet,
    RecordIndex,
    SetShare,
    record_sets,
)
from bert_tf.data.records.schema import (
    ExampleParser,
    RecordParser,
    RecordShape,
    ValueLimits,
    record_shapes,
)
from bert_tf.data.records.skipping import (
    SkippingParser,
    describe_skipped,
    find_records,
    with_advice,
)
from bert_tf.data.records.tfrecord import TfrecordIndex
from bert_tf.errors import CorruptRecordError
from bert_tf.launch import report

if TYPE_CHECKING:
    from bert_tf.distribute import Communicator

# For commands without a model: ids need only fit into a record.
NO_LIMITS = ValueLimits(vocab_size=2**28, type_vocab_size=2**28)

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Enough to find a wrong vocabulary before the first step, and done within a second;
# every record is checked again when it is read.
_SAMPLE_SIZE = 2048
# Shares that give a warning. Other programs may mask less than ours, at random.
_MAX_FAULTS = {"unmasked": 0.4, "masked_cls": 0.01, "unattended": 0.01}
# Fewer labels may be equal by chance.
_MANY_LABELS = 16


def file_format(path: str) -> str:
    """The format of a record file, by its first bytes: hdf5 or tfrecord."""
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return "hdf5" if is_hdf5 else "tfrecord"


def open_index(files: Sequence[str], cache_dir: str = "") -> RecordIndex:
    """Numbers the records of files of either format.

    Args:
      files: TFRecord files, or HDF5 files.
      cache_dir: Folder in which offsets of TFRecords, and unpacked ones, are cached
        between runs; empty for no cache.

    Raises:
      CorruptRecordError: if both formats occur, or a file is not valid.
    """
    formats: dict[str, str] = {}
    for path in files:
        formats.setdefault(file_format(path), path)
    if len(formats) > 1:
        raise CorruptRecordError(
            "TFRecord and HDF5 files cannot be mixed in a set. Received: "
            f"{formats['tfrecord']} and {formats['hdf5']}. Convert one of them with "
            "`python -m bert_tf data convert`."
        )
    if "hdf5" in formats:
        # Loaded only by those who have HDF5 files.
        from bert_tf.data.records.hdf5_reader import Hdf5Index

        return Hdf5Index(list(files))
    return TfrecordIndex(list(files), cache_dir)


def make_parser(
    index: RecordIndex,
    limits: ValueLimits,
    skipped: np.ndarray | None = None,
    max_corrupt_records: int = 0,
) -> RecordParser:
    """The parser of an index.

    Args:
      index: The result of `open_index`.
      limits: Exclusive upper bounds of the ids.
      skipped: Numbers of records that need not be readable.
      max_corrupt_records: How many others need not be, either.

    Returns:
      A parser, which gives the same features for the same records in either format.

    Raises:
      CorruptRecordError: if the lengths of the records are not known.
    """
    if index.format == "hdf5":
        from bert_tf.data.records.hdf5_reader import Hdf5Parser

        return Hdf5Parser(index, index.shape, limits)
    left_out = frozenset([] if skipped is None else skipped.tolist())
    shapes = record_shapes(index, left_out, max_corrupt_records)
    return ExampleParser(index, shapes, limits)


def open_parser(files: Sequence[str], limits: ValueLimits) -> RecordParser:
    """Opens record files of either format; see `open_index` and `make_parser`."""
    return make_parser(open_index(files), limits)


def open_input(files: Sequence[str], cache_dir: str = "") -> RecordParser:
    """Opens records for a command, and checks them as a training does.

    Args:
      files: See `open_index`.
      cache_dir: See `open_index`.

    Returns:
      The parser. Ids are below the size of the vocabulary that metadata states.

    Raises:
      ValueError: if a metadata file is not valid.
      CorruptRecordError: if files contradict each other or their metadata.
    """
    index = open_index(files, cache_dir)
    folders = sorted({*index.described.values()})
    metadata = {folder: read_metadata(folder) for folder in folders}
    sizes = [about.vocab_size if about else None for about in metadata.values()]
    limits = NO_LIMITS
    if None not in sizes:
        limits = dataclasses.replace(NO_LIMITS, vocab_size=max(sizes))
    parser = make_parser(index, limits)
    _compare(metadata, parser)
    return parser


@functools.lru_cache(maxsize=1)
def cached_input(files: tuple[str, ...], cache_dir: str) -> RecordParser:
    """`open_input`, once per worker process; clear it where files may have changed."""
    return open_input(files, cache_dir)


def _compare(metadata: Mapping[str, Metadata | None], parser: RecordParser) -> None:
    """Compares the metadata of folders and files with the records."""
    index = parser.index
    groups: dict[str, dict[str, int]] = {}
    for number, path in enumerate(index.files):
        groups.setdefault(index.described[path], {})[path] = number
    for folder, about in metadata.items():
        if about:
            files = groups[folder]
            check_shards(folder, about, index, files)
            shape = parser.shape_of(next(reversed(files)))
            check_metadata(folder, about, index.format, shape)


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """Records that can be read by number.

    Attributes:
      parser: Reads and checks them; those that are skipped are empty rows.
      avg_seq_per_sample: Mean number of sequences per record; 1 if not packed.
      sha256: Of the number of records and of the checked sample: it differs for other
        records, and is the same for the same records in another folder or format.
      metadata: Folder -> its metadata; None if it has none.
      notes: Lines for the log.
      shares: The sets that it is made of, if they have weights, in order.
      has_pairs: Whether a record of the checked sample has a second segment.
    """

    parser: SkippingParser
    avg_seq_per_sample: float = 1.0
    sha256: str = ""
    metadata: Mapping[str, Metadata | None] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    shares: Sequence[SetShare] = ()
    has_pairs: bool = True

    @property
    def index(self) -> RecordIndex:
        """Where the records are."""
        return self.parser.index

    @property
    def shape(self) -> RecordShape:
        """The lengths of the records."""
        return self.parser.shape

    def __len__(self) -> int:
        """Number of records."""
        return len(self.index)


def _shares(
    input_files_dir: str, sets: Sequence[NamedSet], index: RecordIndex
) -> list[SetShare]:
    """How much is read from each of several sets; empty without weights."""
    if len(sets) == 1 or not any(one.weight for one in sets):
        return []
    parts = whole_parts(input_files_dir, [one.weight for one in sets])
    bounds = np.cumsum([0] + [len(one.files) for one in sets])
    sizes = np.diff(index.starts[bounds]).tolist()
    return [
        SetShare(size, part, one.path)
        for size, part, one in zip(sizes, parts, sets, strict=True)
    ]


def _average(
    metadata: dict[str, Metadata | None],
    index: RecordIndex,
    shape: RecordShape,
    shares: Sequence[SetShare],
) -> float:
    """Sequences per record over all folders, or of the sets in their proportion."""
    if not shape.is_packed:
        return 1.0
    ends = np.cumsum([share.num_records for share in shares])
    sequences = records = 0.0
    for number, path in enumerate(index.files):
        folder = index.described[path]
        about = metadata[folder]
        if about is None:
            raise CorruptRecordError(
                f"{folder} holds packed records, but their metadata "
                f"{metadata_file(folder)} does not exist. Run {indexing(folder)}, "
                "which counts the records and writes it."
            )
        read = float(index.starts[number + 1] - index.starts[number])
        if shares:
            share = shares[np.searchsorted(ends, index.starts[number], side="right")]
            read *= share.parts / share.num_records
        records += read
        sequences += read * about.avg_seq_per_sample
    return sequences / records


@dataclasses.dataclass(frozen=True)
class SkipSettings:
    """Which records of a set are read as empty rows.

    Attributes:
      ranges: Those that the user names; some may be of another set.
      max_corrupt_records: How many corrupt ones are looked for, and skipped.
    """

    ranges: Sequence[RecordRange] = ()
    max_corrupt_records: int = 0


def open_records(
    input_files_dir: str,
    limits: ValueLimits,
    *,
    max_seq_length: int | None = None,
    max_predictions_per_seq: int | None = None,
    cache_dir: str = "",
    skip: SkipSettings | None = None,
    communicator: "Communicator | None" = None,
    may_have_weights: bool = False,
    stated: Mapping[str, Metadata | None] | None = None,
) -> RecordSet:
    """Finds, indexes and checks a set of records.

    Args:
      input_files_dir: Comma-separated folders; * and ? are expanded. Each may have a
        weight, see `record_sets`.
      limits: The sizes of the model's embedding tables.
      max_seq_length: The value of the flag; None if it is not given.
      max_predictions_per_seq: The value of the flag; None if it is not given.
      cache_dir: Folder in which offsets are cached between runs; empty for no cache.
      skip: Records that are skipped; None for none.
      communicator: The workers that look for corrupt records; None for one.
      may_have_weights: Whether folders may have weights.
      stated: The metadata of the folders; None if they are not read yet.

    Returns:
      The records.

    Raises:
      FileNotFoundError: if there are no records.
      ValueError: if a metadata file or a weight is not valid, or a skipped record does
        not exist.
      CorruptRecordError: if a file is empty, truncated or damaged, or contradicts the
        flags, the metadata or the model.
    """
    sets = record_sets(input_files_dir, may_have_weights=may_have_weights)
    files = [file for one in sets for file in one.files]
    index = open_index(files, cache_dir)
    shares = _shares(input_files_dir, sets, index)
    skip = skip or SkipSettings()
    skipped = find_records(index, skip.ranges)
    try:
        unpadded = make_parser(index, limits, skipped, skip.max_corrupt_records)
    except CorruptRecordError as error:
        raise with_advice(error, index) from error
    folders = sorted({*index.described.values()})
    known = stated or {}
    metadata = {x: known[x] if x in known else read_metadata(x) for x in folders}
    _compare(metadata, unpadded)
    parser = unpadded.padded_to(max_seq_length, max_predictions_per_seq)
    asked = {
        "max_seq_length": max_seq_length,
        "max_predictions_per_seq": max_predictions_per_seq,
    }
    check_lengths(input_files_dir, _lengths(parser.shape, metadata), asked)
    average = _average(metadata, index, parser.shape, shares)
    notes: list[str] = []
    if len(sets) == 1 and sets[0].weight:
        notes.append(f"{input_files_dir}: the weight of a single set has no effect.")
    if skip.max_corrupt_records:
        if communicator is None:
            from bert_tf.distribute import Communicator  # It loads TensorFlow.

            communicator = Communicator()
        corrupt = find_corrupt_records(
            unpadded, skipped, skip.max_corrupt_records, communicator
        )
        notes += [f"warning: corrupt, and skipped: {text}" for text in corrupt.values()]
        skipped = np.union1d(skipped, np.asarray([*corrupt], np.int64))
    if skipped.size:
        notes.append(describe_skipped(index, skipped))
    sample = check_sample(unpadded, _SAMPLE_SIZE, skipped)
    for text in _doubts(input_files_dir, sample):
        report(f"warning: {text}")
    reader = SkippingParser(parser, skipped)
    return RecordSet(
        reader, average, sample.sha256, metadata, notes, shares, sample.has_pairs
    )


def _doubts(input_files_dir: str, sample: Sample) -> Iterator[str]:
    """What is wrong with records that can be read, and what to do."""
    texts = {
        "unmasked": "have no masked token, so they train and evaluate no masked LM. "
        "Make them again with a greater --max_predictions_per_seq or --masked_lm_prob.",
        "masked_cls": "have the first token, [CLS], as a masked one. Make them again "
        "with the positions of the masked words as masked_lm_positions.",
        "unattended": "have only zeros as input_mask, so the model sees none of their "
        "tokens. Make them again with 1 for each token.",
    }
    for name, text in texts.items():
        share = sample.faults[name] / sample.num_records
        if share > _MAX_FAULTS[name]:
            yield f"{share:.1%} of the records of {input_files_dir} {text}"
    is_one_label = sample.random_next in (0, 1) and sample.has_pairs
    if is_one_label and sample.num_records >= _MANY_LABELS:
        yield (
            f"100.0% of the records of {input_files_dir} have next_sentence_labels="
            f"{sample.random_next:.0f}, from which next-sentence prediction learns "
            "nothing. Pass --nodo_nsp, or make them again from documents of "
            "several sentences."
        )


def _lengths(
    shape: RecordShape, metadata: Mapping[str, Metadata | None]
) -> dict[str, int | None]:
    """S, and P of a single sequence, of records."""
    predictions = shape.max_predictions
    if shape.is_packed:
        predictions = most_predictions(filter(None, metadata.values()))
    return {
        "max_seq_length": shape.max_seq_length,
        "max_predictions_per_seq": predictions,
    }
