"""Detects the format of record files, and opens the reader for it."""

from collections.abc import Sequence

from bert_tf.data.records.record_index import RecordIndex
from bert_tf.data.records.record_numbers import NumberedRecords
from bert_tf.data.records.schema import (
    ExampleParser,
    RecordParser,
    ValueLimits,
    record_shape,
)
from bert_tf.errors import CorruptRecordError

# For commands without a model: ids need only fit into a record.
NO_LIMITS = ValueLimits(vocab_size=2**28, type_vocab_size=2**28)

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def file_format(path: str) -> str:
    """The format of a record file, by its first bytes: hdf5 or tfrecord."""
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return "hdf5" if is_hdf5 else "tfrecord"


def open_parser(
    files: Sequence[str], limits: ValueLimits, cache_dir: str = ""
) -> tuple[NumberedRecords, RecordParser]:
    """Opens record files of either format.

    Args:
      files: TFRecord files, or HDF5 files.
      limits: Exclusive upper bounds of the ids.
      cache_dir: Folder in which offsets of TFRecords are cached between runs; empty for
        no cache.

    Returns:
      The index of the records, and a parser, which gives the same features for the same
      records in either format.

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
        return index, Hdf5Parser(index, index.shape, limits)
    index = RecordIndex(list(files), cache_dir)
    return index, ExampleParser(index, record_shape(index), limits)
