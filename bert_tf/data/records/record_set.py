"""Opens record files of either format, and checks sets of them for a model."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from bert_tf.data.records.metadata import Metadata, metadata_file, read_metadata
from bert_tf.data.records.record_index import RecordIndex, record_files
from bert_tf.data.records.schema import (
    ExampleParser,
    RecordParser,
    RecordShape,
    ValueLimits,
    check_sample,
    record_shape,
)
from bert_tf.data.records.tfrecord import TfrecordIndex
from bert_tf.errors import CorruptRecordError
from bert_tf.launch import report

# For commands without a model: ids need only fit into a record.
NO_LIMITS = ValueLimits(vocab_size=2**28, type_vocab_size=2**28)

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Enough to find a wrong vocabulary before the first step, and done within a second;
# every record is checked again when it is read.
_SAMPLE_SIZE = 2048
# Other programs' records may mask less than ours: only useless sets give a warning.
_MAX_UNMASKED = 0.5


def file_format(path: str) -> str:
    """The format of a record file, by its first bytes: hdf5 or tfrecord."""
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return "hdf5" if is_hdf5 else "tfrecord"


def open_parser(
    files: Sequence[str], limits: ValueLimits, cache_dir: str = ""
) -> RecordParser:
    """Opens record files of either format.

    Args:
      files: TFRecord files, or HDF5 files.
      limits: Exclusive upper bounds of the ids.
      cache_dir: Folder in which offsets of TFRecords are cached between runs; empty for
        no cache.

    Returns:
      A parser, which gives the same features for the same records in either format.

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
        from bert_tf.data.records.hdf5_reader import Hdf5Index, Hdf5Parser

        index = Hdf5Index(list(files))
        return Hdf5Parser(index, index.shape, limits)
    index = TfrecordIndex(list(files), cache_dir)
    return ExampleParser(index, record_shape(index), limits)


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """Records that can be read by number.

    Attributes:
      parser: Reads and checks them.
      avg_seq_per_sample: Mean number of sequences per record; 1 if not packed.
      sha256: Of the number of records and of the checked sample: it differs for other
        records, and is the same for the same records in another folder or format.
      metadata: Folder -> its metadata; None if it has none.
    """

    parser: RecordParser
    avg_seq_per_sample: float = 1.0
    sha256: str = ""
    metadata: Mapping[str, Metadata | None] = dataclasses.field(default_factory=dict)

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


def _check_lengths(
    input_files_dir: str, found: dict[str, int | None], given: dict[str, int | None]
) -> None:
    """Compares the records' lengths with the flags that are given."""
    for name, value in given.items():
        if None not in (value, found[name]) and value != found[name]:
            raise CorruptRecordError(
                f"`{name}` must be {found[name]}, that of the records of "
                f"{input_files_dir}. Received: {name}={value}. Pass --{name}="
                f"{found[name]}, or make records with --{name}={value}."
            )


def _check_shards(folder: str, metadata: Metadata, index: RecordIndex) -> None:
    """Compares the files that metadata lists with those of the folder."""
    if metadata.shards is not None:
        listed = {os.path.join(folder, shard.name) for shard in metadata.shards}
        for path in index.files:
            if os.path.dirname(path) == folder and path not in listed:
                raise CorruptRecordError(
                    f"{metadata_file(folder)} does not list {path}. Move the file "
                    "away, or update the metadata with `python -m bert_tf data index "
                    f"--input_dir={folder} --overwrite`."
                )
    for shard in metadata.shards or ():
        path = os.path.join(folder, shard.name)
        if path not in index.files and os.path.exists(path):
            continue  # The setting names single files of the folder.
        if path not in index.files:
            raise CorruptRecordError(
                f"{metadata_file(folder)} lists the file {shard.name}, which is "
                f"missing in {folder}. Copy it there, make the records again, or "
                "leave it out of the metadata with `python -m bert_tf data index "
                f"--input_dir={folder} --overwrite`."
            )
        number = index.files.index(path)
        records = int(index.starts[number + 1] - index.starts[number])
        found = (records, os.path.getsize(path))
        if found != (shard.records, shard.bytes):
            raise CorruptRecordError(
                f"{path} must hold {shard.records} records in {shard.bytes} bytes, as "
                f"{metadata_file(folder)} states. Received: {found[0]} records in "
                f"{found[1]} bytes. Copy or make the file again. If the file is "
                "correct, update the metadata with `python -m bert_tf data index "
                f"--input_dir={folder} --overwrite`."
            )


def _check_metadata(
    folder: str, metadata: Metadata, file_format: str, shape: RecordShape
) -> None:
    """Compares metadata with the records that it describes."""
    pairs = {
        "format": (metadata.format, file_format),
        "packed": (metadata.packed, shape.is_packed),
        "max_seq_length": (metadata.max_seq_length, shape.max_seq_length),
        "max_predictions_per_pack": (
            metadata.max_predictions_per_pack,
            shape.max_predictions,
        ),
        "max_sequences_per_pack": (
            metadata.max_sequences_per_pack,
            shape.max_sequences,
        ),
    }
    for name, (stated, found) in pairs.items():
        if stated is not None and stated != found:
            raise CorruptRecordError(
                f"{metadata_file(folder)} states {name}={stated}, but the records of "
                f"{folder} have {name}={found}. Update the metadata with `python -m "
                f"bert_tf data index --input_dir={folder} --overwrite`."
            )


def _average(
    metadata: dict[str, Metadata | None], index: RecordIndex, shape: RecordShape
) -> float:
    """Sequences per record over all folders."""
    if not shape.is_packed:
        return 1.0
    sequences = 0.0
    for number, path in enumerate(index.files):
        folder = os.path.dirname(path)
        about = metadata[folder]
        if about is None:
            raise CorruptRecordError(
                f"{folder} holds packed records, but their metadata "
                f"{metadata_file(folder)} does not exist. Run `python -m bert_tf data "
                f"index --input_dir={folder}`, which counts the records and writes it."
            )
        records = index.starts[number + 1] - index.starts[number]
        sequences += float(records) * about.avg_seq_per_sample
    return sequences / len(index)


def open_records(
    input_files_dir: str,
    limits: ValueLimits,
    *,
    max_seq_length: int | None = None,
    max_predictions_per_seq: int | None = None,
    cache_dir: str = "",
) -> RecordSet:
    """Finds, indexes and checks a set of records.

    Args:
      input_files_dir: Comma-separated folders; * and ? are expanded.
      limits: The sizes of the model's embedding tables.
      max_seq_length: The value of the flag; None if it is not given.
      max_predictions_per_seq: The value of the flag; None if it is not given.
      cache_dir: Folder in which offsets are cached between runs; empty for no cache.

    Returns:
      The records.

    Raises:
      FileNotFoundError: if there are no records.
      ValueError: if a metadata file is not valid.
      CorruptRecordError: if a file is empty, truncated or damaged, or contradicts the
        flags, the metadata or the model.
    """
    files = record_files(input_files_dir)
    unpadded = open_parser(files, limits, cache_dir)
    index = unpadded.index
    folders = sorted({os.path.dirname(path) for path in files})
    metadata = {folder: read_metadata(folder) for folder in folders}
    for folder, about in metadata.items():
        if about:
            _check_shards(folder, about, index)
            _check_metadata(folder, about, index.format, unpadded.shape)
    parser = unpadded.padded_to(max_seq_length, max_predictions_per_seq)
    shape = parser.shape
    predictions = shape.max_predictions
    if shape.is_packed:
        stated = (about.max_predictions_per_seq for about in metadata.values() if about)
        predictions = next(filter(None, stated), None)
    _check_lengths(
        input_files_dir,
        {
            "max_seq_length": shape.max_seq_length,
            "max_predictions_per_seq": predictions,
        },
        {
            "max_seq_length": max_seq_length,
            "max_predictions_per_seq": max_predictions_per_seq,
        },
    )
    average = _average(metadata, index, shape)
    sample = check_sample(unpadded, _SAMPLE_SIZE)
    if sample.unmasked > _MAX_UNMASKED:
        report(
            f"warning: {sample.unmasked:.1%} of the records of {input_files_dir} have "
            "no masked token, so they train and evaluate no masked LM. Make them again "
            "with a greater --max_predictions_per_seq or --masked_lm_prob."
        )
    return RecordSet(parser, average, sample.sha256, metadata)
