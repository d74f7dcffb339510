"""Opens a set of records for a model, after everything that can be checked is."""

import dataclasses
import os

from bert_tf.data.features import ExampleParser, RecordShape, ValueLimits, check_sample
from bert_tf.data.features import record_shape as read_record_shape
from bert_tf.data.metadata import Metadata, metadata_file, read_metadata
from bert_tf.data.record_index import RecordIndex, record_files
from bert_tf.errors import CorruptRecordError

# Enough to find a wrong vocabulary before the first step, and done within a second;
# every record is checked again when it is read.
_SAMPLE_SIZE = 2048


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """Records that can be read by number.

    Attributes:
      index: Where each record is.
      shape: Their lengths.
      parser: Reads and checks them.
    """

    index: RecordIndex
    shape: RecordShape
    parser: ExampleParser

    def __len__(self) -> int:
        """Number of records."""
        return len(self.index)


def _check_lengths(
    input_files_dir: str, shape: RecordShape, expected: dict[str, int | None]
) -> None:
    """Compares the records' lengths with what the flags say, where they say it."""
    for name, value in expected.items():
        found = getattr(shape, name)
        if value is not None and value != found:
            raise CorruptRecordError(
                f"The records of {input_files_dir} have {name}={found}, but the flag "
                f"says {name}={value}. Use --{name}={found}, or make records of "
                f"{value}."
            )


def _check_metadata(folder: str, metadata: Metadata, index: RecordIndex) -> None:
    """Compares a folder's metadata with its files."""
    if metadata.packed:
        raise CorruptRecordError(
            f"{metadata_file(folder)} says that {folder} holds packed records, which "
            "cannot be read yet. Use the unpacked ones."
        )
    for shard in metadata.shards or ():
        path = os.path.join(folder, shard.name)
        if path not in index.files and os.path.exists(path):
            continue  # Single files of the folder were asked for.
        if path not in index.files:
            raise CorruptRecordError(
                f"{metadata_file(folder)} names the file {shard.name}, which {folder} "
                "does not hold. Copy it there, or make the records again."
            )
        number = index.files.index(path)
        records = int(index.starts[number + 1] - index.starts[number])
        found = (records, os.path.getsize(path))
        if found != (shard.records, shard.bytes):
            raise CorruptRecordError(
                f"{path} must hold {shard.records} records in {shard.bytes} bytes, as "
                f"{metadata_file(folder)} says. Received: {found[0]} records in "
                f"{found[1]} bytes. Copy or make the file again."
            )


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
      input_files_dir: Folders separated by commas; * and ? work.
      limits: What the model can look up.
      max_seq_length: What the flag says, if anything.
      max_predictions_per_seq: Likewise.
      cache_dir: Where offsets are kept between runs; empty for nowhere.

    Returns:
      The records.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if a metadata file is not one.
      CorruptRecordError: if a file is empty, cut or damaged, or contradicts the flags,
        the metadata or the model.
    """
    files = record_files(input_files_dir)
    index = RecordIndex(files, cache_dir)
    for folder in sorted({os.path.dirname(path) for path in files}):
        metadata = read_metadata(folder)
        if metadata:
            _check_metadata(folder, metadata, index)
    shape = read_record_shape(index)
    expected = {
        "max_seq_length": max_seq_length,
        "max_predictions_per_seq": max_predictions_per_seq,
    }
    _check_lengths(input_files_dir, shape, expected)
    parser = ExampleParser(index, shape, limits)
    check_sample(index, parser, _SAMPLE_SIZE)
    return RecordSet(index, shape, parser)
